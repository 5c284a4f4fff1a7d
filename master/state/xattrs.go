package state

import (
	"slices"
	"strings"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
)

// maxXattrNames is the size of the longest list of names, as listxattr(2) limits it.
const maxXattrNames = 64 << 10

// xattrChain links extended attributes in the index of their owners.
type xattrChain struct{ s *State }

func (c xattrChain) hash(slot uint32) uint64   { return mix(uint64(c.s.xattrs.at(slot).owner)) }
func (c xattrChain) next(slot uint32) uint32   { return c.s.xattrs.at(slot).next }
func (c xattrChain) setNext(slot, next uint32) { c.s.xattrs.mut(slot).next = next }

// xattrForm checks an attribute's name.
func xattrForm(name string) status.Code {
	switch {
	case name == "" || strings.IndexByte(name, 0) >= 0:
		return status.Invalid
	case len(name) > inode.NameMax:
		return status.NameTooLong
	case strings.HasPrefix(name, "system.") && !isACL(name):
		return status.Unsupported
	}
	return status.OK
}

// xattrsOf calls fn for the attributes of an inode until it returns false.
func (s *State) xattrsOf(slot uint32, fn func(x uint32, name []byte) bool) {
	if s.inodes.at(slot).flags&inode.HasXattr == 0 {
		return
	}
	for x := s.owners.first(mix(uint64(slot))); x != 0; {
		rec := s.xattrs.at(x)
		next := rec.next
		if rec.owner == slot && !fn(x, s.blobs.get(rec.name, int(rec.length))) {
			return
		}
		x = next
	}
}

// findXattr finds an attribute, 0: not there.
func (s *State) findXattr(slot uint32, name string) (found uint32) {
	s.xattrsOf(slot, func(x uint32, n []byte) bool {
		if string(n) == name {
			found = x
		}
		return found == 0
	})
	return found
}

// xattr gives the value of an attribute, good until the next change.
func (s *State) xattr(slot uint32, name string) ([]byte, bool) {
	x := s.findXattr(slot, name)
	if x == 0 {
		return nil, false
	}
	rec := s.xattrs.at(x)
	return s.blobs.get(rec.value, int(rec.size)), true
}

// xattrNames is the size of the list of names, bytes.
func (s *State) xattrNames(slot uint32) (size int) {
	s.xattrsOf(slot, func(_ uint32, name []byte) bool {
		size += len(name) + 1
		return true
	})
	return size
}

// setXattr stores an attribute; times are the caller's.
func (s *State) setXattr(slot uint32, name string, value []byte) {
	ref := put(&s.blobs, value)
	x := s.findXattr(slot, name)
	if x != 0 {
		rec := s.xattrs.mut(x)
		s.blobs.drop(rec.value, int(rec.size))
		rec.value, rec.size = ref, uint32(len(value))
		return
	}
	x = s.xattrs.alloc()
	*s.xattrs.mut(x) = xattrRec{
		owner: slot, name: put(&s.blobs, name), length: uint8(len(name)), value: ref, size: uint32(len(value)),
	}
	s.owners.insert(xattrChain{s}, x, mix(uint64(slot)))
	s.inodes.mut(slot).flags |= inode.HasXattr
	s.flagXattrs(slot)
}

// removeXattr removes an attribute if it is there; times are the caller's.
func (s *State) removeXattr(slot uint32, name string) bool {
	x := s.findXattr(slot, name)
	if x == 0 {
		return false
	}
	s.freeXattr(x)
	s.flagXattrs(slot)
	return true
}

func (s *State) freeXattr(x uint32) {
	rec := *s.xattrs.at(x)
	s.owners.remove(xattrChain{s}, x, mix(uint64(rec.owner)))
	s.blobs.drop(rec.name, int(rec.length))
	s.blobs.drop(rec.value, int(rec.size))
	s.xattrs.release(x, xattrRec{})
}

// flagXattrs sets the flags by which a mount can answer without asking.
func (s *State) flagXattrs(slot uint32) {
	var f uint8
	s.xattrsOf(slot, func(_ uint32, name []byte) bool {
		f |= xattrFlag(string(name))
		return true
	})
	n := s.inodes.mut(slot)
	n.flags = n.flags&^attrFlags | f
}

// xattrFlag gives the flags of an inode that has an attribute of this name.
func xattrFlag(name string) uint8 {
	switch name {
	case XattrAccess, XattrDefault:
		return inode.HasXattr | inode.HasACL
	case XattrCaps:
		return inode.HasXattr | inode.HasCaps
	}
	return inode.HasXattr
}

func (s *State) freeXattrs(slot uint32) {
	var all []uint32
	s.xattrsOf(slot, func(x uint32, _ []byte) bool {
		all = append(all, x)
		return true
	})
	for _, x := range all {
		s.freeXattr(x)
	}
}

// Xattr gives the value of one extended attribute.
func (s *State) Xattr(ino inode.Ino, name string) ([]byte, bool) {
	slot := s.slotOf(ino)
	if slot == 0 {
		return nil, false
	}
	v, ok := s.xattr(slot, name)
	return slices.Clone(v), ok
}

// Xattrs gives the names of the extended attributes in ascending order, each
// ended by a zero byte.
func (s *State) Xattrs(ino inode.Ino) []byte {
	slot := s.slotOf(ino)
	if slot == 0 {
		return nil
	}
	var names []string
	s.xattrsOf(slot, func(_ uint32, name []byte) bool {
		names = append(names, string(name))
		return true
	})
	slices.Sort(names)
	var out []byte
	for _, n := range names {
		out = append(append(out, n...), 0)
	}
	return out
}
