package journal

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
)

type progressOf = tracker.Progress

// progressState names raft's state of replication.
func progressState(pr tracker.Progress) string {
	switch pr.State {
	case tracker.StateReplicate:
		return "replicate"
	case tracker.StateSnapshot:
		return "snapshot"
	}
	return "probe"
}

// order has the driver run f. It does not wait.
func (l *Log) order(f func()) {
	l.mu.Lock()
	l.inbox = append(l.inbox, input{order: f})
	l.mu.Unlock()
	poke(l.wake)
}

// ForgetLeader says that the leader of term is surely dead: this voter is free
// to vote for another one at once, and does not listen to what the dead one has
// sent before, for an election timeout. To be called only with proof, such as the word of the process that
// watched it die: the leader's lease is not waited for. It does nothing when term
// is over: the promises made to a later leader stand.
func (l *Log) ForgetLeader(term uint64) {
	l.order(func() {
		if l.term() != term {
			return
		}
		l.lease.mute = 0
		l.hearing.bury(l)
		if err := l.rn.ForgetLeader(); err != nil {
			l.cfg.Log.Debug("journal: raft does not forget its leader", "err", err)
		}
	})
}

// Campaign makes this voter ask the others for their votes, unless it has heard
// a leader within the election timeout and ForgetLeader was not called since. As
// long as the others hear a leader they refuse, and nothing changes.
func (l *Log) Campaign() {
	l.order(func() {
		if l.soft.RaftState == raft.StateLeader || l.ticks < l.lease.mute {
			return
		}
		if !slices.Contains(l.st.voters(), l.cfg.ID) {
			return // it is no voter, or not yet: raft would say so each time
		}
		l.lease.campaign = true
		if err := l.rn.Campaign(); err != nil {
			l.cfg.Log.Debug("journal: raft does not campaign", "err", err)
		}
	})
}

// Install says that an image of entry index, which has term, is durable here: the
// log goes on behind it. Committed tells when that is so. It does nothing if the
// log has the entry by itself meanwhile, or nobody leads.
func (l *Log) Install(index, term uint64) {
	l.order(func() {
		lead, now := l.soft.Lead, l.term()
		if lead == raft.None || lead == l.cfg.ID || index <= l.applied {
			return
		}
		conf := l.st.confState()
		l.step(&raftpb.Message{
			Type: raftpb.MsgSnap.Enum(), From: &lead, To: &l.cfg.ID, Term: &now,
			Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{ConfState: conf, Index: &index, Term: &term}},
		})
	})
}

// Transfer hands leadership over to another voter, as soon as it has all of the
// log. Proposals are refused meanwhile; the lease ends before the other one may
// lead. It is over when Leading says so, or has failed when Status still names
// this voter after an election timeout. It does nothing on a follower.
func (l *Log) Transfer(to uint64) { l.Handover(to, "") }

// Handover is Transfer with a reason, which the other voter will give in its Takeover.
func (l *Log) Handover(to uint64, why string) {
	l.order(func() {
		l.why = why
		if l.soft.RaftState == raft.StateLeader && to != l.cfg.ID {
			l.cfg.Log.Info("journal: handing leadership over", "to", to, "why", why)
			l.rn.TransferLeader(to)
		}
	})
}

// unmarshal reads one of raft's messages.
func unmarshal(b []byte, m proto.Message) error { return proto.Unmarshal(b, m) }
