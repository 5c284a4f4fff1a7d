package state

import (
	"fmt"

	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/inode"
)

// Limits of what an entry may hold, checked before anything is allocated. They
// are those of the protocol, so that whatever a mount may ask can be written.
const (
	maxName  = 1024
	maxText  = 4096
	maxXattr = 1 << 20
	maxItems = 65536
)

// Flags of Rename, as in renameat2(2).
const (
	RenameNoReplace = 1
	RenameExchange  = 2
	RenameWhiteout  = 4 // refused: Invalid
)

// Make creates an inode of any kind under Name. An empty Name makes a file
// without a name (O_TMPFILE), which Hold must keep alive. The inode inherits goal
// and trash time, a set-group-ID parent's group, and the default ACL, which
// replaces Umask. Lease makes the file's first chunk, leased to the session. Ino
// is one of the numbers that Reserve gave the session, 0: any. Time is when the
// mount made it, 0: the entry's. Result: Ino, Chunks.
type Make struct {
	Parent inode.Ino
	Name   string
	What   inode.Kind
	Mode   uint32 // 07777
	Umask  uint32
	Uid    uint32
	Gid    uint32
	Rdev   uint32
	Target string
	Hold   bool // Entry.Session has it open
	Lease  bool
	Ino    inode.Ino
	Time   int64 // ns since 1970
}

// Code is OpMake.
func (*Make) Code() OpCode { return OpMake }

// Fields encodes and decodes.
func (o *Make) Fields(c *codec.Codec) {
	codec.Uint(c, &o.Parent)
	c.Str(&o.Name, maxName)
	c.U8((*uint8)(&o.What))
	c.U32(&o.Mode)
	c.U32(&o.Umask)
	c.U32(&o.Uid)
	c.U32(&o.Gid)
	c.U32(&o.Rdev)
	c.Str(&o.Target, maxText)
	c.Bool(&o.Hold)
	c.Bool(&o.Lease)
	codec.Uint(c, &o.Ino)
	c.I64(&o.Time)
}

func (o *Make) String() string {
	return fmt.Sprintf("CREATE(%d,%s,%s,%04o,%04o,%d,%d,%d,%s,%s%s)", o.Parent, escape(o.Name), o.What,
		o.Mode, o.Umask, o.Uid, o.Gid, o.Rdev, escape(o.Target), flags("hl", o.Hold, o.Lease), own(o.Ino, o.Time))
}

// Remove is unlink(2), or rmdir(2) when Dir is set. When the last name goes the
// inode becomes an orphan if any session of Hold exists; otherwise it is gone.
// Result: Ino, Orphan, Last.
type Remove struct {
	Parent inode.Ino
	Name   string
	Dir    bool
	Hold   []uint64 // sessions that have the inode open
	Time   int64    // as in Make
}

// Code is OpRemove.
func (*Remove) Code() OpCode { return OpRemove }

// Fields encodes and decodes.
func (o *Remove) Fields(c *codec.Codec) {
	codec.Uint(c, &o.Parent)
	c.Str(&o.Name, maxName)
	c.Bool(&o.Dir)
	holdFields(c, &o.Hold)
	c.I64(&o.Time)
}

func (o *Remove) String() string {
	name := "UNLINK"
	if o.Dir {
		name = "RMDIR"
	}
	return fmt.Sprintf("%s(%d,%s,%s%s)", name, o.Parent, escape(o.Name), list(o.Hold), own(0, o.Time))
}

// Rename moves a name, as renameat2(2) does. Hold speaks of the inode that the
// new name had. Result: Ino (moved), Gone, Orphan, Last.
type Rename struct {
	Parent    inode.Ino
	Name      string
	NewParent inode.Ino
	NewName   string
	Flags     uint32
	Hold      []uint64
	Time      int64 // as in Make
}

// Code is OpRename.
func (*Rename) Code() OpCode { return OpRename }

// Fields encodes and decodes.
func (o *Rename) Fields(c *codec.Codec) {
	codec.Uint(c, &o.Parent)
	c.Str(&o.Name, maxName)
	codec.Uint(c, &o.NewParent)
	c.Str(&o.NewName, maxName)
	c.U32(&o.Flags)
	holdFields(c, &o.Hold)
	c.I64(&o.Time)
}

func (o *Rename) String() string {
	return fmt.Sprintf("MOVE(%d,%s,%d,%s,%d,%s%s)", o.Parent, escape(o.Name), o.NewParent, escape(o.NewName), o.Flags, list(o.Hold), own(0, o.Time))
}

// Link gives Ino another name. Directories are refused (Perm), and so are
// orphans (NotFound) unless they were made without a name. Result: Ino.
type Link struct {
	Ino    inode.Ino
	Parent inode.Ino
	Name   string
}

// Code is OpLink.
func (*Link) Code() OpCode { return OpLink }

// Fields encodes and decodes.
func (o *Link) Fields(c *codec.Codec) {
	codec.Uint(c, &o.Ino)
	codec.Uint(c, &o.Parent)
	c.Str(&o.Name, maxName)
}

func (o *Link) String() string {
	return fmt.Sprintf("LINK(%d,%d,%s)", o.Ino, o.Parent, escape(o.Name))
}

// own is what a mount has chosen itself, as further arguments of a changelog line.
func own(ino inode.Ino, at int64) (text string) {
	if ino != 0 {
		text = fmt.Sprintf(",ino=%d", ino)
	}
	if at != 0 {
		text += fmt.Sprintf(",at=%d", at)
	}
	return text
}

func holdFields(c *codec.Codec, list *[]uint64) {
	codec.List(c, list, maxItems, 8, func(c *codec.Codec, v *uint64) { c.U64(v) })
}

func inoFields(c *codec.Codec, list *[]inode.Ino) {
	codec.List(c, list, maxItems, 8, func(c *codec.Codec, v *inode.Ino) { codec.Uint(c, v) })
}
