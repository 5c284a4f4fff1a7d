package voters

import (
	"fmt"
	"maps"
	"time"

	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/wire"
)

// Who is a voter. Every log has a random number of its own, its Founder, which
// the membership names. A directory that was emptied gets a new one: whoever
// starts on it is not the voter that it was, because it has forgotten what that
// one promised and held, and the others do not listen to it until an operator
// has removed the old one and added it anew.
//
// A new cluster is founded when all of its voters have heard of each other with
// empty logs. Whoever has been counted in by the others while it was still
// waiting takes their word.

func (n *Net) attached() *journal.Log {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log
}

// self is what the others are told.
func (n *Net) self() wire.VoterBeat {
	b := n.cfg.Self()
	if log := n.attached(); log != nil {
		m := log.Members()
		s := log.Status()
		b.Founder, b.Members = log.Self(), m.Encode()
		b.Term, b.Leader, b.Commit, b.Last, b.LastOf = s.Term, s.Leader, s.Commit, s.Last, s.LastTerm
		b.Amnesia = s.Amnesia
	}
	return b
}

// compare deals with amnesia: another voter's, whose beat it is, and this one's.
func (n *Net) compare(log *journal.Log, b *wire.VoterBeat) {
	s := log.Status()
	if b.Amnesia && b.Term > s.Term {
		log.Leave(b.ID, b.Term)
	}
	if !s.Amnesia {
		return
	}
	if heir, many, ok := Heir(&s, log.Members(), n.heard(), time.Now()); ok {
		log.Heir(heir, many)
	}
}

// heard is what the others last said.
func (n *Net) heard() map[uint64]Beat {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.beats)
}

// admits tells whether messages of the voter that beats are raft's business.
func (n *Net) admits(log *journal.Log, b *wire.VoterBeat) bool {
	v := Judge(n.cfg.ID, log.Self(), log.Members(), b)
	if v == Lost {
		n.once(b.ID, "voters: a voter has lost its log; remove it with 'varve master remove' and add it under another number", "voter", b.ID, "name", b.Name, "addr", b.Raft)
	}
	return v == Member
}

// once logs what is wrong with a voter, until something else is.
func (n *Net) once(id uint64, text string, args ...any) {
	n.mu.Lock()
	said := n.said[id] == text
	n.said[id] = text
	n.mu.Unlock()
	if !said {
		n.cfg.Log.Error(text, args...)
	}
}

// found founds the log of a new voter as soon as it is known what it is part of.
func (n *Net) found() {
	log := n.attached()
	if log == nil {
		return
	}
	if m := log.Members(); len(m.List) > 0 {
		return
	}
	own := journal.Member{ID: n.cfg.ID, Addr: n.cfg.Own, Founder: log.Self()}
	heard := n.heard()
	members, ok, excluded := Founding(own, n.cfg.Peers, heard)
	for _, id := range excluded {
		n.once(id, outside(n.cfg.ID, heard[id].Members), "voter", n.cfg.ID, "their voter", id)
	}
	if ok {
		log.Found(members)
		n.Tell()
	}
}

// outside says why an empty log has no part in the cluster of others, whose
// membership is given, and what to do.
func outside(own uint64, members []byte) string {
	theirs, err := journal.DecodeMembers(members)
	if _, ok := theirs.Find(own); err == nil && ok {
		return fmt.Sprintf("voters: this directory is empty, but voter %d of the cluster has a log, and promises that this one knows nothing of; "+
			"'varve master remove %d', then start this one under a number that no voter has had, and 'varve master add' that", own, own)
	}
	return "voters: the others have a cluster already, in which this empty directory has no part; add it with 'varve master add'"
}

// Follow connects to the members, at the addresses that the membership names
// where the configuration has none, and leaves those that were removed. It is
// journal.Config's Changed.
func (n *Net) Follow(m journal.Members) {
	for _, k := range m.List {
		if n.cfg.Peers[k.ID] == "" {
			n.Add(k.ID, k.Addr)
		}
	}
	if len(m.List) == 0 || m.Index == 0 {
		return
	}
	n.mu.Lock()
	var gone []uint64
	for id := range n.peers {
		if _, ok := m.Find(id); !ok && n.cfg.Peers[id] == "" && n.guests[id] == 0 {
			gone = append(gone, id)
		}
	}
	n.mu.Unlock()
	for _, id := range gone {
		n.Remove(id)
	}
}

// Invite connects to a voter that is to become a member, so that it can be heard.
func (n *Net) Invite(id uint64, addr string) {
	n.mu.Lock()
	n.guests[id]++
	n.mu.Unlock()
	n.Add(id, addr)
}

// Dismiss ends what Invite began.
func (n *Net) Dismiss(id uint64) {
	n.mu.Lock()
	if n.guests[id]--; n.guests[id] == 0 {
		delete(n.guests, id)
	}
	n.mu.Unlock()
}
