package journal

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/varvefs/varve/master/journal/files"
	"go.etcd.io/raft/v3/raftpb"
)

// others are the voters but one, all with the whole log of their leader.
func others(t *testing.T, voters []*voter, lead *voter) (rest []*voter) {
	t.Helper()
	eventually(t, "all follow and have all", func() bool {
		for _, v := range voters {
			if s := v.Status(); s.Leader != lead.cfg.ID || s.Applied != lead.Status().Last || s.Applied == 0 {
				return false
			}
		}
		return true
	})
	for _, v := range voters {
		if v != lead {
			rest = append(rest, v)
		}
	}
	return rest
}

// What a leader has sent before it died may arrive after its obituary. It binds nobody.
func TestLateFramesOfTheDead(t *testing.T) {
	w := &wires{logs: map[uint64]*Log{}, cut: map[uint64]bool{}}
	var voters []*voter
	for id := uint64(1); id <= 3; id++ { // a slow clock: no election timeout passes here
		voters = append(voters, w.startWith(t, id, t.TempDir(), func(c *Config) { c.Tick = 20 * time.Millisecond }))
	}
	t.Cleanup(func() {
		for _, v := range voters {
			_ = v.Close()
		}
	})
	lead := leaderOf(t, voters, nil)
	rest := others(t, voters, lead)
	dead, term := lead.cfg.ID, lead.Status().Term
	w.isolate(dead, true)
	late := func(to *voter) {
		id := to.cfg.ID
		_ = to.Step(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: &dead, To: &id, Term: &term})
	}
	for _, v := range rest {
		v.ForgetLeader(v.Status().Term)
		late(v)
	}
	begun := time.Now()
	rest[0].Campaign()
	eventually(t, "the candidate leads", rest[0].isLeader)
	took, how := time.Since(begun), ""
	if o, ok := rest[0].Takeover(); ok {
		how = o.Cause
	}
	// Without a second Campaign raft's own timer is the only other way to lead.
	if o, _ := rest[0].Takeover(); o.From != dead || !strings.Contains(o.Cause, "died") || o.Votes > took {
		t.Errorf("after %v it leads because %q: %+v", took, how, o)
	}
}

// A takeover says whose and why.
func TestTakeover(t *testing.T) {
	w, voters := trio(t)
	lead := leaderOf(t, voters, nil)
	next := others(t, voters, lead)[0]
	lead.Handover(next.cfg.ID, "its host is to be painted")
	eventually(t, "the other leads", next.isLeader)
	o, ok := next.Takeover()
	if !ok || o.Term != next.Status().Term || o.From != lead.cfg.ID || !strings.Contains(o.Cause, "painted") {
		t.Errorf("%+v", o)
	}
	others(t, voters, next)
	w.isolate(next.cfg.ID, true)
	third := leaderOf(t, voters, next)
	if o, _ := third.Takeover(); o.From != next.cfg.ID || !strings.Contains(o.Cause, "silent") || o.Silent < third.ElectionTimeout()/2 {
		t.Errorf("%+v", o)
	}
}

// A leader that lost the others and leads again does not call itself silent.
func TestLeadsAgain(t *testing.T) {
	w, voters := trio(t)
	lead := leaderOf(t, voters, nil)
	others(t, voters, lead)
	term, before := lead.Status().Term, BootTime()
	w.mu.Lock()
	w.only = lead.cfg.ID
	w.mu.Unlock()
	w.isolate(lead.cfg.ID, true)
	eventually(t, "it leads no longer", func() bool { return !lead.isLeader() })
	w.isolate(lead.cfg.ID, false)
	eventually(t, "it leads again", func() bool { return lead.isLeader() && lead.Status().Term > term })
	var o Takeover
	eventually(t, "it says how", func() bool { o, _ = lead.Takeover(); return o.Term > term })
	if o.From != lead.cfg.ID || !strings.Contains(o.Cause, "leads again") || o.Silent < 0 || o.Silent > time.Duration(BootTime()-before) {
		t.Errorf("%+v", o)
	}
}

// stuckDir is a directory on a disk that answers no write while gate is locked.
type stuckDir struct {
	files.Dir
	gate *sync.Mutex
}

type stuckFile struct {
	files.File
	gate *sync.Mutex
}

func (d *stuckDir) Open(name string, direct bool) (files.File, error) {
	f, err := d.Dir.Open(name, direct)
	return &stuckFile{f, d.gate}, err
}

func (f *stuckFile) WriteSync(b []byte, off int64) error {
	f.gate.Lock()
	f.gate.Unlock()
	return f.File.WriteSync(b, off)
}

// Whoever asks is told since when a write has been under way, also while it hangs.
func TestWriting(t *testing.T) {
	cfg, gate := config(t.TempDir()), new(sync.Mutex)
	cfg.Files = &stuckDir{files.Host(cfg.Dir), gate}
	l := mustOpen(t, cfg)
	if at := l.Status().Writing; at != 0 {
		t.Errorf("writing since %d without a write", at)
	}
	gate.Lock()
	before := BootTime()
	if err := l.Propose([]byte("x"), 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the write is under way", func() bool { return l.Status().Writing >= before })
	gate.Unlock()
	eventually(t, "it is over", func() bool { return l.Status().Writing == 0 })
	mustClose(t, l)
}
