package state

import (
	"strings"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
)

// edgeChain links edges in the index of names.
type edgeChain struct{ s *State }

func (c edgeChain) hash(slot uint32) uint64 {
	e := c.s.edges.at(slot)
	return hashBytes(c.s.nameSeed(e.parent), c.s.nameOf(e))
}
func (c edgeChain) next(slot uint32) uint32   { return c.s.edges.at(slot).next }
func (c edgeChain) setNext(slot, next uint32) { c.s.edges.mut(slot).next = next }
func (s *State) nameSeed(parent uint32) uint64 {
	return s.head.seed + uint64(parent)*0x9e3779b97f4a7c15
}
func (s *State) nameOf(e *edgeRec) []byte           { return s.blobs.get(e.name, int(e.length)) }
func (s *State) hashName(p uint32, n string) uint64 { return hashBytes(s.nameSeed(p), n) }

// lookup finds a name in a directory, 0: not there.
func (s *State) lookup(parent uint32, name string) uint32 {
	h := s.hashName(parent, name)
	for slot := s.names.first(h); slot != 0; {
		e := s.edges.at(slot)
		if e.tag == edgeTag(h) && e.parent == parent && int(e.length) == len(name) && string(s.nameOf(e)) == name {
			return slot
		}
		slot = e.next
	}
	return 0
}

// nameForm checks a name that is to be made.
func nameForm(name string) status.Code {
	switch {
	case len(name) > inode.NameMax:
		return status.NameTooLong
	case name == "" || name == "." || name == "..":
		return status.Invalid
	case strings.IndexByte(name, 0) >= 0 || strings.IndexByte(name, '/') >= 0:
		return status.Invalid
	}
	return status.OK
}

// findName finds the edge of a name that must exist, its directory, or what is wrong.
func (s *State) findName(parent inode.Ino, name string) (edge, dir uint32, code status.Code) {
	dir, isDir := s.dirOf(parent)
	switch {
	case dir == 0:
		return 0, 0, status.NotFound
	case !isDir:
		return 0, 0, status.NotDir
	case len(name) > inode.NameMax:
		return 0, 0, status.NameTooLong
	}
	if edge = s.lookup(dir, name); edge == 0 {
		return 0, dir, status.NotFound
	}
	return edge, dir, status.OK
}

// newNameIn checks that a name may be made in a directory and finds who has it.
func (s *State) newNameIn(parent inode.Ino, name string) (edge, dir uint32, code status.Code) {
	dir, isDir := s.dirOf(parent)
	switch {
	case dir == 0:
		return 0, 0, status.NotFound
	case !isDir:
		return 0, 0, status.NotDir
	}
	if code = nameForm(name); code != status.OK {
		return 0, dir, code
	}
	n := s.inodes.at(dir)
	if s.traitsOf(n).nlink == 0 {
		return 0, dir, status.NotFound // removed, but open somewhere
	}
	if s.dirs.at(n.ext).next > maxPlace {
		return 0, dir, status.NoSpace
	}
	return s.lookup(dir, name), dir, status.OK
}

// firstName gives the edge of an inode that counts in the tallies, 0: none.
func (s *State) firstName(n *inodeRec) uint32 {
	if n.flags&manyNames != 0 {
		return s.links.at(n.name).edge
	}
	return n.name
}

// addName gives child a name. Link counts and times are the caller's.
func (s *State) addName(parent, child uint32, name string) {
	edge := s.edges.alloc()
	h := s.hashName(parent, name)
	*s.edges.mut(edge) = edgeRec{
		parent: parent, child: child, name: put(&s.blobs, name), length: uint8(len(name)), tag: edgeTag(h),
	}
	s.names.insert(edgeChain{s}, edge, h)
	s.enter(parent, edge)

	n := s.inodes.mut(child)
	if n.name == 0 {
		n.name = edge
		s.move(child, 0, parent)
		return
	}
	if n.flags&manyNames == 0 {
		n.flags |= manyNames
		l := s.links.alloc()
		*s.links.mut(l) = linkRec{edge: n.name}
		n.name = l
	}
	// Behind the first one: no need to walk the list, and the first stays first.
	l := s.links.alloc()
	first := s.links.mut(n.name)
	*s.links.mut(l) = linkRec{edge: edge, next: first.next}
	first.next = l
}

// enter puts an edge behind all others of its directory.
func (s *State) enter(dir, edge uint32) {
	d := s.dirs.mut(s.inodes.at(dir).ext)
	s.edges.mut(edge).setPlace(d.next)
	s.treeSet(&d.names, d.next, edge)
	d.next++
}

// leave takes an edge out of its directory.
func (s *State) leave(dir, edge uint32) {
	d := s.dirs.mut(s.inodes.at(dir).ext)
	s.treeDel(&d.names, s.edges.at(edge).place())
}

// dropName takes a name from its inode. Link counts and times are the caller's.
func (s *State) dropName(edge uint32) {
	e := *s.edges.at(edge)
	s.names.remove(edgeChain{s}, edge, hashBytes(s.nameSeed(e.parent), s.nameOf(&e)))
	s.leave(e.parent, edge)
	s.blobs.drop(e.name, int(e.length))
	s.edges.release(edge, edgeRec{})

	n := s.inodes.mut(e.child)
	if n.flags&manyNames == 0 {
		s.move(e.child, e.parent, 0)
		n.name = 0
		return
	}
	prev, l := uint32(0), n.name
	for s.links.at(l).edge != edge {
		prev, l = l, s.links.at(l).next
	}
	next := s.links.at(l).next
	s.links.release(l, linkRec{})
	if prev != 0 {
		s.links.mut(prev).next = next
	} else {
		n.name = next
		s.move(e.child, e.parent, s.edges.at(s.links.at(next).edge).parent)
	}
	if only := *s.links.at(n.name); only.next == 0 {
		s.links.release(n.name, linkRec{})
		n.name = only.edge
		n.flags &^= manyNames
	}
}

// moveName gives an edge another directory and name. In the same directory it
// keeps its place. Link counts and times are the caller's.
func (s *State) moveName(edge, parent uint32, name string) {
	e := *s.edges.at(edge)
	s.names.remove(edgeChain{s}, edge, hashBytes(s.nameSeed(e.parent), s.nameOf(&e)))
	if e.parent != parent {
		s.leave(e.parent, edge)
		s.enter(parent, edge)
		if s.firstName(s.inodes.at(e.child)) == edge {
			s.move(e.child, e.parent, parent)
		}
	}
	s.blobs.drop(e.name, int(e.length))
	h := s.hashName(parent, name)
	m := s.edges.mut(edge)
	m.parent, m.name, m.length, m.tag = parent, put(&s.blobs, name), uint8(len(name)), edgeTag(h)
	s.names.insert(edgeChain{s}, edge, h)
}

// swapNames lets two edges name each other's inode.
func (s *State) swapNames(a, b uint32) {
	ea, eb := *s.edges.at(a), *s.edges.at(b)
	if s.firstName(s.inodes.at(ea.child)) == a {
		s.move(ea.child, ea.parent, eb.parent)
	}
	if s.firstName(s.inodes.at(eb.child)) == b {
		s.move(eb.child, eb.parent, ea.parent)
	}
	s.replaceName(ea.child, a, b)
	s.replaceName(eb.child, b, a)
	s.edges.mut(a).child = eb.child
	s.edges.mut(b).child = ea.child
}

func (s *State) replaceName(slot, old, edge uint32) {
	n := s.inodes.mut(slot)
	if n.flags&manyNames == 0 {
		n.name = edge
		return
	}
	l := n.name
	for s.links.at(l).edge != old {
		l = s.links.at(l).next
	}
	s.links.mut(l).edge = edge
}

// below tells whether dir is slot or somewhere below it.
func (s *State) below(dir, slot uint32) bool {
	for dir != 0 && dir != slot {
		dir = s.above(dir)
	}
	return dir == slot
}
