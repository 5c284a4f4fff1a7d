package state

import (
	"slices"
	"strings"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
)

// Lookup finds a name; an empty name, "." and ".." are never found.
func (s *State) Lookup(parent inode.Ino, name string) (inode.Ino, bool) {
	dir, isDir := s.dirOf(parent)
	if !isDir || len(name) > inode.NameMax {
		return 0, false
	}
	edge := s.lookup(dir, name)
	if edge == 0 {
		return 0, false
	}
	child := s.edges.at(edge).child
	return s.inodes.at(child).number(child), true
}

// Attr gives the attributes of an inode, orphans included.
func (s *State) Attr(ino inode.Ino) (inode.Attr, bool) {
	slot := s.slotOf(ino)
	if slot == 0 {
		return inode.Attr{}, false
	}
	return s.attr(slot), true
}

// ParentOf gives the directory in which an inode has the name that counts in
// the tallies. The root's is the root; 0: an orphan or no such inode.
func (s *State) ParentOf(ino inode.Ino) inode.Ino {
	if ino == inode.Root {
		return inode.Root
	}
	slot := s.slotOf(ino)
	if slot == 0 {
		return 0
	}
	dir := s.above(slot)
	if dir == 0 {
		return 0
	}
	return s.inodes.at(dir).number(dir)
}

// PathOf gives the absolute path of an inode, by the name that counts in the
// tallies; "" for an orphan or an inode that does not exist.
func (s *State) PathOf(ino inode.Ino) string {
	slot := s.slotOf(ino)
	if slot == 0 {
		return ""
	}
	if ino == inode.Root {
		return "/"
	}
	var names []string
	for {
		n := s.inodes.at(slot)
		edge := s.firstName(n)
		if edge == 0 {
			break
		}
		e := s.edges.at(edge)
		names = append(names, string(s.nameOf(e)))
		slot = e.parent
	}
	if s.inodes.at(slot).number(slot) != inode.Root {
		return ""
	}
	slices.Reverse(names)
	return "/" + strings.Join(names, "/")
}

// ReadDir calls fn for at most max names behind cookie (0: from the start; max
// below 1: all), the youngest first, until fn returns false. It returns false
// when ino is not a directory. fn must not change the state.
func (s *State) ReadDir(ino inode.Ino, cookie uint64, max int, fn func(name string, cookie uint64, ino inode.Ino) bool) bool {
	dir, isDir := s.dirOf(ino)
	if !isDir {
		return false
	}
	// A cookie is the place of the name and one more, so that 0 is free.
	bound := cookie - 1
	if cookie == 0 {
		bound = maxPlace + 1
	}
	t := s.dirs.at(s.inodes.at(dir).ext).names
	left := max
	s.treeDown(&t, bound, func(place uint64, edge uint32) bool {
		e := s.edges.at(edge)
		left--
		return fn(string(s.nameOf(e)), place+1, s.inodes.at(e.child).number(e.child)) && left != 0
	})
	return true
}

// Target gives a symbolic link's target; false: no symbolic link.
func (s *State) Target(ino inode.Ino) (string, bool) {
	slot := s.slotOf(ino)
	if slot == 0 || s.inodes.at(slot).kind() != inode.Symlink {
		return "", false
	}
	n := s.inodes.at(slot)
	return string(s.blobs.get(n.ext, int(n.size))), true
}

// FileChunks calls fn for the chunks that exist among first..first+count-1 of a
// file, in ascending order, until it returns false. fn must not change the state.
func (s *State) FileChunks(ino inode.Ino, first, count uint32, fn func(ChunkSlot) bool) {
	slot := s.slotOf(ino)
	if slot == 0 || count == 0 || s.inodes.at(slot).kind() != inode.File {
		return
	}
	t := s.chunkTree(s.inodes.at(slot))
	s.treeUp(&t, uint64(first), uint64(first)+uint64(count)-1, func(_ uint64, c uint32) bool {
		return fn(s.slotInfo(c))
	})
}

func (s *State) chunkInfo(slot uint32) ChunkInfo {
	owner := s.chunks.at(slot).owner
	n := s.inodes.at(owner)
	return ChunkInfo{ChunkSlot: s.slotInfo(slot), Ino: n.number(owner), Goal: n.goal}
}

// Chunk finds a chunk.
func (s *State) Chunk(id chunk.ID) (ChunkInfo, bool) {
	slot := s.chunkOf(id)
	if slot == 0 {
		return ChunkInfo{}, false
	}
	return s.chunkInfo(slot), true
}

// Chunks calls fn for all chunks until it returns false. fn must not change the state.
func (s *State) Chunks(fn func(ChunkInfo) bool) {
	for slot := uint32(1); slot < s.chunks.n; slot++ {
		if s.chunks.at(slot).owner != 0 && !fn(s.chunkInfo(slot)) {
			return
		}
	}
}

// ChunksFrom calls fn for the chunks among n places of their table, from place at
// on, and tells where to go on; 0: that was the end. Between two calls the state
// may change: chunks that are made or freed meanwhile may be met or not.
func (s *State) ChunksFrom(at uint32, n uint32, fn func(ChunkInfo)) (next uint32) {
	end := s.chunks.n
	if n < end-min(at, end) {
		end = at + n
		next = end
	}
	for slot := max(at, 1); slot < end; slot++ {
		if s.chunks.at(slot).owner != 0 {
			fn(s.chunkInfo(slot))
		}
	}
	return next
}

// Inodes calls fn for all inodes until it returns false. fn must not change the state.
func (s *State) Inodes(fn func(inode.Attr) bool) {
	for slot := uint32(1); slot < s.inodes.n; slot++ {
		if s.inodes.at(slot).mode != 0 && !fn(s.attr(slot)) {
			return
		}
	}
}

// Counters gives what is below a directory; false: no directory.
func (s *State) Counters(dir inode.Ino) (Counters, bool) {
	slot, isDir := s.dirOf(dir)
	if !isDir {
		return Counters{}, false
	}
	var c Counters
	for t := s.dirs.at(s.inodes.at(slot).ext).tally; t != 0; {
		rec := s.tallies.at(t)
		c.Inodes += rec.files + rec.dirs + rec.symlinks + rec.others
		c.Dirs += rec.dirs
		c.Files += rec.files
		c.Symlinks += rec.symlinks
		c.Others += rec.others
		c.Chunks += rec.chunks
		c.Length += rec.length
		c.Size += rec.size
		c.Real += rec.size * uint64(rec.goal)
		c.GoalFiles[rec.goal] = rec.files
		c.GoalDirs[rec.goal] = rec.dirs
		t = rec.next
	}
	return c, true
}

// Sessions lists the sessions by number.
func (s *State) Sessions() []SessionInfo {
	list := make([]SessionInfo, len(s.sessions))
	for i, ses := range s.sessions {
		list[i] = ses.info
	}
	return list
}

// Session finds a session.
func (s *State) Session(id uint64) (SessionInfo, bool) {
	ses := s.session(id)
	if ses == nil {
		return SessionInfo{}, false
	}
	return ses.info, true
}

// Holds lists the sessions that keep an orphan, nil when ino is none.
func (s *State) Holds(ino inode.Ino) []uint64 {
	slot := s.slotOf(ino)
	if slot == 0 {
		return nil
	}
	return slices.Clone(s.orphans[slot])
}

// Orphans calls fn for all orphans until it returns false. fn must not change
// the state.
func (s *State) Orphans(fn func(ino inode.Ino, holds []uint64) bool) {
	for _, slot := range s.orphanSlots() {
		if !fn(s.inodes.at(slot).number(slot), slices.Clone(s.orphans[slot])) {
			return
		}
	}
}

// Leases calls fn for all leased chunks until it returns false. fn must not
// change the state.
func (s *State) Leases(fn func(ChunkInfo) bool) {
	for slot := uint32(1); slot < s.leases.n; slot++ {
		if c := s.leases.at(slot).chunk; c != 0 && !fn(s.chunkInfo(c)) {
			return
		}
	}
}

// LeasesOf lists the chunks that a session has leased; the session may be closed
// already.
func (s *State) LeasesOf(session uint64) []ChunkInfo {
	var list []ChunkInfo
	s.Leases(func(c ChunkInfo) bool {
		if c.Lease == session {
			list = append(list, c)
		}
		return true
	})
	return list
}

// Servers lists the chunkservers by number.
func (s *State) Servers() []ServerInfo { return slices.Clone(s.servers) }

// Memory is what the tree takes, in bytes, with what views have made it copy.
func (s *State) Memory() (sum uint64) {
	for _, t := range s.tables() {
		sum += t.bytes()
	}
	return sum
}

// Cluster is the identity of the cluster, "" before SetCluster.
func (s *State) Cluster() string { return s.head.cluster }

// Time is that of the last entry applied, nanoseconds since 1970.
func (s *State) Time() int64 { return s.head.time }

// Totals of the whole file system.
func (s *State) Totals() Totals {
	h := &s.head
	return Totals{
		Inodes: h.files + h.dirs + h.symlinks + h.others,
		Files:  h.files, Dirs: h.dirs, Symlinks: h.symlinks, Others: h.others,
		Orphans: uint64(len(s.orphans)), Chunks: h.chunks, Leases: uint64(s.leases.live()),
		Length: h.length, Sessions: len(s.sessions), Servers: len(s.servers),
	}
}
