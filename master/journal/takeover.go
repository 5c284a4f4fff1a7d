package journal

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Takeover is how this voter came to lead.
type Takeover struct {
	Term   uint64
	From   uint64        // the leader before, as far as this voter knew it; 0: none
	Cause  string        // for people
	Silent time.Duration // how long the leader before had not been heard when this voter asked for votes
	Votes  time.Duration // from asking to winning
	Won    int64         // Config.Clock
}

// hearing is what a voter knows of its leader. It is the driver's.
type hearing struct {
	at   int64  // Config.Clock when the leader was heard, 0: not since Open
	lead uint64 // who was heard
	term uint64 // in which term

	// Frames of a dead leader may still be on their way when its death is known.
	// Their entries are welcome: who has them all may lead next. But were they taken
	// for a sign of life, this voter would be bound for another election timeout.
	// An obituary that was wrong does no more harm than a cable pulled for that time.
	dead     uint64 // voter that led deadTerm
	deadTerm uint64
	deadTo   uint64 // tick

	freshTo uint64 // tick up to which this leader is new

	asked int64  // Config.Clock when this voter first asked for votes since a leader was heard; 0: not yet
	offer string // why its leader wanted it to lead; empty: no offer
	lost  string // why there was no leader any more
	ceded int64  // Config.Clock when this voter itself led no longer; 0: another one was heard since
}

// bury notes that the present leader is dead.
func (h *hearing) bury(l *Log) {
	if h.lead == 0 || h.term != l.term() {
		return
	}
	h.dead, h.deadTerm, h.deadTo = h.lead, h.term, l.ticks+electionTicks
	h.lost = fmt.Sprintf("voter %d died", h.lead)
}

// inherit takes a word of a dead leader: the entries, but not that it lives.
func (l *Log) inherit(m *raftpb.Message) {
	if m.GetType() != raftpb.MsgApp {
		return
	}
	l.step(m)
	if err := l.rn.ForgetLeader(); err != nil {
		l.cfg.Log.Debug("journal: raft does not forget its leader", "err", err)
	}
}

// posthumous tells whether m was sent by a leader that is known to be dead.
func (h *hearing) posthumous(l *Log, m *raftpb.Message) bool {
	return h.dead != 0 && m.GetFrom() == h.dead && m.GetTerm() == h.deadTerm && l.ticks < h.deadTo
}

// hear notes a word of the leader.
func (h *hearing) hear(l *Log, m *raftpb.Message) {
	h.at, h.lead, h.term, h.asked, h.offer, h.lost, h.ceded = l.cfg.Clock(), m.GetFrom(), m.GetTerm(), 0, "", "", 0
	l.mu.Lock()
	l.view.Heard, l.view.Longest = h.at, false
	l.mu.Unlock()
}

// behind looks at a request for votes: a candidate that has less of the log than
// this voter cannot win while this one has to be asked.
func (h *hearing) behind(l *Log, m *raftpb.Message) {
	_, last := l.st.bounds()
	longer := last.Term > m.GetLogTerm() || last.Term == m.GetLogTerm() && last.Index > m.GetIndex()
	l.mu.Lock()
	l.view.Longest = longer
	l.mu.Unlock()
}

// candidate notes that this voter asks for votes.
func (h *hearing) candidate(l *Log) {
	if h.asked == 0 {
		h.asked = l.cfg.Clock()
	}
}

// won says how this voter came to lead.
func (h *hearing) won(l *Log, term uint64) *Takeover {
	now := l.cfg.Clock()
	t := &Takeover{Term: term, From: h.lead, Won: now}
	if h.asked == 0 {
		h.asked = now
	}
	t.Votes = time.Duration(now - h.asked)
	heard := h.at
	if h.ceded != 0 {
		heard = h.ceded
	}
	if heard != 0 {
		t.Silent = time.Duration(h.asked - heard)
	}
	switch {
	case h.offer != "":
		t.Cause = fmt.Sprintf("voter %d handed over: %s", h.lead, h.offer)
	case h.lost != "":
		t.Cause = h.lost
	case h.ceded != 0:
		t.Cause = fmt.Sprintf("it leads again, %v after it had ceased to", time.Duration(now-h.ceded).Round(time.Millisecond))
	case h.at == 0:
		t.Cause = "no leader was heard since this voter started"
	default:
		t.Cause = fmt.Sprintf("voter %d was silent for %v", h.lead, t.Silent.Round(time.Millisecond))
	}
	h.asked, h.offer, h.lost, h.ceded, h.lead, h.term = 0, "", "", 0, l.cfg.ID, term
	return t
}

// Takeover tells how this voter came to lead the last term that it led; false:
// it never did since Open, or it is the only voter.
func (l *Log) Takeover() (Takeover, bool) {
	t := l.takeover.Load()
	if t == nil {
		return Takeover{}, false
	}
	return *t, true
}

// role follows raft from one role to another.
func (l *Log) role(was raft.StateType) {
	now := l.soft.RaftState
	if now == was {
		return
	}
	if was == raft.StateLeader {
		l.hearing.ceded = l.cfg.Clock()
	}
	switch now {
	case raft.StatePreCandidate, raft.StateCandidate:
		l.hearing.candidate(l)
	case raft.StateLeader:
		if l.single {
			return
		}
		l.hearing.freshTo = l.ticks + electionTicks
		t := l.hearing.won(l, l.term())
		l.takeover.Store(t)
		l.m.won.Inc()
		l.cfg.Log.Info("journal: elected", "term", t.Term, "cause", t.Cause, "silent", t.Silent.Round(time.Millisecond), "votes took", t.Votes.Round(100*time.Microsecond))
	}
}
