package state

// Owner, trash time and number of links are the same for most inodes: an inode
// refers to a record that it shares with all others that have the same.

// traits is what inodes share. A value without pointers, compared as a whole.
type traits struct {
	uid   uint32
	gid   uint32
	nlink uint32
	trash uint32 // seconds
	high  uint32 // high bits of Attr.Gen
}

// traitsRec is traits and how many inodes have them: 28 bytes.
type traitsRec struct {
	traits
	refs uint32 // 0: free
	next uint32 // in the bucket of the traits' index
}

// traitsChain links traitsRecs in their index.
type traitsChain struct{ s *State }

func (c traitsChain) hash(slot uint32) uint64   { return c.s.traits.at(slot).hash() }
func (c traitsChain) next(slot uint32) uint32   { return c.s.traits.at(slot).next }
func (c traitsChain) setNext(slot, next uint32) { c.s.traits.mut(slot).next = next }
func (t *traits) hash() uint64 {
	return mix(mix(mix(uint64(t.uid)<<32|uint64(t.gid))^uint64(t.nlink)<<32^uint64(t.trash)) ^ uint64(t.high))
}

// traitsOf gives what an inode shares with others.
func (s *State) traitsOf(n *inodeRec) *traits { return &s.traits.at(n.traits).traits }

// setTraits gives an inode other traits.
func (s *State) setTraits(slot uint32, t traits) {
	if old := s.inodes.at(slot).traits; old != 0 && s.traits.at(old).traits == t {
		return
	}
	s.dropTraits(slot)
	h := t.hash()
	found := s.kinds.first(h)
	for found != 0 && s.traits.at(found).traits != t {
		found = s.traits.at(found).next
	}
	if found == 0 {
		found = s.traits.alloc()
		*s.traits.mut(found) = traitsRec{traits: t}
		s.kinds.insert(traitsChain{s}, found, h)
	}
	s.traits.mut(found).refs++
	s.inodes.mut(slot).traits = found
}

// dropTraits takes its traits from an inode.
func (s *State) dropTraits(slot uint32) {
	n := s.inodes.mut(slot)
	if n.traits == 0 {
		return
	}
	rec := s.traits.mut(n.traits)
	if rec.refs--; rec.refs == 0 {
		s.kinds.remove(traitsChain{s}, n.traits, rec.hash())
		s.traits.release(n.traits, traitsRec{})
	}
	n.traits = 0
}

// addLinks changes the number of an inode's links.
func (s *State) addLinks(slot uint32, by int) {
	t := *s.traitsOf(s.inodes.at(slot))
	t.nlink += uint32(by)
	s.setTraits(slot, t)
}

// setLinks sets it.
func (s *State) setLinks(slot, n uint32) {
	t := *s.traitsOf(s.inodes.at(slot))
	t.nlink = n
	s.setTraits(slot, t)
}

// setOwner changes the owners of an inode, as far as sets says.
func (s *State) setOwner(slot, sets, uid, gid uint32) {
	t := *s.traitsOf(s.inodes.at(slot))
	if sets&SetUid != 0 {
		t.uid = uid
	}
	if sets&SetGid != 0 {
		t.gid = gid
	}
	s.setTraits(slot, t)
}

// setTrash changes the trash time of an inode; false: it was so.
func (s *State) setTrash(slot, trash uint32) bool {
	t := *s.traitsOf(s.inodes.at(slot))
	if t.trash == trash {
		return false
	}
	t.trash = trash
	s.setTraits(slot, t)
	return true
}

// touch makes a change of an inode visible in its generation.
func (s *State) touch(slot uint32) {
	n := s.inodes.mut(slot)
	n.change++
	if n.change == 0 {
		t := *s.traitsOf(n)
		t.high++
		s.setTraits(slot, t)
	}
}
