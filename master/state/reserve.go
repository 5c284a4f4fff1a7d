package state

import (
	"slices"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
)

// A mount answers a create(2) before the master knows of it, and so must have a
// number that nobody else gets. A reserved slot is neither in use (its mode is 0)
// nor on the free list: it belongs to one session.

func (o *Reserve) apply(s *State, e *Entry, r *Result) {
	ses := s.session(e.Session)
	switch {
	case ses == nil:
		r.Code = status.Stale
		return
	case int(o.Count) > MaxReserved-len(ses.numbers):
		r.Code = status.Invalid
		return
	}
	for range o.Count {
		slot := s.freshInode()
		ses.numbers = append(ses.numbers, s.inodes.at(slot).number(slot))
	}
	r.Inos = slices.Clone(ses.numbers[len(ses.numbers)-int(o.Count):])
}

// reserved tells whether a session may make an inode with this number.
func (s *State) reserved(ino inode.Ino, session uint64) bool {
	ses := s.session(session)
	return ses != nil && slices.Contains(ses.numbers, ino)
}

// newSlot finds a slot for a new inode: the reserved one that was asked for, or any.
func (s *State) newSlot(ino inode.Ino, session uint64) uint32 {
	if ino == 0 {
		return s.freshInode()
	}
	ses := s.session(session)
	i := slices.Index(ses.numbers, ino)
	ses.numbers = slices.Delete(ses.numbers, i, i+1)
	return uint32(ino)
}

// unreserve frees what a session has not used. The mount may have shown the
// numbers to its programs: they are not given out again.
func (s *State) unreserve(ses *session) {
	for _, ino := range ses.numbers {
		slot := uint32(ino)
		uses := s.inodes.at(slot).uses
		if uses == maxUses {
			continue
		}
		s.inodes.release(slot, inodeRec{uses: uses + 1})
	}
	ses.numbers = nil
}
