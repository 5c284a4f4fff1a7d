package system

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/varvefs/varve/wire"
)

// leading gives the master that leads, and whether all voters are up to date.
func (c *cluster) leading() (lead wire.MasterStatus, whole bool) {
	out, err := c.try("status", "--json")
	var s wire.Status
	if err != nil || json.Unmarshal([]byte(out), &s) != nil {
		return lead, false
	}
	whole = len(s.Masters) == 3
	for _, m := range s.Masters {
		if m.Role == "leader" {
			lead = m
		}
		whole = whole && !m.Down && m.Lag != nil && *m.Lag < 100 && m.Role != "unknown"
	}
	return lead, whole && lead.Pid != 0
}

// awaitWhole waits until a master leads and the other voters have caught up.
func (c *cluster) awaitWhole() (lead wire.MasterStatus) {
	c.t.Helper()
	c.until(60*time.Second, "a master leads and the others follow", func() (ok bool) {
		lead, ok = c.leading()
		return ok
	})
	return lead
}

// prober changes the tree all the time and notes the longest pause.
type prober struct {
	dir   string
	worst atomic.Int64 // ns, since it was last taken
	done  atomic.Int64 // operations
}

func (p *prober) run(stop <-chan struct{}) error {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	for i := 0; ; i++ {
		select {
		case <-stop:
			return nil
		default:
		}
		name := filepath.Join(p.dir, strconv.Itoa(i%10))
		begun := time.Now()
		if err := os.Mkdir(name, 0o755); err != nil {
			return err
		}
		if err := os.Remove(name); err != nil {
			return err
		}
		p.done.Add(1)
		if d := int64(time.Since(begun)); d > p.worst.Load() {
			p.worst.Store(d)
		}
	}
}

// TestFailover kills the leading master, or makes it hand over, again and again
// while files are written: no operation fails, and nothing that was acknowledged
// is lost. VARVE_ROUNDS sets the number of rounds.
func TestFailover(t *testing.T) {
	rounds := 6
	if n, err := strconv.Atoi(os.Getenv("VARVE_ROUNDS")); err == nil {
		rounds = n
	}
	if testing.Short() {
		rounds = 2
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := start(t, "--ha")
	stop := make(chan struct{})
	errs := make(chan error, 8)
	var wg sync.WaitGroup
	var workers []*worker
	for i := range 3 {
		w := newWorker(filepath.Join(c.mnt, "w"+strconv.Itoa(i)), seed+uint64(i))
		workers = append(workers, w)
		if err := os.MkdirAll(w.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := w.step(); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	p := &prober{dir: filepath.Join(c.mnt, "probe")}
	wg.Go(func() {
		if err := p.run(stop); err != nil {
			errs <- err
		}
	})
	pauses := map[string][]time.Duration{}
	for round := range rounds {
		lead := c.awaitWhole()
		what := "kill"
		p.worst.Store(0)
		if round%2 == 0 {
			what = "handover"
			c.varve("master", "handover")
		} else if err := syscall.Kill(lead.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		c.until(30*time.Second, "another master leads", func() bool {
			now, _ := c.leading()
			return now.Pid != 0 && now.Pid != lead.Pid && now.Epoch > lead.Epoch
		})
		enough := p.done.Load() + 5
		c.until(30*time.Second, "changes go on", func() bool { return p.done.Load() >= enough || len(errs) > 0 })
		pauses[what] = append(pauses[what], time.Duration(p.worst.Load()).Round(time.Millisecond))
	}
	close(stop)
	wg.Wait()
	select {
	case err := <-errs:
		t.Fatal(err)
	default:
	}
	c.awaitWhole()
	for _, w := range workers {
		if err := w.check(); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
	for what, all := range pauses {
		slices.Sort(all)
		t.Logf("%s: longest pause of an operation %v", what, all)
	}
}
