package journal

import (
	"testing"
	"time"
)

// trio starts three voters.
func trio(t *testing.T) (*wires, []*voter) {
	w := &wires{logs: map[uint64]*Log{}, cut: map[uint64]bool{}}
	var voters []*voter
	for id := uint64(1); id <= 3; id++ {
		voters = append(voters, w.start(t, id, t.TempDir()))
	}
	t.Cleanup(func() {
		for _, v := range voters {
			_ = v.Close()
		}
	})
	return w, voters
}

// A leader that is cut off knows that its lease is over before another leads.
func TestLeaseEndsFirst(t *testing.T) {
	w, voters := trio(t)
	for range 5 {
		lead := leaderOf(t, voters, nil)
		eventually(t, "the leader has a lease", lead.Leased)
		for _, v := range voters {
			if v != lead && v.Lease() != 0 {
				t.Fatal("a follower has a lease")
			}
		}
		w.isolate(lead.cfg.ID, true)
		second := leaderOf(t, voters, lead)
		if now, until := BootTime(), lead.Lease(); until >= now {
			t.Fatalf("another leads %v before the lease ends", time.Duration(until-now))
		}
		eventually(t, "the new leader has a lease", second.Leased)
		w.isolate(lead.cfg.ID, false)
		eventually(t, "the old leader follows", func() bool { return lead.Status().Leader == second.cfg.ID })
	}
}

// With proof that the leader is dead nobody waits for its lease.
func TestForgetLeader(t *testing.T) {
	w, voters := trio(t)
	lead := leaderOf(t, voters, nil)
	eventually(t, "all follow and have all", func() bool {
		for _, v := range voters {
			if s := v.Status(); s.Leader != lead.cfg.ID || s.Applied != lead.Status().Last || s.Applied == 0 {
				return false
			}
		}
		return true
	})
	var rest []*voter
	for _, v := range voters {
		if v != lead {
			rest = append(rest, v)
		}
	}
	term := lead.Status().Term
	rest[0].ForgetLeader(term - 1) // an obituary that comes late
	rest[1].ForgetLeader(term - 1)
	rest[0].Campaign() // alone it moves nothing
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if s := rest[1].Status(); s.Term != term || s.Leader != lead.cfg.ID {
			t.Fatalf("a candidate without proof moved others: %+v", s)
		}
	}
	w.isolate(lead.cfg.ID, true)
	begun := time.Now()
	rest[0].ForgetLeader(term)
	rest[1].ForgetLeader(term)
	rest[0].Campaign()
	eventually(t, "the candidate leads", rest[0].isLeader)
	t.Logf("took %v, an election timeout is %v", time.Since(begun), lead.ElectionTimeout())
}

// A handover ends the lease of the old leader first and takes no timeout.
func TestTransfer(t *testing.T) {
	_, voters := trio(t)
	for range 5 {
		lead := leaderOf(t, voters, nil)
		eventually(t, "the leader has a lease", lead.Leased)
		var next *voter
		for _, v := range voters {
			if v != lead {
				next = v
			}
		}
		begun := time.Now()
		lead.Transfer(next.cfg.ID)
		eventually(t, "the other leads", next.isLeader)
		if lead.Leased() {
			t.Fatal("two have a lease")
		}
		t.Logf("took %v", time.Since(begun))
	}
}

// A leader whose offer nobody takes up leads on in a new term, with a lease.
func TestFailedTransfer(t *testing.T) {
	w, voters := trio(t)
	lead := leaderOf(t, voters, nil)
	eventually(t, "the leader has a lease", lead.Leased)
	term := lead.Status().Term
	var next *voter
	for _, v := range voters {
		if v != lead {
			next = v
		}
	}
	// The other is cut off just when the offer has left.
	w.mu.Lock()
	w.deaf = next.cfg.ID
	w.mu.Unlock()
	lead.Transfer(next.cfg.ID)
	eventually(t, "somebody has a lease in a new term", func() bool {
		for _, v := range voters {
			if s := v.Status(); s.Term > term && v.Leased() {
				return true
			}
		}
		return false
	})
}

// A voter that restarts keeps the promise of its former life.
func TestRestartKeepsPromise(t *testing.T) {
	w := &wires{logs: map[uint64]*Log{}, cut: map[uint64]bool{}}
	dirs := map[uint64]string{}
	var voters []*voter
	for id := uint64(1); id <= 3; id++ {
		dirs[id] = t.TempDir()
		voters = append(voters, w.start(t, id, dirs[id]))
	}
	lead := leaderOf(t, voters, nil)
	eventually(t, "the leader has a lease", lead.Leased)
	var a, b *voter
	for _, v := range voters {
		if v != lead {
			a, b = b, v
		}
	}
	eventually(t, "all follow", func() bool { return a.Status().Leader != 0 && b.Status().Leader != 0 })
	w.isolate(lead.cfg.ID, true)
	until := lead.Lease()
	mustClose(t, a.Log)
	again := w.start(t, a.cfg.ID, dirs[a.cfg.ID])
	b.ForgetLeader(b.Status().Term) // a lie: a alone knows better
	b.Campaign()
	eventually(t, "another leads", func() bool { return b.isLeader() || again.isLeader() })
	if now := BootTime(); now < until {
		t.Fatalf("the restarted voter voted %v before the lease ended", time.Duration(until-now))
	}
	for _, v := range []*voter{lead, b, again} {
		mustClose(t, v.Log)
	}
}
