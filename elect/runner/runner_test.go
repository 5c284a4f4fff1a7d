package runner

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/varvefs/varve/master/journal"
)

// fakeLog is a changelog that a test leads by the hand. It is the addresses too.
type fakeLog struct {
	mu     sync.Mutex
	status journal.Status
	lease  int64
	ready  bool
	did    []string
	until  time.Duration
}

func (f *fakeLog) do(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did = append(f.did, what)
}

func (f *fakeLog) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeLog) Status() journal.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

func (f *fakeLog) Lease() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lease
}

func (f *fakeLog) isReady() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ready
}

func (f *fakeLog) ForgetLeader(uint64)     { f.do("forget"); f.set(func() { f.status.Leader = 0 }) }
func (f *fakeLog) Campaign()               { f.do("campaign") }
func (f *fakeLog) Handover(uint64, string) { f.do("transfer") }
func (f *fakeLog) Leads(uint64) error      { return nil }
func (f *fakeLog) Drop() error             { f.do("drop"); return nil }

func (f *fakeLog) Hold(until time.Duration) error {
	f.set(func() { f.until = until })
	f.do("hold")
	return nil
}

func (f *fakeLog) has(what string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.did, what)
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within a minute: ", what)
		}
	}
}

func start(t *testing.T, f *fakeLog) *Runner {
	t.Helper()
	r := Start(Config{Self: 2, Masters: []uint64{1, 2}, Timeout: time.Hour, Log: f, Addresses: f, Virtual: true, Ready: f.isReady})
	t.Cleanup(r.Close)
	return r
}

// An obituary makes a standby forget the leader and ask for votes; when it leads,
// it holds the addresses until the lease ends, and drops them when there is none.
func TestObituaryAndAddresses(t *testing.T) {
	f := &fakeLog{status: journal.Status{ID: 2, Term: 5, Leader: 1}}
	r := start(t, f)
	r.Died(1, 4) // of another term: nothing
	r.Died(1, 5)
	eventually(t, "the leader is forgotten and votes are asked for", func() bool { return f.has("forget") && f.has("campaign") })
	f.set(func() { f.status.Term, f.status.Leader = 6, 2 })
	f.set(func() { f.ready, f.lease = true, journal.BootTime()+int64(time.Hour) })
	eventually(t, "the addresses are held", func() bool { return f.has("hold") })
	f.set(func() {
		if int64(f.until) > f.lease {
			t.Errorf("held until %v, the lease ends %v before", f.until, int64(f.until)-f.lease)
		}
		f.lease = 0
	})
	eventually(t, "the addresses are dropped", func() bool { return f.has("drop") })
}

// Leave gives up the addresses, then the leadership, and returns when another leads.
func TestLeave(t *testing.T) {
	f := &fakeLog{status: journal.Status{ID: 2, Term: 5, Leader: 2, Peers: []journal.Peer{{ID: 1, Active: true}}}, ready: true, lease: journal.BootTime() + int64(time.Hour)}
	r := start(t, f)
	eventually(t, "the addresses are held", func() bool { return f.has("hold") })
	left := make(chan struct{})
	go func() { defer close(left); r.Leave(context.Background()) }()
	eventually(t, "leadership is handed over", func() bool { return f.has("transfer") })
	select {
	case <-left:
		t.Error("left while it still led")
	default:
	}
	f.set(func() {
		if i, j := slices.Index(f.did, "drop"), slices.Index(f.did, "transfer"); i < 0 || i > j {
			t.Errorf("it did %v", f.did)
		}
		f.status.Term, f.status.Leader = 6, 1
	})
	<-left
}

// Without another voter to lead, Leave ends with its context.
func TestLeaveAlone(t *testing.T) {
	f := &fakeLog{status: journal.Status{ID: 2, Term: 5, Leader: 2}, ready: true, lease: journal.BootTime() + int64(time.Hour)}
	r := start(t, f)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	r.Leave(ctx)
	if f.has("transfer") {
		t.Error("handed over to nobody")
	}
}

// An operator's order to hand over takes the addresses away before another voter
// may lead.
func TestHandoverDropsFirst(t *testing.T) {
	f := &fakeLog{status: journal.Status{ID: 2, Term: 5, Leader: 2, Peers: []journal.Peer{{ID: 1, Active: true}}}, ready: true, lease: journal.BootTime() + int64(time.Hour)}
	r := start(t, f)
	eventually(t, "the addresses are held", r.Holds)
	r.Handover(1)
	eventually(t, "leadership is handed over", func() bool { return f.has("transfer") })
	f.set(func() {
		if i, j := slices.Index(f.did, "drop"), slices.Index(f.did, "transfer"); i < 0 || i > j {
			t.Errorf("it did %v", f.did)
		}
	})
	if r.Holds() {
		t.Error("the addresses are held after the handover")
	}
}

// Silence of the leader is counted from its last word, whatever raft still thinks
// of it; and a leader whose write hangs hands over.
func TestSilenceAndStall(t *testing.T) {
	heard := journal.BootTime()
	f := &fakeLog{status: journal.Status{ID: 2, Term: 5, Leader: 1, Heard: heard}}
	r := Start(Config{Self: 2, Masters: []uint64{2, 1}, Timeout: 50 * time.Millisecond, Log: f, Addresses: f, Ready: f.isReady})
	t.Cleanup(r.Close)
	eventually(t, "votes are asked for", func() bool { return f.has("campaign") })
	if silent := time.Duration(journal.BootTime() - heard); silent < 50*time.Millisecond {
		t.Errorf("votes were asked for after %v", silent)
	}
	f.set(func() {
		f.status = journal.Status{ID: 2, Term: 6, Leader: 2, Peers: []journal.Peer{{ID: 1, Active: true}}, Writing: journal.BootTime()}
		f.ready, f.lease = true, journal.BootTime()+int64(time.Hour)
	})
	eventually(t, "the leader whose disk hangs hands over", func() bool { return f.has("transfer") })
}
