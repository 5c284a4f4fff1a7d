package master

import (
	"fmt"
	"strings"
	"time"

	"github.com/varvefs/varve/master/voters"
	"github.com/varvefs/varve/wire"
)

// silent is how long a voter that says something every second is not heard until
// it is called down.
const silent = 3 * time.Second

// voterStatus describes the other voters.
func (l *loop) voterStatus() (list []wire.MasterStatus) {
	if l.net == nil {
		return nil
	}
	members := l.log.Members()
	for _, b := range l.net.Beats() {
		_, member := members.Find(b.ID)
		member = member || len(members.List) == 0
		if !member && (b.At.IsZero() || l.now.Sub(b.At) > silent) {
			continue // it was removed, and is in the settings still
		}
		list = append(list, l.describeVoter(&b, member))
	}
	return list
}

// describeVoter tells what a voter last said of itself. What cannot have stayed
// so when it is not heard any more is left out.
func (l *loop) describeVoter(b *voters.Beat, member bool) wire.MasterStatus {
	log := l.log.Status()
	s := wire.MasterStatus{
		ID: b.ID, Name: b.Name, Role: "unknown", Pid: int(b.Pid), Addr: b.Clients, Raft: b.Raft, Epoch: b.Term, Applied: b.Applied, Commit: b.Commit,
		ImageAt: b.ImageAt, MemBytes: b.Memory, UptimeSec: time.Duration(b.Uptime).Seconds(), Version: b.Version,
		LoopBusy: float64(b.Busy) / 1000,
	}
	if !b.At.IsZero() {
		s.Seen = l.now.Sub(b.At).Seconds()
		switch {
		case log.Leader == b.ID:
			s.Role = "leader"
		case b.What == wire.VoterMetalogger:
			s.Role = "metalogger"
		case member:
			s.Role = "standby"
		}
	}
	s.Down = b.At.IsZero() || s.Seen > silent.Seconds()
	for _, p := range log.Peers {
		if p.ID == b.ID {
			s.Match = p.Match
			s.Down = s.Down || !p.Active
		}
	}
	if !s.Down {
		s.Trouble = b.Trouble
		if b.Due > 0 { // else it was not heard with a log to compare with
			lag := b.Due - min(b.Due, b.Applied)
			s.Lag = &lag
		}
		s.HoldsVIP = b.Holds && b.Term == log.Term // else that was before another one led
	}
	return s
}

// whoLeads is the sentence of a master that does not serve.
func (l *loop) whoLeads(s *wire.Status) string {
	leader := l.log.Status().Leader
	for _, m := range s.Masters {
		if m.ID == leader && m.ID != l.cfg.ID {
			return fmt.Sprintf("This master does not lead; voter %d (%s) does.", m.ID, m.Name)
		}
	}
	if l.helm.Leading() {
		return "This master was elected, and does not serve yet."
	}
	return "This master does not lead, nor does it know of another one that does."
}

// voterProblems says what is wrong with the quorum.
func (l *loop) voterProblems(s *wire.Status) {
	learner, voting := map[uint64]bool{}, 0
	for _, k := range l.log.Members().List {
		if learner[k.ID] = k.Learner; k.Learner {
			s.Problems = append(s.Problems, fmt.Sprintf("Voter %d (%s) is new and does not vote yet.", k.ID, k.Addr))
		} else {
			voting++
		}
	}
	if l.net != nil && (voting == 1 || voting == 2) {
		s.Problems = append(s.Problems, fmt.Sprintf("Voters of the changelog: %d; the loss of one stops changes. Add another one (varve master add).", voting))
	}
	var down []string
	there, voters := 0, 0
	for _, m := range s.Masters {
		if m.Down {
			down = append(down, fmt.Sprintf("%d (%s)", m.ID, m.Raft))
		}
		if m.Trouble != "" {
			s.Problems = append(s.Problems, fmt.Sprintf("Voter %d (%s): %s.", m.ID, m.Raft, m.Trouble))
		}
		if !learner[m.ID] {
			voters++
			if !m.Down {
				there++
			}
		}
	}
	if len(down) > 0 {
		s.Problems = append(s.Problems, fmt.Sprintf("Voter %s of the changelog does not answer: %d of %d voters are there, and %d must be for changes.",
			strings.Join(down, ", "), there, voters, voters/2+1))
	}
}
