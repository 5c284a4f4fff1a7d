package wire

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/inode"
)

// GetAttr asks for attributes and right R. Reply: AttrReply.
type GetAttr struct{ Ino inode.Ino }

func (*GetAttr) Kind() Kind              { return KindGetAttr }
func (m *GetAttr) Fields(c *codec.Codec) { codec.Uint(c, &m.Ino) }

// AttrReply: Rights are now held on the inode. Target is a symlink's.
type AttrReply struct {
	Attr   inode.Attr
	Rights inode.Rights
	Target []byte
}

func (*AttrReply) Kind() Kind { return KindAttrReply }
func (m *AttrReply) Fields(c *codec.Codec) {
	Attr(c, &m.Attr)
	codec.Uint(c, &m.Rights)
	c.Bytes(&m.Target, maxText)
}

// What a SetAttr sets.
const (
	SetMode = 1 << iota
	SetUid
	SetGid
	SetSize
	SetAtime
	SetMtime
	SetAtimeNow
	SetMtimeNow
	SetCtime   // to Mtime's moment; otherwise ctime is the master's clock
	SetKill    // clear suid, sgid (when group-executable) and security.capability
	SetGoal    // Goal
	SetTrash   // Trash
	SetSubtree // with SetGoal, SetTrash: everything below, too
)

// SetAttr changes attributes. SetSize truncates or extends: the master frees
// whole chunks and notes how much of the last chunk counts (ChunkLoc.Valid), so
// that it is one atomic change without a word to a chunkserver. The mount must
// have flushed or dropped its unwritten data first. Reply: AttrReply.
type SetAttr struct {
	Once
	Ino   inode.Ino
	Valid uint32
	Mode  uint32
	Uid   uint32
	Gid   uint32
	Size  uint64
	Atime int64
	Mtime int64
	Goal  uint8
	Trash uint32
	Early
}

func (*SetAttr) Kind() Kind { return KindSetAttr }
func (m *SetAttr) Fields(c *codec.Codec) {
	m.Once.fields(c)
	codec.Uint(c, &m.Ino)
	c.U32(&m.Valid)
	c.U32(&m.Mode)
	c.U32(&m.Uid)
	c.U32(&m.Gid)
	c.U64(&m.Size)
	c.I64(&m.Atime)
	c.I64(&m.Mtime)
	c.U8(&m.Goal)
	c.U32(&m.Trash)
	m.Early.fields(c)
}

// GetXattr asks for one extended attribute. Reply: BytesReply or NoAttr.
type GetXattr struct {
	Ino  inode.Ino
	Name string
}

func (*GetXattr) Kind() Kind { return KindGetXattr }
func (m *GetXattr) Fields(c *codec.Codec) {
	codec.Uint(c, &m.Ino)
	c.Str(&m.Name, maxName)
}

// Flags of SetXattr, as in setxattr(2).
const (
	XattrCreate  = 1
	XattrReplace = 2
)

// SetXattr sets one extended attribute. system.posix_acl_access also changes
// the mode's group bits, as acl(5) says. Reply: AttrReply.
type SetXattr struct {
	Once
	Ino   inode.Ino
	Name  string
	Value []byte
	Flags uint32
	Kill  bool // clear sgid (FUSE_SETXATTR_ACL_KILL_SGID)
}

func (*SetXattr) Kind() Kind { return KindSetXattr }
func (m *SetXattr) Fields(c *codec.Codec) {
	m.Once.fields(c)
	codec.Uint(c, &m.Ino)
	c.Str(&m.Name, maxName)
	c.Bytes(&m.Value, maxXattr)
	c.U32(&m.Flags)
	c.Bool(&m.Kill)
}

// RemoveXattr removes one extended attribute. Reply: AttrReply.
type RemoveXattr struct {
	Once
	Ino  inode.Ino
	Name string
}

func (*RemoveXattr) Kind() Kind { return KindRemoveXattr }
func (m *RemoveXattr) Fields(c *codec.Codec) {
	m.Once.fields(c)
	codec.Uint(c, &m.Ino)
	c.Str(&m.Name, maxName)
}

// ListXattr asks for the names of the extended attributes. Reply: BytesReply.
type ListXattr struct{ Ino inode.Ino }

func (*ListXattr) Kind() Kind              { return KindListXattr }
func (m *ListXattr) Fields(c *codec.Codec) { codec.Uint(c, &m.Ino) }

// Acquire asks for rights, recalling those of others. The reply (AttrReply) may
// grant less when the mount's own request raced with a recall: ask again. D and W
// together are for a directory: W comes as after a change of a name in it, when no other
// mount is interested.
type Acquire struct {
	Ino    inode.Ino
	Rights inode.Rights
}

func (*Acquire) Kind() Kind { return KindAcquire }
func (m *Acquire) Fields(c *codec.Codec) {
	codec.Uint(c, &m.Ino)
	codec.Uint(c, &m.Rights)
}

// Release gives up rights, and the hold on orphans that are no longer open here. Reply: Empty.
type Release struct {
	Rights []Held // Rights: what is given up; Open true: no longer open here
}

func (*Release) Kind() Kind { return KindRelease }
func (m *Release) Fields(c *codec.Codec) {
	codec.List(c, &m.Rights, maxItems, 17, func(c *codec.Codec, h *Held) {
		codec.Uint(c, &h.Ino)
		codec.Uint(c, &h.Rights)
		c.Bool(&h.Open)
	})
}

// Lease asks for write leases on the chunks First..First+Count-1 of a file on
// which the session holds W; missing chunks are made. Reply: LeaseReply.
type Lease struct {
	Once
	Ino   inode.Ino
	First uint32
	Count uint32
}

func (*Lease) Kind() Kind { return KindLease }
func (m *Lease) Fields(c *codec.Codec) {
	m.Once.fields(c)
	codec.Uint(c, &m.Ino)
	c.U32(&m.First)
	c.U32(&m.Count)
}

// LeaseReply: one location a chunk, at the new version. When Valid is less than
// chunk.Size, the mount's first order under the lease must be a WriteTrim to Valid.
// Blocks are the file's now (inode.Attr), with what was made in its holes.
type LeaseReply struct {
	Chunks []ChunkLoc
	Blocks uint64
}

func (*LeaseReply) Kind() Kind { return KindLeaseReply }
func (m *LeaseReply) Fields(c *codec.Codec) {
	codec.List(c, &m.Chunks, maxItems, chunkLocSize, func(c *codec.Codec, l *ChunkLoc) { l.Fields(c) })
	c.U64(&m.Blocks)
}

// LeaseFail names the copies that did not take a write. The master drops them,
// raises the version on the others and answers with the new set (LeaseReply of
// one chunk); the mount sends again what was not acknowledged durable.
type LeaseFail struct {
	Once
	Ino     inode.Ino
	Index   uint32
	Chunk   chunk.ID
	Version chunk.Version
	Failed  []chunk.Server
}

func (*LeaseFail) Kind() Kind { return KindLeaseFail }
func (m *LeaseFail) Fields(c *codec.Codec) {
	m.Once.fields(c)
	codec.Uint(c, &m.Ino)
	c.U32(&m.Index)
	codec.Uint(c, &m.Chunk)
	c.U32((*uint32)(&m.Version))
	codec.List(c, &m.Failed, maxReplicas, 8, func(c *codec.Codec, s *chunk.Server) { codec.Uint(c, s) })
}

// Commit tells the master what a mount did under W, for many files at once.
// Reply: CommitReply with one result for each.
type Commit struct {
	Once
	Files []CommitFile
}

// CommitFile: new size and mtime of one file, the chunks whose trim to Valid was
// carried out, and the leases that end. The master takes Size as it is (it is
// also how a buffered extension becomes known).
type CommitFile struct {
	Ino     inode.Ino
	Size    uint64
	Mtime   int64
	Trimmed []uint32 // indexes
	Ended   []LeaseEnd
	Kill    bool // as SetKill
	DropW   bool // right W goes down to R

	// Of attributes changed under W. They are final: what a change of owner takes
	// from the mode is taken.
	Sets  uint32 // SetMode, SetUid, SetGid, SetAtime: those that count
	Mode  uint32
	Uid   uint32
	Gid   uint32
	Atime int64
	Ctime int64 // never goes back
}

// LeaseEnd: the lease on a chunk is given back. All replicas hold the same
// bytes, durably when Written; otherwise nothing was sent under the lease.
type LeaseEnd struct {
	Index   uint32
	Chunk   chunk.ID
	Version chunk.Version
	Written bool
}

func (*Commit) Kind() Kind { return KindCommit }
func (m *Commit) Fields(c *codec.Codec) {
	m.Once.fields(c)
	codec.List(c, &m.Files, maxItems, 66, func(c *codec.Codec, f *CommitFile) { f.Fields(c) })
}

func (f *CommitFile) Fields(c *codec.Codec) {
	codec.Uint(c, &f.Ino)
	c.U64(&f.Size)
	c.I64(&f.Mtime)
	c.U32s(&f.Trimmed, maxItems)
	codec.List(c, &f.Ended, maxItems, 17, func(c *codec.Codec, e *LeaseEnd) {
		c.U32(&e.Index)
		codec.Uint(c, &e.Chunk)
		c.U32((*uint32)(&e.Version))
		c.Bool(&e.Written)
	})
	c.Bool(&f.Kill)
	c.Bool(&f.DropW)
	c.U32(&f.Sets)
	c.U32(&f.Mode)
	c.U32(&f.Uid)
	c.U32(&f.Gid)
	c.I64(&f.Atime)
	c.I64(&f.Ctime)
}

// CommitReply: status codes in the order of Commit.Files, and the attributes after it.
type CommitReply struct {
	Codes []uint32
	Attrs []inode.Attr
}

func (*CommitReply) Kind() Kind { return KindCommitReply }
func (m *CommitReply) Fields(c *codec.Codec) {
	c.U32s(&m.Codes, maxItems)
	codec.List(c, &m.Attrs, maxItems, attrSize, Attr)
}

// Layout asks where chunks are, for reading. It is never queued behind a
// recall. Reply: LayoutReply; chunks that do not exist are left out.
type Layout struct {
	Ino   inode.Ino
	First uint32
	Count uint32
}

func (*Layout) Kind() Kind { return KindLayout }
func (m *Layout) Fields(c *codec.Codec) {
	codec.Uint(c, &m.Ino)
	c.U32(&m.First)
	c.U32(&m.Count)
}

// LayoutReply lists the chunks that exist in the range.
type LayoutReply struct{ Chunks []ChunkLoc }

func (*LayoutReply) Kind() Kind { return KindLayoutReply }
func (m *LayoutReply) Fields(c *codec.Codec) {
	codec.List(c, &m.Chunks, maxItems, chunkLocSize, func(c *codec.Codec, l *ChunkLoc) { l.Fields(c) })
}
