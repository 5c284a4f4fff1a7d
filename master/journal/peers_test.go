package journal

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/varvefs/varve/status"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// wires connects logs in one process. Voters can be cut off.
type wires struct {
	mu   sync.Mutex
	logs map[uint64]*Log
	cut  map[uint64]bool
	deaf uint64 // gets no offer of leadership
	only uint64 // who alone can ask for votes; 0: everybody
}

// port is one voter's Transport.
type port struct {
	w    *wires
	from uint64
}

func (p *port) Send(msgs []*raftpb.Message) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	for _, m := range msgs {
		to := p.w.logs[m.GetTo()]
		if to == nil || p.w.cut[p.from] || p.w.cut[m.GetTo()] || m.GetTo() == p.w.deaf && m.GetType() == raftpb.MsgTimeoutNow {
			continue
		}
		if asks := m.GetType() == raftpb.MsgPreVote || m.GetType() == raftpb.MsgVote; asks && p.w.only != 0 && p.w.only != p.from {
			continue
		}
		_ = to.Step(proto.Clone(m).(*raftpb.Message))
	}
}

func (w *wires) isolate(id uint64, yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[id] = yes
}

// voter is a log, what it has delivered, and who reads it.
type voter struct {
	*Log
	mu     sync.Mutex
	seen   []string
	images []uint64
	lost   int
	mine   int
}

func (w *wires) start(t *testing.T, id uint64, dir string) *voter {
	t.Helper()
	return w.startWith(t, id, dir, func(*Config) {})
}

func (w *wires) startWith(t *testing.T, id uint64, dir string, change func(*Config)) *voter {
	t.Helper()
	cfg := config(dir)
	cfg.ID, cfg.Peers = id, []uint64{1, 2, 3}
	cfg.Transport = &port{w: w, from: id}
	cfg.Tick = 5 * time.Millisecond
	cfg.BackLogs = -1
	change(&cfg)
	l := mustOpen(t, cfg)
	w.mu.Lock()
	w.logs[id] = l
	w.mu.Unlock()
	v := &voter{Log: l}
	go func() {
		for batch := range l.Committed() {
			v.mu.Lock()
			for _, c := range batch {
				switch {
				case c.Err != nil:
					v.lost++
				case c.Image:
					v.images = append(v.images, c.Index)
				case c.Data != nil:
					v.seen = append(v.seen, string(c.Data))
				}
				if c.Tag != nil && c.Err == nil {
					v.mine++
				}
			}
			v.mu.Unlock()
		}
	}()
	return v
}

func (v *voter) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.seen)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func leaderOf(t *testing.T, voters []*voter, except *voter) *voter {
	t.Helper()
	var lead *voter
	eventually(t, "one leads", func() bool {
		for _, v := range voters {
			if v != except && v.isLeader() {
				lead = v
			}
		}
		return lead != nil
	})
	return lead
}

// The transport hook carries a real cluster: election, replication, a leader that
// is cut off and learns what became of its proposals, a follower that missed so
// much that it needs an image.
func TestThreeVoters(t *testing.T) {
	w := &wires{logs: map[uint64]*Log{}, cut: map[uint64]bool{}}
	var voters []*voter
	for id := uint64(1); id <= 3; id++ {
		voters = append(voters, w.start(t, id, t.TempDir()))
	}
	lead := leaderOf(t, voters, nil)
	propose := func(v *voter, n int) {
		t.Helper()
		for range n {
			if err := v.Propose([]byte(fmt.Sprintf("by %d", v.cfg.ID)), "mine"); err != nil && !errors.Is(err, status.NotLeader) {
				t.Fatal(err)
			}
		}
	}
	propose(lead, 50)
	for _, v := range voters {
		eventually(t, "all have 50 entries", func() bool { return v.count() == 50 })
		if v != lead && v.Propose([]byte("x"), nil) != status.NotLeader {
			t.Error("a follower took a proposal")
		}
	}

	// The leader is cut off while it proposes. Its proposals are lost, and it is told.
	w.isolate(lead.cfg.ID, true)
	propose(lead, 5)
	second := leaderOf(t, voters, lead)
	propose(second, 50)
	eventually(t, "the new leader has 100 entries", func() bool { return second.count() == 100 })

	// It comes back after the others have compacted what it misses.
	for _, v := range voters {
		if v != lead {
			eventually(t, "the follower has 100 entries", func() bool { return v.count() == 100 })
			if err := v.Compact(v.Status().Commit); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.isolate(lead.cfg.ID, false)
	eventually(t, "the old leader is told to fetch an image", func() bool {
		lead.mu.Lock()
		defer lead.mu.Unlock()
		return len(lead.images) > 0
	})
	third := leaderOf(t, voters, lead)
	propose(third, 10)
	eventually(t, "the old leader goes on behind the image", func() bool { return lead.count() == 60 })
	eventually(t, "it knows that its proposals are lost", func() bool {
		lead.mu.Lock()
		defer lead.mu.Unlock()
		return lead.lost == 5 && lead.mine == 50
	})
	for _, v := range voters {
		mustClose(t, v.Log)
	}
}
