package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/varvefs/varve/elect"
	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/master/voters"
	"github.com/varvefs/varve/test/sim/disk"
	"github.com/varvefs/varve/wire"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// tick is raft's clock, as package journal has it by default.
const tick = 25 * ms

// process is a master or a metalogger.
type process struct {
	life
	server
	h    *host
	id   uint64
	sup  *supervisor
	log  *journal.Manual
	mach *elect.Machine

	driver, writer, loop, runner *actor

	ticked, poked, writing bool
	commitSeen             uint64
	quiet                  int // ticks without anything to do
	committed              [][]journal.Committed
	fetching               bool

	// The connections to other voters.
	beats map[uint64]voters.Beat
	self  *wire.VoterBeat

	// The runner.
	held     bool
	brisk    nanos
	ready    bool // as the loop says it to the runner
	said     uint64
	leaving  bool
	stepping bool
}

// startProcess starts the supervisor's child; nil if its disk fails.
func startProcess(s *supervisor) *process {
	h, w := s.h, s.w
	p := &process{h: h, id: h.id, sup: s, beats: map[uint64]voters.Beat{}}
	p.life = life{w: w}
	p.driver, p.writer, p.loop, p.runner = p.actor(), p.actor(), p.actor(), p.actor()
	if err := p.open(); err != nil {
		h.disk.Die()
		p.dead = true
		p.diskFailed(err)
		return nil
	}
	h.proc = p
	p.newMachine()
	w.notef("%v starts: entry %d of term %d, the image holds %d", h, p.log.Status().Last, p.log.Status().Term, p.index)
	w.after(h.real(w.between(0, tick)), p.tick)
	w.after(w.between(0, 20*ms), p.stepRunner)
	w.after(w.between(0, 100*ms), p.tellAll)
	if w.mode == journal.SyncQuorum {
		w.after(h.real(50*ms), p.syncLog)
	}
	if !h.master {
		w.after(100*ms, p.handOver)
	}
	w.after(w.between(200*ms, 2000*ms), p.collect)
	p.wakeDriver()
	return p
}

// open reads the image and opens the log.
func (p *process) open() error {
	h, w := p.h, p.w
	at, err := p.loadState()
	if err != nil {
		return err
	}
	cfg := journal.Config{
		ID: p.id, Addrs: map[uint64]string{}, Await: true, Applied: at.index, AppliedTerm: at.term,
		SyncMode: w.mode, FileSize: 48 * 4096, BackLogs: -1, Transport: p, Tick: time.Duration(tick),
		Fetch: p.fetch, Reluctant: !h.master, Clock: func() int64 { return int64(h.clock()) },
		Files: h.disk, Boot: func() string { return fmt.Sprint("boot ", h.boots) },
		Log: w.log.With("host", fmt.Sprintf("voter %d", p.id)), Metrics: set,
		Changed: func(journal.Members) { p.self = nil },
	}
	for _, o := range w.hosts {
		cfg.Peers = append(cfg.Peers, o.id)
		cfg.Addrs[o.id] = fmt.Sprint("host ", o.n)
	}
	p.log, err = journal.OpenManual(cfg)
	if err != nil {
		return err
	}
	p.newServer(at)
	return nil
}

// diskFailed deals with an error of a disk; any other error of the log is a bug.
func (p *process) diskFailed(err error) {
	switch {
	case errors.Is(err, disk.ErrPower):
		p.h.powerCut()
		p.h.bootLater()
	case !errors.Is(err, disk.ErrIO):
		p.w.failf("%v: the log fails: %v", p.h, err)
	}
}

// die ends the process at once.
func (p *process) die(why string) {
	if p.dead {
		return
	}
	p.w.notef("%v: process %s", p.h, why)
	p.dead = true
	p.log.Kill()
	p.buried()
}

// buried is what follows when the process has ended.
func (p *process) buried() {
	p.h.disk.Die()
	p.h.proc = nil
	if !p.sup.dead {
		p.sup.bury(p)
	}
}

// fail ends the process because of an error.
func (p *process) fail(err error) {
	if p.dead {
		return
	}
	p.die(fmt.Sprintf("ends: %v", err))
	p.diskFailed(err)
}

// resume goes on after SIGCONT.
func (p *process) resume() {
	for _, a := range []*actor{p.driver, p.writer, p.loop, p.runner} {
		a.until = 0
		if len(a.todo) > 0 {
			a.wake(p.w.between(0, 50*us))
		}
	}
}

// The driver.

func (p *process) tick() {
	if p.dead {
		return
	}
	p.w.after(p.h.real(tick), p.tick)
	if p.ticked {
		return // a ticker keeps one tick for a late reader and drops the rest
	}
	p.ticked = true
	p.driver.post(func() {
		p.ticked = false
		if p.quiet++; p.quiet == 2 {
			p.drive(p.log.Idle)
		}
		if !p.dead {
			p.drive(p.log.Tick)
		}
	})
}

// wakeDriver has the driver look at what was given to the log.
func (p *process) wakeDriver() {
	if p.poked || p.dead {
		return
	}
	p.poked = true
	p.driver.post(func() {
		p.poked = false
		p.quiet = 0
		p.drive(p.log.Turn)
	})
}

// drive runs one step of the log's driver and passes on what came of it.
func (p *process) drive(step func() error) {
	err := step()
	for err == nil && p.log.Waiting() > 0 && len(p.committed) < 16 {
		var list []journal.Committed
		list, err = p.log.Take()
		p.committed = append(p.committed, list)
	}
	if err != nil {
		p.fail(err)
		return
	}
	if len(p.committed) > 0 || len(p.log.Leading()) > 0 {
		p.wakeLoop()
	}
	if p.log.Writing() && !p.writing {
		p.writing = true
		p.w.after(p.w.rare(150*us)+p.h.slow, func() { p.writer.post(p.write) })
	}
}

func (p *process) write() {
	p.writing = false
	if err := p.log.Write(); err != nil {
		p.fail(err)
		return
	}
	p.drive(func() error { return nil })
	p.wakeDriver()
}

func (p *process) syncLog() {
	if p.dead {
		return
	}
	p.w.after(p.h.real(50*ms), p.syncLog)
	if p.stopped > p.w.now {
		return
	}
	if err := p.log.Sync(); err != nil {
		p.fail(err)
	}
}

// The network.

// Send implements journal.Transport.
func (p *process) Send(msgs []*raftpb.Message) {
	from := p.beat()
	for _, m := range msgs {
		to := p.w.voter(m.GetTo())
		if to == nil || to == p.h {
			continue
		}
		p.w.net.send(p.h.n, to.n, func() {
			if q := to.proc; q != nil && to.id == m.GetTo() {
				q.receive(from, proto.Clone(m).(*raftpb.Message))
			}
		})
	}
}

// voter finds the host of a voter.
func (w *world) voter(id uint64) *host {
	for _, h := range w.hosts {
		if h.id == id {
			return h
		}
	}
	return nil
}

// receive gives a message to the log, if it is a voter's.
func (p *process) receive(from *wire.VoterBeat, m *raftpb.Message) {
	if p.stopped > p.w.now { // the kernel keeps it
		p.w.after(p.stopped-p.w.now+p.w.between(0, 100*us), func() {
			if !p.dead {
				p.receive(from, m)
			}
		})
		return
	}
	if voters.Judge(p.id, p.log.Self(), p.log.Members(), from) != voters.Member {
		return
	}
	if err := p.log.Step(m); err != nil {
		p.w.failf("%v refuses a message: %v", p.h, err)
	}
	p.wakeDriver()
}

// beat is what the others are told of this one. What does not matter to them
// when it is old is not made anew each time.
func (p *process) beat() *wire.VoterBeat {
	if p.self == nil {
		m := p.log.Members()
		p.self = &wire.VoterBeat{ID: p.id, Founder: p.log.Self(), Members: m.Encode()}
	}
	return p.self
}

// tellAll sends a beat to all others, every second.
func (p *process) tellAll() {
	if p.dead {
		return
	}
	p.w.after(p.h.real(1000*ms), p.tellAll)
	if p.stopped <= p.w.now {
		p.tell()
	}
}

func (p *process) tell() {
	b := *p.beat()
	s := p.log.Status()
	b.What = wire.VoterMetalogger
	if p.h.master {
		b.What = wire.VoterMaster
	}
	b.Term, b.Leader, b.Commit, b.Last, b.LastOf = s.Term, s.Leader, s.Commit, s.Last, s.LastTerm
	b.Amnesia = s.Amnesia
	b.ImageAt = p.newestImage()
	for _, o := range p.w.hosts {
		if o != p.h {
			p.w.net.send(p.h.n, o.n, func() {
				if o.proc != nil && o.proc.stopped <= p.w.now {
					o.proc.noteBeat(b)
				}
			})
		}
	}
}

// noteBeat is voters.Net's.
func (p *process) noteBeat(b wire.VoterBeat) {
	now := time.Unix(0, int64(p.h.clock()))
	p.beats[b.ID] = voters.Beat{VoterBeat: b, At: now}
	if m := p.log.Members(); len(m.List) == 0 {
		peers := map[uint64]string{}
		for _, o := range p.w.hosts {
			peers[o.id] = fmt.Sprint("host ", o.n)
		}
		own := journal.Member{ID: p.id, Addr: peers[p.id], Founder: p.log.Self()}
		if members, ok, _ := voters.Founding(own, peers, p.beats); ok {
			p.log.Found(members)
			p.self = nil
			p.wakeDriver()
			p.w.after(1, func() {
				if !p.dead {
					p.tell()
				}
			})
		}
		return
	}
	if voters.Judge(p.id, p.log.Self(), p.log.Members(), &b) != voters.Member {
		return
	}
	s := p.log.Status()
	if b.Amnesia && b.Term > s.Term {
		p.log.Leave(b.ID, b.Term)
	}
	if s.Amnesia {
		if heir, many, ok := voters.Heir(&s, p.log.Members(), p.beats, now); ok {
			p.log.Heir(heir, many)
		}
	}
	p.wakeDriver()
}

// handOver is the metalogger's.
func (p *process) handOver() {
	if p.dead {
		return
	}
	p.w.after(p.h.real(100*ms), p.handOver)
	s := p.log.Status()
	if s.Leader != p.id || p.stopped > p.w.now {
		return
	}
	var best journal.Peer
	for _, k := range s.Peers {
		if p.beats[k.ID].What == wire.VoterMaster && k.Active && !k.Learner && (best.ID == 0 || k.Match > best.Match) {
			best = k
		}
	}
	if best.ID != 0 {
		p.log.Transfer(best.ID)
		p.wakeDriver()
	}
}

// masters are those that this process knows, as elect wants them.
func (p *process) masters() (ids []uint64) {
	for _, h := range p.w.hosts {
		if h.master {
			ids = append(ids, h.id)
		}
	}
	slices.Sort(ids)
	return ids
}
