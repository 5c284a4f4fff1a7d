package journal

import (
	"maps"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// After each commit raft tells the followers how far the log is committed. The
// next entries say so too, and under load they follow at once: sent by itself it
// doubles the messages, on both sides. So it waits for the next entries, or for
// the next tick when there are none. Followers need it to apply, nobody waits for
// that; what is committed does not depend on it.

// holdBack tells whether a message to another voter can wait.
func (l *Log) holdBack(m *raftpb.Message) bool {
	if m.GetType() != raftpb.MsgApp {
		return false
	}
	// A message that asks where a follower is begins before the end of the log.
	if len(m.GetEntries()) > 0 || m.GetIndex() < l.st.lastIndex() {
		delete(l.held, m.GetTo())
		return false
	}
	if l.held == nil {
		l.held = map[uint64]*raftpb.Message{}
	}
	l.held[m.GetTo()] = m
	return true
}

// letGo sends what was held back, unless the term is over.
func (l *Log) letGo() {
	var list []*raftpb.Message
	for _, id := range slices.Sorted(maps.Keys(l.held)) {
		if m := l.held[id]; l.soft.RaftState == raft.StateLeader && m.GetTerm() == l.term() {
			list = append(list, m)
		}
	}
	clear(l.held)
	if len(list) > 0 {
		l.cfg.Transport.Send(list)
	}
}
