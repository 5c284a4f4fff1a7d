package perf

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/varvefs/varve/wire"
)

// quorumTurns is how often one voter and three are measured, in turn.
const quorumTurns = 3

// quorumRows compares the throughput of one voter with that of three, and
// samples how far the standbys are behind.
func quorumRows(ctx context.Context, o *MasterOptions, key masterSecret, r *Report) error {
	var one, three []float64
	var lags []time.Duration
	var last [2]*masterLoad
	for turn := range quorumTurns {
		for i, voters := range []int{1, 3} {
			o.Progress(fmt.Sprintf("%d voters, turn %d of %d", voters, turn+1, quorumTurns))
			l, lag, err := quorumLoad(ctx, o, key, voters)
			if err != nil {
				return err
			}
			last[i] = l
			if voters == 1 {
				one = append(one, l.rate())
			} else {
				three, lags = append(three, l.rate()), append(lags, lag...)
			}
		}
	}
	slices.Sort(one)
	slices.Sort(three)
	r.load(fmt.Sprintf("%d clients, one voter, last turn", o.Clients), last[0])
	r.load(fmt.Sprintf("%d clients, three voters, last turn", o.Clients), last[1])
	for i, voters := range []string{"one voter", "three voters"} {
		for _, role := range slices.Sorted(maps.Keys(last[i].cpu)) {
			r.Rows = append(r.Rows, Row{Name: voters + ": processor time of the " + role, Unit: "a change", CPU: last[i].cpu[role]})
		}
	}
	r.add("one voter, median", one[len(one)/2], "changes/s")
	r.add("three voters, median", three[len(three)/2], "changes/s")
	r.add("three voters of one", three[len(three)/2]/one[len(one)/2], "ratio")
	r.Rows = append(r.Rows, Row{
		Name: "standby behind the leader", Value: float64(len(lags)), Unit: "samples",
		P50: percentile(lags, 0.5), P99: percentile(lags, 0.99), Max: percentile(lags, 1),
	})
	return nil
}

// quorumLoad starts masters on empty directories and loads the one that leads.
func quorumLoad(ctx context.Context, o *MasterOptions, key masterSecret, voters int) (*masterLoad, []time.Duration, error) {
	dir := filepath.Join(o.Dir, "quorum")
	defer os.RemoveAll(dir)
	list, err := freeAddrs(voters)
	if err != nil {
		return nil, nil, err
	}
	addrs := map[uint64]string{}
	for i, addr := range list {
		if voters > 1 {
			addrs[uint64(i+1)] = addr
		}
	}
	var all []*masterProcess
	for id := uint64(1); id <= uint64(voters); id++ {
		p, err := startMaster(ctx, o.Program, filepath.Join(dir, fmt.Sprint(id)), key, id, addrs)
		if err != nil {
			return nil, nil, err
		}
		defer p.end()
		all = append(all, p)
	}
	leader, err := leaderOf(ctx, all)
	if err != nil {
		return nil, nil, err
	}
	if !o.Shared {
		restore, err := apart(all, leader)
		if err != nil {
			return nil, nil, err
		}
		defer restore()
	}
	w := &lagWatch{}
	meter := startCPU(all, leader)
	l, err := loadFor(ctx, o, key, leader, 0, func(ctx context.Context) error {
		if voters == 1 {
			return sleep(ctx, o.Duration)
		}
		return w.run(ctx, o.Duration, key, leader, all)
	})
	if err == nil {
		l.cpu = meter.stop(len(l.changes))
	}
	return l, w.lags(), err
}

// apart gives clients and leader one half of the processors and the other voters
// the other half, whether they are there or not: with one voter and with three
// the leader has the same to work with.
func apart(all []*masterProcess, leader *masterProcess) (restore func(), err error) {
	near, far := halves()
	for _, p := range all {
		where := &far
		if p == leader {
			where = &near
		}
		if err := confine(p.cmd.Process.Pid, where); err != nil {
			return nil, err
		}
	}
	return confineSelf(&near)
}

// cpuMeter measures the processor time of masters and of this process.
type cpuMeter struct {
	all    []*masterProcess
	leader *masterProcess
	before []float64 // seconds; the last: of this process
}

func startCPU(all []*masterProcess, leader *masterProcess) *cpuMeter {
	m := &cpuMeter{all: all, leader: leader}
	m.before = m.read()
	return m
}

func (m *cpuMeter) read() (list []float64) {
	for _, p := range m.all {
		s := 0.0
		if f, err := p.figures(); err == nil {
			s = f.at("process_cpu_seconds_total")
		}
		list = append(list, s)
	}
	return append(list, cpuTime().Seconds())
}

// stop gives microseconds a change, by role.
func (m *cpuMeter) stop(changes int) map[string]float64 {
	now, out := m.read(), map[string]float64{}
	for i := range now {
		role := "clients"
		switch {
		case i < len(m.all) && m.all[i] == m.leader:
			role = "leader"
		case i < len(m.all) && m.all[i].id == metaloggerID:
			role = "metalogger"
		case i < len(m.all):
			role = "standby"
		}
		out[role] = 1e6 * (now[i] - m.before[i]) / float64(max(changes, 1))
	}
	return out
}

// leaderOf waits until one of the masters leads.
func leaderOf(ctx context.Context, all []*masterProcess) (*masterProcess, error) {
	for end := time.Now().Add(startLimit); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		for _, p := range all {
			if p.id != metaloggerID && p.ready() {
				return p, nil
			}
		}
	}
	return nil, fmt.Errorf("none of the %d masters leads: %s", len(all), all[0].output.String())
}

// lagWatch samples how far masters are.
type lagWatch struct {
	leader   []lagSample
	standbys []lagSample
}

type lagSample struct {
	at    time.Time // when the answer was there
	index uint64    // applied
}

// lagEvery is the time between two samples.
const lagEvery = 5 * time.Millisecond

// run samples for a time.
func (w *lagWatch) run(ctx context.Context, d time.Duration, key masterSecret, leader *masterProcess, all []*masterProcess) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	results := make(chan func(), len(all))
	masters := slices.DeleteFunc(slices.Clone(all), func(p *masterProcess) bool { return p.id == metaloggerID })
	for _, p := range masters {
		go func() {
			list, err := sample(ctx, p, key)
			results <- func() {
				if err != nil || p == leader {
					w.leader = append(w.leader, list...)
				} else {
					w.standbys = append(w.standbys, list...)
				}
			}
		}()
	}
	for range masters {
		(<-results)()
	}
	return nil
}

func sample(ctx context.Context, p *masterProcess, key masterSecret) (list []lagSample, err error) {
	c, err := dialMaster(ctx, p.clients, key, wire.RoleAdmin, refuseAll)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for ; ctx.Err() == nil; time.Sleep(lagEvery) {
		asked := time.Now()
		var s wire.Status
		if err := ask(ctx, c, wire.AskStatus, &s); err != nil {
			return list, nil
		}
		at := asked // a standby had applied it at the latest when the answer came; the leader at the earliest when it was asked
		if s.Masters[0].Role != "leader" {
			at = time.Now()
		}
		list = append(list, lagSample{at, s.Masters[0].Applied})
	}
	return list, nil
}

// lags tells, for each sample of a standby, how long ago the leader was surely
// beyond it: at most so far is it behind.
func (w *lagWatch) lags() (list []time.Duration) {
	for _, s := range w.standbys {
		i, _ := slices.BinarySearchFunc(w.leader, s, func(l, s lagSample) int {
			if l.index <= s.index {
				return -1
			}
			return 1
		})
		lag := time.Duration(0)
		if i < len(w.leader) {
			lag = max(0, s.at.Sub(w.leader[i].at))
		}
		list = append(list, lag)
	}
	return list
}
