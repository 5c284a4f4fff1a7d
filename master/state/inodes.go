package state

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
)

// slotOf finds the slot of an inode, 0: it does not exist.
func (s *State) slotOf(ino inode.Ino) uint32 {
	slot := uint32(ino)
	if slot == 0 || slot >= s.inodes.n {
		return 0
	}
	n := s.inodes.at(slot)
	if n.uses != uint32(ino>>32) || n.mode == 0 {
		return 0
	}
	return slot
}

// dirOf finds the slot of a directory that names can be put into.
func (s *State) dirOf(ino inode.Ino) (slot uint32, isDir bool) {
	slot = s.slotOf(ino)
	return slot, slot != 0 && s.inodes.at(slot).kind() == inode.Dir
}

// newInode makes an inode without names in a slot that newSlot gave.
func (s *State) newInode(slot uint32, kind inode.Kind, perm uint32, now int64) uint32 {
	n := s.inodes.mut(slot)
	*n = inodeRec{
		uses: n.uses, mode: uint16(kind)<<kindShift | uint16(perm&0o7777),
		atime: now, mtime: now, ctime: now, btime: now, change: 1,
	}
	switch kind {
	case inode.File:
		s.head.files++
	case inode.Dir:
		s.head.dirs++
		n.ext = s.dirs.alloc()
	case inode.Symlink:
		s.head.symlinks++
	default:
		s.head.others++
	}
	return slot
}

// freeInode frees an inode that has no names, and all it has.
func (s *State) freeInode(slot uint32, r *Result) {
	n := *s.inodes.at(slot)
	switch n.kind() {
	case inode.File:
		s.head.files--
		s.head.length -= n.size
		s.freeChunksFrom(slot, 0, r)
	case inode.Dir:
		s.head.dirs--
		s.freeTallies(n.ext)
		s.dirs.release(n.ext, dirRec{})
	case inode.Symlink:
		s.head.symlinks--
		s.blobs.drop(n.ext, int(n.size))
	default:
		s.head.others--
	}
	s.freeXattrs(slot)
	s.dropTraits(slot)
	if n.uses == maxUses {
		*s.inodes.mut(slot) = inodeRec{uses: n.uses}
		return
	}
	s.inodes.release(slot, inodeRec{uses: n.uses + 1})
}

// changed notes a change of an inode's attributes at a time.
func (s *State) changed(slot uint32, now int64) *inodeRec {
	n := s.inodes.mut(slot)
	n.ctime = now
	s.touch(slot)
	return n
}

// modified notes a change of a directory's names or a file's bytes.
func (s *State) modified(slot uint32, now int64) *inodeRec {
	n := s.changed(slot, now)
	n.mtime = now
	return n
}

// attr gives the attributes of an inode that exists.
func (s *State) attr(slot uint32) inode.Attr {
	n := s.inodes.at(slot)
	t := s.traitsOf(n)
	a := inode.Attr{
		Ino: n.number(slot), Kind: n.kind(), Flags: n.flags & attrFlags, Mode: n.perm(),
		Nlink: t.nlink, Uid: t.uid, Gid: t.gid, Goal: n.goal, Size: n.size,
		Atime: n.atime, Mtime: n.mtime, Ctime: n.ctime, Btime: n.btime, Trash: t.trash,
		Gen: uint64(t.high)<<32 | uint64(n.change),
	}
	switch a.Kind {
	case inode.File:
		a.Blocks = (s.stored(n) + 511) / 512
	case inode.Dir:
		a.Size = uint64(s.dirs.at(n.ext).names.count)
	case inode.CharDev, inode.BlockDev:
		a.Rdev = n.ext
	}
	return a
}

// chunkTree gives a copy of a file's tree.
func (s *State) chunkTree(n *inodeRec) tree {
	if n.flags&manyChunks != 0 {
		return *s.trees.at(n.ext)
	}
	if n.ext == 0 {
		return tree{}
	}
	return tree{root: n.ext, count: 1}
}

// setChunkTree writes a file's tree back.
func (s *State) setChunkTree(slot uint32, t tree) {
	n := s.inodes.mut(slot)
	many := t.height > 0
	switch {
	case many && n.flags&manyChunks == 0:
		n.flags |= manyChunks
		n.ext = s.trees.alloc()
	case !many && n.flags&manyChunks != 0:
		n.flags &^= manyChunks
		s.trees.release(n.ext, tree{})
	}
	if many {
		*s.trees.mut(n.ext) = t
	} else {
		n.ext = t.root
	}
}

// stored is the number of bytes of a file that lie in chunks.
func (s *State) stored(n *inodeRec) uint64 {
	if n.ext == 0 || n.size == 0 {
		return 0
	}
	if n.flags&manyChunks == 0 {
		return min(n.size, chunk.Size)
	}
	t := s.trees.at(n.ext)
	last := (n.size - 1) / chunk.Size
	whole := uint64(t.count)
	s.treeUp(t, last+1, ^uint64(0), func(uint64, uint32) bool { whole--; return true })
	if s.treeGet(t, last) == 0 {
		return whole * chunk.Size
	}
	return (whole-1)*chunk.Size + n.size - last*chunk.Size
}

// weigh is what an inode by itself adds to the tallies above it.
func (s *State) weigh(slot uint32) weight {
	n := s.inodes.at(slot)
	switch n.kind() {
	case inode.File:
		w := weight{files: 1, length: n.size, size: s.stored(n)}
		if n.flags&manyChunks != 0 {
			w.chunks = uint64(s.trees.at(n.ext).count)
		} else if n.ext != 0 {
			w.chunks = 1
		}
		return w
	case inode.Dir:
		return weight{dirs: 1}
	case inode.Symlink:
		return weight{symlinks: 1}
	}
	return weight{others: 1}
}
