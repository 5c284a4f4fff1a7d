package journal

import (
	"fmt"
	"testing"
)

// A voter that waits to be founded does nothing; a lone voter takes in others,
// which get all of the log and vote; one of them is removed.
func TestMembershipGrows(t *testing.T) {
	w := &wires{logs: map[uint64]*Log{}, cut: map[uint64]bool{}}
	open := func(id uint64, await bool) *voter {
		return w.startWith(t, id, t.TempDir(), func(c *Config) { c.Peers, c.Await = []uint64{id}, await })
	}
	one := open(1, false)
	eventually(t, "the only voter leads", func() bool { return one.isLeader() && one.Leased() })
	say := func(v *voter, n int) {
		t.Helper()
		for i := range n {
			if err := v.Propose([]byte(fmt.Sprint(i)), "mine"); err != nil {
				t.Fatal(err)
			}
		}
	}
	say(one, 100)
	voters := []*voter{one}
	for id := uint64(2); id <= 3; id++ {
		v := open(id, true)
		voters = append(voters, v)
		done := make(chan error, 1)
		one.Change(Member{ID: id, Learner: true, Founder: v.Self()}, false, func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is a member", func() bool { m := one.Members(); return m.Has(id, v.Self()) })
		if m := one.Members(); m.Has(id, v.Self()+2) {
			t.Fatal("another log passes for it")
		}
		v.Found(one.Members())
		eventually(t, "it votes and has all", func() bool {
			m := one.Members()
			k, _ := m.Find(id)
			return !k.Learner && v.count() == 100
		})
		eventually(t, "the lease is earned anew", one.Leased)
	}
	say(one, 10)
	for _, v := range voters {
		eventually(t, "all have all", func() bool { return v.count() == 110 })
	}
	w.isolate(1, true)
	next := leaderOf(t, voters, one)
	eventually(t, "the new leader has all", func() bool { return next.count() == 110 })
	w.isolate(1, false)
	eventually(t, "the old one follows", func() bool { return one.Status().Leader == next.cfg.ID })
	next.Change(Member{ID: 1}, true, nil)
	eventually(t, "two are left", func() bool { return len(next.Members().List) == 2 })
	say(next, 10)
	for _, v := range voters[1:] {
		eventually(t, "the rest goes on", func() bool { return v.count() == 120 })
	}
	// All of it is known after a restart.
	dir := next.cfg.Dir
	cfg := next.cfg
	for _, v := range voters {
		mustClose(t, v.Log)
	}
	again := mustOpen(t, cfg)
	if m := again.Members(); len(m.List) != 2 || m.List[0].ID != 2 || m.Index == 0 {
		t.Fatalf("%s: members after a restart: %+v", dir, m)
	}
	mustClose(t, again)
}
