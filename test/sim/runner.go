package sim

import (
	"github.com/varvefs/varve/elect"
)

// What elect/runner does: it shows the machine the log, and does what it says.

const (
	calmPause  = 20 * ms
	briskPause = 3 * ms
	patience   = 600 * ms
)

func (p *process) newMachine() {
	p.mach = elect.New(elect.Config{
		Self: p.id, Masters: p.masters(), Timeout: elect.Nanos(p.log.ElectionTimeout()), Holdback: elect.Nanos(300 * ms),
		Retry: elect.Nanos(20 * ms), Voting: elect.Nanos(200 * ms), Stall: elect.Nanos(1000 * ms), Patience: elect.Nanos(patience),
	})
}

// obituary comes by gossip.
func (p *process) obituary(voter, term uint64) {
	p.runner.post(func() {
		p.mach.Died(elect.Obituary{Voter: voter, Term: term})
		p.hurry()
		p.stepRunner()
	})
}

func (p *process) hurry() { p.brisk = p.w.now + 1000*ms }

// stepRunner is one step of the runner, and arranges for the next.
func (p *process) stepRunner() {
	if p.dead || p.stepping {
		return
	}
	p.stepping = true
	p.runner.post(func() {
		p.stepping = false
		pause := p.lookAtLog()
		p.w.after(p.h.real(pause), p.stepRunner)
	})
}

func (p *process) lookAtLog() nanos {
	p.mach.SetMasters(p.masters())
	s := p.log.Status()
	now := elect.Nanos(p.h.clock())
	v := elect.View{
		Term: s.Term, Leader: s.Leader, Lease: elect.Nanos(p.log.Lease()),
		Heard: elect.Nanos(s.Heard), Syncing: elect.Nanos(s.Writing),
	}
	if v.Leader == p.id {
		if p.said != s.Term {
			p.said = s.Term
			term := s.Term
			p.line(func(sup *supervisor) { sup.leads(term) })
		}
		v.Ready = p.h.master && p.ready
	}
	for _, k := range s.Peers {
		v.Peers = append(v.Peers, elect.Peer{ID: k.ID, Lag: k.Lag, Active: k.Active && !k.Learner})
	}
	p.carryOut(p.mach.Step(now, v), v.Term)
	p.wakeDriver()
	pause := calmPause
	if p.held || p.w.now < p.brisk {
		pause = briskPause
	}
	return max(min(pause, nanos(p.mach.Next()-now)), briskPause)
}

// carryOut does one thing after the other; it waits until the addresses are dropped.
func (p *process) carryOut(actions []elect.Action, term uint64) {
	for i, a := range actions {
		p.act(a, term)
		if rest := actions[i+1:]; a.Do == elect.Drop && len(rest) > 0 {
			p.runner.first(func() { p.carryOut(rest, term) })
			return
		}
	}
	p.wakeDriver()
}

func (p *process) act(a elect.Action, term uint64) {
	if a.Do != elect.Hold || a.Why != "" {
		p.w.notef("%v: election: %v", p.h, a)
	}
	switch a.Do {
	case elect.Forget:
		p.log.ForgetLeader(term)
	case elect.Campaign:
		p.log.Campaign()
		p.hurry()
	case elect.Transfer:
		if p.h.master {
			p.log.Handover(a.To, a.Why)
		}
		p.hurry()
	case elect.Hold:
		p.held = true
		until := nanos(a.Until)
		p.line(func(sup *supervisor) { sup.hold(until) })
	case elect.Drop:
		p.held = false
		// The runner waits for the answer, for a second at most.
		p.runner.delay(p.h.real(1000 * ms))
		p.line(func(sup *supervisor) {
			sup.drop()
			p.runner.until = 0
			p.runner.wake(1)
		})
	}
}

// line writes to the supervisor.
func (p *process) line(do func(*supervisor)) {
	sup := p.sup
	if !sup.dead {
		sup.hear(p, func() { do(sup) })
	}
}
