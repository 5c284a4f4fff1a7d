package elect

import (
	"testing"

	"pgregory.net/rapid"
)

// world is what a random test knows beside the machine: the truth that its
// actions must not contradict.
type world struct {
	m    *Machine
	cfg  Config
	now  Nanos
	died map[Obituary]bool
	held Nanos // end of the last Hold that no Drop has followed; 0: none
	stop bool
}

// TestProperties steps a machine through arbitrary views: whatever a log may
// look like and in whatever order the world reports it, some things are never done.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := testConfig
		cfg.Self = rapid.Uint64Range(1, 3).Draw(t, "self")
		cfg.Masters = []uint64{1, 2}
		w := &world{m: New(cfg), cfg: cfg, now: 1000 * ms, died: map[Obituary]bool{}}
		v := View{Term: 5}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "event") {
			case 0:
				o := Obituary{rapid.Uint64Range(1, 3).Draw(t, "dead"), v.Term + rapid.Uint64Range(0, 2).Draw(t, "its term") - 1}
				w.died[o] = true
				w.m.Died(o)
			case 1:
				w.m.Handover(rapid.Uint64Range(0, 3).Draw(t, "heir"))
			case 2:
				w.stop = true
				w.m.Stop()
			default:
				v = w.draw(t, v)
				w.now += Nanos(rapid.Int64Range(1, 700).Draw(t, "pause")) * ms
				w.check(t, v, w.m.Step(w.now, v))
			}
		}
	})
}

// draw makes a view that may follow v: terms only grow.
func (w *world) draw(t *rapid.T, v View) View {
	term := v.Term + rapid.Uint64Range(0, 2).Draw(t, "terms")
	next := View{Term: term, Leader: rapid.Uint64Range(0, 3).Draw(t, "leader"), Heard: v.Heard}
	if term == v.Term && v.Leader != 0 && next.Leader != 0 {
		next.Leader = v.Leader // one leader a term
	}
	if next.Leader == w.cfg.Self {
		next.Ready = rapid.Bool().Draw(t, "ready")
		next.Lease = Nanos(rapid.Int64Range(-300, 900).Draw(t, "lease"))*ms + w.now
		if rapid.Bool().Draw(t, "stalls") {
			next.Syncing = w.now - Nanos(rapid.Int64Range(0, 3000).Draw(t, "since"))*ms
		}
		for id := uint64(1); id <= 3; id++ {
			if id != w.cfg.Self && rapid.Bool().Draw(t, "known") {
				next.Peers = append(next.Peers, Peer{ID: id, Lag: rapid.Uint64Range(0, 3).Draw(t, "lag"), Active: rapid.Bool().Draw(t, "active")})
			}
		}
	} else if next.Leader != 0 && rapid.Bool().Draw(t, "heard") {
		next.Heard = w.now
	}
	return next
}

// check holds the actions of a step against what was known.
func (w *world) check(t *rapid.T, v View, actions []Action) {
	leads := v.Leader == w.cfg.Self
	fresh := false // forgot the leader in this step
	for _, a := range actions {
		switch a.Do {
		case Forget:
			fresh = true
			dead := false
			for id := uint64(1); id <= 3; id++ {
				dead = dead || w.died[Obituary{id, v.Term}] && (v.Leader == id || v.Leader == 0)
			}
			if leads || !dead {
				t.Fatalf("forgot voter %d of term %d, whom nobody called dead", v.Leader, v.Term)
			}
		case Campaign:
			silent := v.Heard != 0 && w.now >= v.Heard+w.cfg.Timeout || v.Heard == 0 && w.now >= w.m.begun+w.cfg.Timeout
			if leads || w.stop || !silent && !fresh && w.m.freeAt == 0 {
				t.Fatalf("asks for votes too early: %+v", v)
			}
		case Transfer:
			if !leads || w.held != 0 || a.To == w.cfg.Self || a.To == 3 || a.To == 0 {
				t.Fatalf("hands over to %d with the addresses held until %d: %+v", a.To, w.held, v)
			}
			for _, p := range v.Peers {
				if p.ID == a.To && !p.Active {
					t.Fatalf("hands over to voter %d, which does not answer", a.To)
				}
			}
		case Hold:
			if !leads || !v.Ready || w.cfg.Self == 3 || a.Until > v.Lease || a.Until <= w.now || w.m.Leaving() {
				t.Fatalf("holds the addresses at %d until %d: %+v", w.now, a.Until, v)
			}
			w.held = a.Until
		case Drop:
			w.held = 0
		}
	}
	if w.held != 0 && (!leads || !v.Ready || v.Lease <= w.now) {
		t.Fatalf("keeps the addresses without a right: %+v", v)
	}
	if w.m.Next() <= w.now || w.m.Next() > w.now+w.cfg.Timeout {
		t.Fatalf("wants to be called at %d, %d from now", w.m.Next(), w.m.Next()-w.now)
	}
}

// Whatever happened before, a follower whose leader is silent asks for votes in
// the end, unless it stops; a metalogger that leads hands over when it can.
func TestProgress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := testConfig
		cfg.Self = rapid.Uint64Range(1, 3).Draw(t, "self")
		cfg.Masters = []uint64{1, 2}
		w := &world{m: New(cfg), cfg: cfg, now: 1000 * ms, died: map[Obituary]bool{}}
		v := View{Term: 5}
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			v = w.draw(t, v)
			w.now += Nanos(rapid.Int64Range(1, 700).Draw(t, "pause")) * ms
			w.m.Step(w.now, v)
		}
		want := Campaign
		v.Leader, v.Term = 0, v.Term+1
		if cfg.Self == 3 && rapid.Bool().Draw(t, "leads") {
			want = Transfer
			v = View{Term: v.Term, Leader: 3, Peers: []Peer{{ID: 1, Active: true}}}
		}
		for end := w.now + 3000*ms; w.now < end; w.now = w.m.Next() {
			for _, a := range w.m.Step(w.now, v) {
				if a.Do == want {
					return
				}
			}
		}
		t.Fatalf("nothing happened: %+v", v)
	})
}
