package state

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
)

// State is the whole metadata. See the package comment.
type State struct{}

// New makes an empty file system: the root directory with mode 0755, owner 0
// and goal 2, made at time (nanoseconds since 1970). All masters of a cluster
// must start with the same time.
func New(time int64) *State { panic("not yet") }

// Apply carries out e. What it returns stays valid.
func (s *State) Apply(e *Entry) Result { panic("not yet") }

// Replied gives what is remembered of a session's request: false when it has
// not been executed, or when the session has said that it has the reply.
func (s *State) Replied(session, seq uint64) (Result, bool) { panic("not yet") }

// Lookup finds a name; an empty name, "." and ".." are never found.
func (s *State) Lookup(parent inode.Ino, name string) (inode.Ino, bool) { panic("not yet") }

// Attr gives the attributes of an inode, orphans included.
func (s *State) Attr(ino inode.Ino) (inode.Attr, bool) { panic("not yet") }

// ParentOf gives the directory in which an inode has its oldest name. The root's
// is the root; 0: an orphan or no such inode.
func (s *State) ParentOf(ino inode.Ino) inode.Ino { panic("not yet") }

// PathOf gives the absolute path of an inode's oldest name, "" for an orphan or
// an inode that does not exist.
func (s *State) PathOf(ino inode.Ino) string { panic("not yet") }

// ReadDir calls fn for at most max names behind cookie (0: from the start; max
// below 1: all) until fn returns false. It returns false when ino is not a directory.
func (s *State) ReadDir(ino inode.Ino, cookie uint64, max int, fn func(name string, cookie uint64, ino inode.Ino) bool) bool {
	panic("not yet")
}

// Target gives a symbolic link's target; false: no symbolic link.
func (s *State) Target(ino inode.Ino) (string, bool) { panic("not yet") }

// Xattr gives the value of one extended attribute.
func (s *State) Xattr(ino inode.Ino, name string) ([]byte, bool) { panic("not yet") }

// Xattrs gives the names of the extended attributes, each ended by a zero byte.
func (s *State) Xattrs(ino inode.Ino) []byte { panic("not yet") }

// FileChunks calls fn for the chunks that exist among first..first+count-1 of a
// file, in ascending order, until it returns false.
func (s *State) FileChunks(ino inode.Ino, first, count uint32, fn func(ChunkSlot) bool) {
	panic("not yet")
}

// Chunk finds a chunk.
func (s *State) Chunk(id chunk.ID) (ChunkInfo, bool) { panic("not yet") }

// Chunks calls fn for all chunks until it returns false.
func (s *State) Chunks(fn func(ChunkInfo) bool) { panic("not yet") }

// Inodes calls fn for all inodes until it returns false.
func (s *State) Inodes(fn func(inode.Attr) bool) { panic("not yet") }

// Counters gives what is below a directory; false: no directory.
func (s *State) Counters(dir inode.Ino) (Counters, bool) { panic("not yet") }

// Sessions lists the sessions by number.
func (s *State) Sessions() []SessionInfo { panic("not yet") }

// Session finds a session.
func (s *State) Session(id uint64) (SessionInfo, bool) { panic("not yet") }

// Holds lists the sessions that keep an orphan, nil when ino is none.
func (s *State) Holds(ino inode.Ino) []uint64 { panic("not yet") }

// Orphans calls fn for all orphans by number until it returns false.
func (s *State) Orphans(fn func(ino inode.Ino, holds []uint64) bool) { panic("not yet") }

// LeasesOf lists the chunks that a session has leased; the session may be closed already.
func (s *State) LeasesOf(session uint64) []ChunkInfo { panic("not yet") }

// Leases calls fn for all leased chunks until it returns false.
func (s *State) Leases(fn func(ChunkInfo) bool) { panic("not yet") }

// Servers lists the chunkservers by number.
func (s *State) Servers() []ServerInfo { panic("not yet") }

// Cluster is the identity of the cluster, "" before SetCluster.
func (s *State) Cluster() string { panic("not yet") }

// Totals of the whole file system.
func (s *State) Totals() Totals { panic("not yet") }

// Time is that of the last entry applied.
func (s *State) Time() int64 { panic("not yet") }

// View is a State as it was when Freeze was called. Another goroutine may read it.
type View struct{}

// Freeze takes a View in a time that does not depend on the number of names.
func (s *State) Freeze() *View { panic("not yet") }

// Release gives up the view. It may be called from any goroutine.
func (v *View) Release() { panic("not yet") }
