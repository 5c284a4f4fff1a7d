package master

import "github.com/varvefs/varve/inode"

// right is what one session holds on one inode. Records lie in pages without
// pointers, so that millions of them cost the garbage collector nothing.
type right struct {
	ino    inode.Ino
	sess   uint32 // session.slot
	next   uint32 // next holder of the same inode, or of the free list
	older  uint32 // the session's list by last grant
	newer  uint32
	rights inode.Rights
}

const (
	rightsPage  = 1 << 12 // records
	rightsShift = 12
)

// rightsTable knows who holds which rights. Slot 0 means "none".
type rightsTable struct {
	pages    [][]right
	used     uint32 // slots given out so far, slot 0 included
	free     uint32
	count    int
	heads    map[inode.Ino]uint32
	sessions []*session // by slot; nil: free
}

// rightsList is a session's part of the table: the ends of its list.
type rightsList struct {
	slot           uint32 // in rightsTable.sessions
	oldest, newest uint32
	count          int
}

func newRightsTable() *rightsTable {
	return &rightsTable{used: 1, heads: map[inode.Ino]uint32{}}
}

// join gives a session its slot; leave takes it back, with all its rights.
func (t *rightsTable) join(s *session) {
	for i, other := range t.sessions {
		if other == nil {
			t.sessions[i], s.rights.slot = s, uint32(i)
			return
		}
	}
	s.rights.slot = uint32(len(t.sessions))
	t.sessions = append(t.sessions, s)
}

func (t *rightsTable) leave(s *session) {
	t.keepOnly(s, func(inode.Ino, inode.Rights) inode.Rights { return 0 })
	t.sessions[s.rights.slot] = nil
}

func (t *rightsTable) at(slot uint32) *right { return &t.pages[slot>>rightsShift][slot&(rightsPage-1)] }

// find returns the slot of s's record for ino and that of the record before it
// in the inode's chain.
func (t *rightsTable) find(ino inode.Ino, s *session) (slot, before uint32) {
	for slot = t.heads[ino]; slot != 0; slot = t.at(slot).next {
		if t.at(slot).sess == s.rights.slot {
			return slot, before
		}
		before = slot
	}
	return 0, 0
}

// held is what s holds on ino.
func (t *rightsTable) held(ino inode.Ino, s *session) inode.Rights {
	if slot, _ := t.find(ino, s); slot != 0 {
		return t.at(slot).rights
	}
	return 0
}

// others is what all sessions but s (which may be nil) hold on ino together.
func (t *rightsTable) others(ino inode.Ino, s *session) (sum inode.Rights) {
	for slot := t.heads[ino]; slot != 0; {
		r := t.at(slot)
		if s == nil || r.sess != s.rights.slot {
			sum |= r.rights
		}
		slot = r.next
	}
	return sum
}

// holder is one element of holders.
type holder struct {
	s      *session
	rights inode.Rights
}

// holders appends all sessions but s (which may be nil) that hold any of mask on ino.
func (t *rightsTable) holders(to []holder, ino inode.Ino, s *session, mask inode.Rights) []holder {
	for slot := t.heads[ino]; slot != 0; {
		r := t.at(slot)
		if r.rights&mask != 0 && (s == nil || r.sess != s.rights.slot) {
			to = append(to, holder{t.sessions[r.sess], r.rights})
		}
		slot = r.next
	}
	return to
}

// add gives s more rights on ino and makes the record its youngest.
func (t *rightsTable) add(ino inode.Ino, s *session, more inode.Rights) {
	slot, _ := t.find(ino, s)
	if slot == 0 {
		slot = t.alloc()
		*t.at(slot) = right{ino: ino, sess: s.rights.slot, next: t.heads[ino]}
		t.heads[ino] = slot
		s.rights.count++
		t.count++
	} else {
		if slot == s.rights.newest {
			t.at(slot).rights |= more
			return
		}
		t.unlink(s, slot)
	}
	r := t.at(slot)
	r.rights |= more
	r.older, r.newer = s.rights.newest, 0
	if r.older != 0 {
		t.at(r.older).newer = slot
	} else {
		s.rights.oldest = slot
	}
	s.rights.newest = slot
}

// keep takes from s all rights on ino but those in mask.
func (t *rightsTable) keep(ino inode.Ino, s *session, mask inode.Rights) {
	slot, before := t.find(ino, s)
	if slot == 0 {
		return
	}
	r := t.at(slot)
	if r.rights &= mask; r.rights != 0 {
		return
	}
	t.unlink(s, slot)
	switch {
	case before != 0:
		t.at(before).next = r.next
	case r.next != 0:
		t.heads[ino] = r.next
	default:
		delete(t.heads, ino)
	}
	*r = right{next: t.free}
	t.free = slot
	s.rights.count--
	t.count--
}

// keepOnly asks mask for each of s's inodes which rights stay.
func (t *rightsTable) keepOnly(s *session, mask func(inode.Ino, inode.Rights) inode.Rights) {
	for slot := s.rights.oldest; slot != 0; {
		r := t.at(slot)
		newer := r.newer
		t.keep(r.ino, s, mask(r.ino, r.rights))
		slot = newer
	}
}

// oldest lists up to n of s's inodes, those granted longest ago first.
func (t *rightsTable) oldest(s *session, n int) (list []inode.Ino) {
	for slot := s.rights.oldest; slot != 0 && len(list) < n; slot = t.at(slot).newer {
		list = append(list, t.at(slot).ino)
	}
	return list
}

// forget drops all records of an inode that is gone.
func (t *rightsTable) forget(ino inode.Ino) {
	for slot := t.heads[ino]; slot != 0; slot = t.heads[ino] {
		t.keep(ino, t.sessions[t.at(slot).sess], 0)
	}
}

// unlink takes a record out of its session's list.
func (t *rightsTable) unlink(s *session, slot uint32) {
	r := t.at(slot)
	if r.older != 0 {
		t.at(r.older).newer = r.newer
	} else {
		s.rights.oldest = r.newer
	}
	if r.newer != 0 {
		t.at(r.newer).older = r.older
	} else {
		s.rights.newest = r.older
	}
}

// alloc gives an unused slot.
func (t *rightsTable) alloc() uint32 {
	if slot := t.free; slot != 0 {
		t.free = t.at(slot).next
		return slot
	}
	slot := t.used
	if int(slot>>rightsShift) == len(t.pages) {
		t.pages = append(t.pages, make([]right, rightsPage))
	}
	t.used++
	return slot
}
