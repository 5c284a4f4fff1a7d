package elect

import "fmt"

// Nanos is a time of the boot clock, or a span of it, in nanoseconds.
type Nanos int64

// Config is what does not change while a voter runs. All fields are required.
type Config struct {
	Self     uint64
	Masters  []uint64 // voters that can serve, this one possibly among them; the first is preferred
	Timeout  Nanos    // silence after which no promise to a leader binds: raft's election timeout
	Holdback Nanos    // how much longer a voter waits that cannot serve
	Retry    Nanos    // between two requests for votes that were refused; the first ones follow sooner
	Voting   Nanos    // how long an election that has begun is left alone
	Stall    Nanos    // a sync of the own journal that takes longer makes a leader hand over
	Patience Nanos    // for one hand-over
}

// Peer is another voter as a leader sees it.
type Peer struct {
	ID     uint64
	Lag    uint64 // entries that it does not have
	Active bool   // it answers
}

// View is this voter's log at one moment.
type View struct {
	Term    uint64
	Leader  uint64 // of Term; 0: none known
	Ready   bool   // leading, and all of the terms before has been applied
	Lease   Nanos  // until when it surely is the only leader; 0: no lease
	Heard   Nanos  // when the leader was last heard; 0: not since this voter started
	Longest bool   // a voter asked for votes that has less of the log than this one
	Syncing Nanos  // since when a sync of the journal has been running; 0: none
	Peers   []Peer // known to leaders only
}

// Verb says what to do.
type Verb uint8

// Verbs. Each is harmless when it comes too late.
const (
	Forget   Verb = iota + 1 // drop the leader and the promises made to it
	Campaign                 // ask for votes
	Transfer                 // hand leadership over to To
	Hold                     // have the virtual addresses until Until
	Drop                     // give the virtual addresses up
)

// Action is one thing to do, now. Actions of one Step are done in their order.
type Action struct {
	Do    Verb
	To    uint64 // Transfer
	Until Nanos  // Hold
	Why   string // for the log; empty when there is nothing new to say
}

// Obituary says that the process which led Term as Voter is dead.
type Obituary struct{ Voter, Term uint64 }

// reason is why a leader hands over.
type reason uint8

const (
	staying reason = iota
	ordered
	stopping
	stalled
	unable // it cannot serve
)

var reasonText = [...]string{"", "an operator's order", "it stops", "its journal stalls", "it cannot serve"}

// Machine is the state of one voter's decisions. It belongs to one goroutine.
type Machine struct {
	cfg    Config
	serves bool
	begun  Nanos // of the first Step
	next   Nanos

	obituary Obituary // the newest
	orphan   uint64   // term whose leader is known to be dead
	freeAt   Nanos    // when that became known; 0: a leader was seen since

	led    Nanos  // when this voter led last, 0: never
	former uint64 // the last leader that was known, and is missed if none is
	term   uint64 // newest
	termAt Nanos  // when it began, as far as this voter saw it; 0: before the first Step

	asked Nanos // last Campaign, 0: none since a leader was known
	tries int   // requests since a leader was known

	stop     bool
	order    uint64 // voter that an operator wants to lead; 0: none
	why      reason // of the hand-over under way
	tried    Nanos  // when it began
	triedAt  uint64 // in this term
	heir     uint64 // to whom
	resting  Nanos  // no hand-over because of a stall before
	failures int    // hand-overs that nobody took up, in a row

	held  bool // Hold was said and not Drop since
	until Nanos
}

// New makes a machine that has seen nothing.
func New(cfg Config) *Machine {
	m := &Machine{cfg: cfg}
	m.SetMasters(cfg.Masters)
	return m
}

// SetMasters says which voters can serve, the preferred one first. Whether this
// one can must never change.
func (m *Machine) SetMasters(ids []uint64) {
	m.cfg.Masters, m.serves = ids, false
	for _, id := range ids {
		m.serves = m.serves || id == m.cfg.Self
	}
}

// Died takes an obituary. It has its effect in the next Step, or in a later one
// if the log has not yet seen its term.
func (m *Machine) Died(o Obituary) {
	if o.Term > m.obituary.Term {
		m.obituary = o
	}
}

// Handover is an operator's order that voter to shall lead; 0: any other master.
func (m *Machine) Handover(to uint64) { m.order = or(to, anyMaster) }

const anyMaster = ^uint64(0)

// Stop says that this voter is about to end: it hands over if it leads, and
// asks for no votes any more.
func (m *Machine) Stop() { m.stop = true }

// Leaving tells whether a hand-over is under way.
func (m *Machine) Leaving() bool { return m.why != staying }

// Next is when Step should be called at the latest; any change of the view is
// a reason to call it earlier.
func (m *Machine) Next() Nanos { return m.next }

// Step looks at the log and says what to do now.
func (m *Machine) Step(now Nanos, v View) []Action {
	if m.begun == 0 {
		m.begun, m.term = now, v.Term
	}
	if v.Term != m.term {
		m.term, m.termAt = v.Term, now
	}
	m.next = now + m.cfg.Timeout/4
	var out []Action
	if v.Leader == m.cfg.Self {
		m.led, m.former = now, v.Leader
		m.asked, m.tries, m.freeAt = 0, 0, 0
		if m.order == m.cfg.Self {
			m.order = 0 // fulfilled
		}
		out = m.lead(now, v)
	} else {
		m.order, m.why, m.failures = 0, staying, 0
		out = m.drop(out, "another voter leads")
		out = m.follow(now, v, out)
	}
	m.next = max(m.next, now+1)
	return out
}

// wake asks for a Step at t.
func (m *Machine) wake(t Nanos) { m.next = min(m.next, t) }

// follow is Step for a voter that does not lead.
func (m *Machine) follow(now Nanos, v View, out []Action) []Action {
	known := v.Leader != 0 && !(v.Term == m.orphan && v.Leader == m.obituary.Voter)
	if v.Leader != 0 {
		m.former = v.Leader
	}
	if known {
		m.freeAt = 0
		if m.asked != 0 && v.Heard > m.asked {
			m.tries = 0
		}
	}
	if o := m.obituary; o.Term == v.Term && (v.Leader == o.Voter || v.Leader == 0) && m.orphan != o.Term {
		m.orphan, m.freeAt, m.asked, m.tries = o.Term, max(now, 1), 0, 0
		out = append(out, Action{Do: Forget, Why: fmt.Sprintf("voter %d, which led term %d, is dead by the word of its supervisor", o.Voter, o.Term)})
	}
	if m.stop {
		return out
	}
	due, why := m.due(v)
	if m.asked != 0 && m.asked >= due {
		due, why = m.asked+m.retry(), ""
	}
	if v.Leader == 0 && m.termAt != 0 { // votes are being counted, this one's or another's; asking again would throw them away
		due = max(due, m.termAt+m.cfg.Voting)
	}
	if now < due {
		m.wake(due)
		return out
	}
	m.asked = now
	m.tries++
	m.wake(now + m.retry())
	return append(out, Action{Do: Campaign, Why: why})
}

// retry is the pause after a request for votes. What makes the others refuse the
// first ones is over soon: they have not got the obituary yet, or their clock
// ticks a moment later.
func (m *Machine) retry() Nanos {
	const quick, share = 10, 5
	if m.tries <= quick {
		return m.cfg.Retry / share
	}
	return m.cfg.Retry
}

// due is when to ask for votes the first time.
func (m *Machine) due(v View) (Nanos, string) {
	at, gone, why := max(v.Heard, m.led)+m.cfg.Timeout, m.former, "no leader was heard for an election timeout"
	if v.Heard == 0 && m.led == 0 {
		at = m.begun + m.cfg.Timeout // a former life of this voter may have heard one
	}
	if m.freeAt != 0 {
		at, gone, why = m.freeAt, m.obituary.Voter, "the leader is dead"
	}
	switch {
	case m.serves:
	case v.Longest: // nobody else may be able to win
		return at, "the candidate lacks what this voter has"
	default:
		return at + m.cfg.Holdback, why
	}
	return at + m.rank(gone)*m.cfg.Voting, why
}

// rank is how many masters that may live come before this one: two that ask at
// the same time could both fail.
func (m *Machine) rank(dead uint64) (n Nanos) {
	for _, id := range m.cfg.Masters {
		if id == m.cfg.Self {
			break
		}
		if id != dead {
			n++
		}
	}
	return n
}

// lead is Step for the leader.
func (m *Machine) lead(now Nanos, v View) (out []Action) {
	if m.why != staying {
		if out, done := m.leave(now, v, out); !done {
			return out
		}
	}
	if why := m.mustLeave(now, v); why != staying {
		if to := m.choose(v); to != 0 {
			m.why, m.tried, m.triedAt, m.heir = why, now, v.Term, to
			m.order = 0
			out = m.drop(out, "")
			m.wake(now + m.cfg.Patience)
			return append(out, Action{Do: Transfer, To: to, Why: reasonText[why]})
		}
		m.order = 0
		m.wake(now + m.cfg.Retry) // somebody may come
	}
	switch {
	case !m.serves:
		return m.drop(out, "")
	case !v.Ready:
		return m.drop(out, "what was acknowledged before is not applied yet")
	case v.Lease <= now:
		return m.drop(out, "the lease ran out")
	}
	until := min(v.Lease, now+m.cfg.Timeout)
	m.wake(until)
	if m.held && until == m.until {
		return out
	}
	why := ""
	if !m.held {
		why = fmt.Sprintf("leader of term %d", v.Term)
	}
	m.held, m.until = true, until
	return append(out, Action{Do: Hold, Until: until, Why: why})
}

// leave waits for the end of a hand-over; done: it failed.
func (m *Machine) leave(now Nanos, v View, out []Action) (_ []Action, done bool) {
	if v.Term == m.triedAt && now < m.tried+m.cfg.Patience {
		m.wake(m.tried + m.cfg.Patience)
		return out, false
	}
	if m.why == stalled {
		m.resting = now + 10*m.cfg.Patience
	}
	m.failures++
	m.why = staying
	return out, true
}

func (m *Machine) mustLeave(now Nanos, v View) reason {
	switch {
	case !m.serves:
		return unable
	case m.stop:
		return stopping
	case m.order != 0:
		return ordered
	case v.Syncing != 0 && now-v.Syncing > m.cfg.Stall && now >= m.resting:
		return stalled
	}
	return staying
}

// choose finds who shall lead next: the one that was ordered, or the master that
// answers and has most of the log, another one each time that nobody took over.
func (m *Machine) choose(v View) uint64 {
	var able []Peer
	for _, id := range m.cfg.Masters {
		for _, p := range v.Peers {
			if p.ID == id && id != m.cfg.Self && p.Active && (m.order == 0 || m.order == anyMaster || m.order == id) {
				able = append(able, p)
			}
		}
	}
	if len(able) == 0 {
		return 0
	}
	best := able[0]
	for _, p := range able {
		if p.Lag < best.Lag {
			best = p
		}
	}
	if m.failures > 0 {
		best = able[m.failures%len(able)]
	}
	return best.ID
}

func (m *Machine) drop(out []Action, why string) []Action {
	if !m.held {
		return out
	}
	m.held = false
	return append(out, Action{Do: Drop, Why: why})
}

func or(a, b uint64) uint64 {
	if a != 0 {
		return a
	}
	return b
}
