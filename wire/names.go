package wire

import (
	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/inode"
)

// Every request that changes something is executed at most once: the master
// remembers the replies to a session's last requests by Seq, so that a mount
// may send it again after a reconnect. Seq starts at 1 and grows by 1 for each
// new changing request of the session; Done is the highest Seq up to which the
// mount has all replies.
type Once struct {
	Seq  uint64
	Done uint64
}

func (o *Once) fields(c *codec.Codec) {
	c.U64(&o.Seq)
	c.U64(&o.Done)
}

// OnceOf is how link's users reach the Once of a changing request.
func (o *Once) OnceOf() *Once { return o }

// Early is part of the changes that a mount may answer before the master has
// logged them, because it has right W on the directory.
type Early struct {
	Time int64 // when it happened by the mount's clock, ns since 1970; 0: when it is logged
	Want bool  // W on the directories is wanted, and on a directory that is made
}

func (e *Early) fields(c *codec.Codec) {
	c.I64(&e.Time)
	c.Bool(&e.Want)
}

// EarlyOf is how the client reaches the Early of a change.
func (e *Early) EarlyOf() *Early { return e }

// Reserve asks for inode numbers for inodes that the mount will make. Reply:
// ReserveReply; an empty one is the answer to a request that was sent again.
type Reserve struct {
	Once
	Count uint32
}

func (*Reserve) Kind() Kind { return KindReserve }
func (m *Reserve) Fields(c *codec.Codec) {
	m.Once.fields(c)
	c.U32(&m.Count)
}

// ReserveReply has the numbers.
type ReserveReply struct{ Inos []inode.Ino }

func (*ReserveReply) Kind() Kind { return KindReserveReply }
func (m *ReserveReply) Fields(c *codec.Codec) {
	codec.List(c, &m.Inos, maxItems, 8, func(c *codec.Codec, i *inode.Ino) { codec.Uint(c, i) })
}

// Lookup asks for a name. Reply: EntryReply; a name that does not exist is a
// reply with Found false, so that its absence can be cached under D.
type Lookup struct {
	Parent inode.Ino
	Name   string
}

func (*Lookup) Kind() Kind { return KindLookup }
func (m *Lookup) Fields(c *codec.Codec) {
	codec.Uint(c, &m.Parent)
	c.Str(&m.Name, maxName)
}

// EntryReply answers Lookup, Make, Link. Rights are now held on the inode,
// DirRights on the parent. Parent attributes are present after a change.
// Chunks holds the first chunk of a small file or, for a file just made and
// opened, its first chunk under a write lease (Lease true, with right W).
type EntryReply struct {
	Found     bool
	Attr      inode.Attr
	Rights    inode.Rights
	DirRights inode.Rights
	Changed   bool // ParentAttr is present
	Parent    inode.Attr
	Lease     bool
	Chunks    []ChunkLoc
	Target    []byte // of a symbolic link
}

func (*EntryReply) Kind() Kind { return KindEntryReply }
func (m *EntryReply) Fields(c *codec.Codec) {
	c.Bool(&m.Found)
	if m.Found {
		Attr(c, &m.Attr)
	}
	codec.Uint(c, &m.Rights)
	codec.Uint(c, &m.DirRights)
	c.Bool(&m.Changed)
	if m.Changed {
		Attr(c, &m.Parent)
	}
	c.Bool(&m.Lease)
	codec.List(c, &m.Chunks, maxItems, chunkLocSize, func(c *codec.Codec, l *ChunkLoc) { l.Fields(c) })
	c.Bytes(&m.Target, maxText)
}

// Make creates an inode of any kind under Name; an empty Name makes a file
// without a name (O_TMPFILE) that lives while it is open. Umask is applied by
// the master unless the parent has a default ACL. An existing name is status
// Exists. With Open the mount holds the new file open, gets right W, and, when
// Lease is set, a write lease for its first chunk. A mount that has answered its
// program already says which number (Ino, one that Reserve gave it), goal and
// time the inode has. Reply: EntryReply.
type Make struct {
	Once
	Parent inode.Ino
	Name   string
	What   inode.Kind
	Mode   uint32 // 07777
	Umask  uint32
	Uid    uint32
	Gid    uint32
	Rdev   uint32
	Target string
	Open   bool
	Lease  bool
	Early
	Ino  inode.Ino // 0: any
	Goal uint8     // of Parent, which the master may not know yet; 0: as known
}

func (*Make) Kind() Kind { return KindMake }
func (m *Make) Fields(c *codec.Codec) {
	m.Once.fields(c)
	codec.Uint(c, &m.Parent)
	c.Str(&m.Name, maxName)
	c.U8((*uint8)(&m.What))
	c.U32(&m.Mode)
	c.U32(&m.Umask)
	c.U32(&m.Uid)
	c.U32(&m.Gid)
	c.U32(&m.Rdev)
	c.Str(&m.Target, maxText)
	c.Bool(&m.Open)
	c.Bool(&m.Lease)
	m.Early.fields(c)
	codec.Uint(c, &m.Ino)
	c.U8(&m.Goal)
}

// Remove is unlink(2), or rmdir(2) when Dir is set. Ino is the inode that the
// mount believes the name to have (0: unknown) and Open whether it is open in
// this mount; when Ino is wrong or unknown the master takes it for open, and
// the mount sends Release if it is not. Reply: RemoveReply.
type Remove struct {
	Once
	Parent inode.Ino
	Name   string
	Dir    bool
	Ino    inode.Ino
	Open   bool
	Early
}

func (*Remove) Kind() Kind { return KindRemove }
func (m *Remove) Fields(c *codec.Codec) {
	m.Once.fields(c)
	codec.Uint(c, &m.Parent)
	c.Str(&m.Name, maxName)
	c.Bool(&m.Dir)
	codec.Uint(c, &m.Ino)
	c.Bool(&m.Open)
	m.Early.fields(c)
}

// RemoveReply: Attr is the removed inode's, with its new link count; Rights are
// those still held on it (R while it has other names or is open). Orphan says
// that the master keeps it for this session until Release. DirRights are held on
// the directory.
type RemoveReply struct {
	Attr   inode.Attr
	Rights inode.Rights
	Orphan bool
	Parent inode.Attr

	DirRights inode.Rights
}

func (*RemoveReply) Kind() Kind { return KindRemoveReply }
func (m *RemoveReply) Fields(c *codec.Codec) {
	Attr(c, &m.Attr)
	codec.Uint(c, &m.Rights)
	c.Bool(&m.Orphan)
	Attr(c, &m.Parent)
	codec.Uint(c, &m.DirRights)
}

// Rename flags, as in renameat2(2).
const (
	RenameNoReplace = 1
	RenameExchange  = 2
	RenameWhiteout  = 4
)

// Rename moves a name. Ino and Open speak of the inode that the new name had,
// as in Remove. Reply: RenameReply.
type Rename struct {
	Once
	Parent    inode.Ino
	Name      string
	NewParent inode.Ino
	NewName   string
	Flags     uint32
	Ino       inode.Ino
	Open      bool
	Early
}

func (*Rename) Kind() Kind { return KindRename }
func (m *Rename) Fields(c *codec.Codec) {
	m.Once.fields(c)
	codec.Uint(c, &m.Parent)
	c.Str(&m.Name, maxName)
	codec.Uint(c, &m.NewParent)
	c.Str(&m.NewName, maxName)
	c.U32(&m.Flags)
	codec.Uint(c, &m.Ino)
	c.Bool(&m.Open)
	m.Early.fields(c)
}

// RenameReply: Moved is the inode that moved; Gone, when Replaced is set, the
// one whose name was taken (after RenameExchange: the other one that moved).
type RenameReply struct {
	Moved     inode.Attr
	Rights    inode.Rights // on Moved
	Replaced  bool
	Gone      inode.Attr
	Orphan    bool
	Parent    inode.Attr
	NewParent inode.Attr

	DirRights    inode.Rights // on Parent
	NewDirRights inode.Rights
}

func (*RenameReply) Kind() Kind { return KindRenameReply }
func (m *RenameReply) Fields(c *codec.Codec) {
	Attr(c, &m.Moved)
	codec.Uint(c, &m.Rights)
	c.Bool(&m.Replaced)
	Attr(c, &m.Gone)
	c.Bool(&m.Orphan)
	Attr(c, &m.Parent)
	Attr(c, &m.NewParent)
	codec.Uint(c, &m.DirRights)
	codec.Uint(c, &m.NewDirRights)
}

// Link gives Ino another name. Reply: EntryReply.
type Link struct {
	Once
	Ino    inode.Ino
	Parent inode.Ino
	Name   string
}

func (*Link) Kind() Kind { return KindLink }
func (m *Link) Fields(c *codec.Codec) {
	m.Once.fields(c)
	codec.Uint(c, &m.Ino)
	codec.Uint(c, &m.Parent)
	c.Str(&m.Name, maxName)
}

// Readlink asks for a symbolic link's target. Reply: BytesReply.
type Readlink struct{ Ino inode.Ino }

func (*Readlink) Kind() Kind              { return KindReadlink }
func (m *Readlink) Fields(c *codec.Codec) { codec.Uint(c, &m.Ino) }

// ReadDir asks for entries behind Cookie (0: from the start; "." and ".." are
// not listed). The youngest name comes first, so that names made meanwhile never
// make a listing endless: cookies go down. Reply: ReadDirReply.
type ReadDir struct {
	Ino    inode.Ino
	Cookie uint64
	Max    uint32 // entries
}

func (*ReadDir) Kind() Kind { return KindReadDir }
func (m *ReadDir) Fields(c *codec.Codec) {
	codec.Uint(c, &m.Ino)
	c.U64(&m.Cookie)
	c.U32(&m.Max)
}

// DirEntry is one name with its inode. Cookie continues behind it and stays
// valid while names come and go. Rights are now held on the inode.
type DirEntry struct {
	Name   string
	Cookie uint64
	Attr   inode.Attr
	Rights inode.Rights
}

// ReadDirReply: End says that nothing follows. DirRights are held on the directory.
type ReadDirReply struct {
	DirRights inode.Rights
	Parent    inode.Ino // of the directory, for ".."
	End       bool
	Entries   []DirEntry
}

func (*ReadDirReply) Kind() Kind { return KindReadDirReply }
func (m *ReadDirReply) Fields(c *codec.Codec) {
	codec.Uint(c, &m.DirRights)
	codec.Uint(c, &m.Parent)
	c.Bool(&m.End)
	codec.List(c, &m.Entries, maxEntries, 4+8+attrSize+8, func(c *codec.Codec, e *DirEntry) {
		c.Str(&e.Name, maxName)
		c.U64(&e.Cookie)
		Attr(c, &e.Attr)
		codec.Uint(c, &e.Rights)
	})
}
