package wire

import (
	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/inode"
)

// SessionOpen begins or takes up a mount's session. After a lost connection the
// mount sends its number and all that must outlive the connection. What it says
// is true at the moment of sending: one that was overtaken by a later one of the
// same session (a greater Try) is refused with Again.
type SessionOpen struct {
	Session  uint64 // 0: a new one
	Try      uint64 // grows with every SessionOpen of the mount
	Host     string // for status
	Mount    string // mount point, for status
	Path     string // directory of the file system that is the mount's root
	ReadOnly bool
	Held     []Held // files that are open or have unwritten data
	Locks    []HeldLock
}

// HeldLock is an advisory lock that a process on the mount's host holds: a master
// that begins to lead knows of none.
type HeldLock struct {
	Ino   inode.Ino
	Owner uint64
	Pid   uint32
	Flock bool
	Type  uint8 // LockRead or LockWrite
	Start uint64
	End   uint64
}

func (l *HeldLock) Fields(c *codec.Codec) {
	codec.Uint(c, &l.Ino)
	c.U64(&l.Owner)
	c.U32(&l.Pid)
	c.Bool(&l.Flock)
	c.U8(&l.Type)
	c.U64(&l.Start)
	c.U64(&l.End)
}

// Held is one inode that a mount cannot forget: it is open there, or the mount
// still has changes of it that the master does not know (right W).
type Held struct {
	Ino    inode.Ino
	Rights inode.Rights
	Open   bool
}

func (*SessionOpen) Kind() Kind { return KindSessionOpen }
func (m *SessionOpen) Fields(c *codec.Codec) {
	c.U64(&m.Session)
	c.U64(&m.Try)
	c.Str(&m.Host, maxText)
	c.Str(&m.Mount, maxText)
	c.Str(&m.Path, maxText)
	c.Bool(&m.ReadOnly)
	codec.List(c, &m.Held, maxItems, 17, func(c *codec.Codec, h *Held) {
		codec.Uint(c, &h.Ino)
		codec.Uint(c, &h.Rights)
		c.Bool(&h.Open)
	})
	codec.List(c, &m.Locks, maxItems, 38, func(c *codec.Codec, l *HeldLock) { l.Fields(c) })
}

// SessionReply grants the session. Rights last until LeaseMillis after the last
// Ping was sent; a mount that cannot reach the master by then drops them all.
// Kept lists the Held inodes whose rights the master confirmed; the rights of
// the others are gone.
type SessionReply struct {
	Session     uint64
	Root        inode.Ino
	LeaseMillis uint32
	Epoch       uint64
	Cluster     string
	Kept        []Held
}

func (*SessionReply) Kind() Kind { return KindSessionReply }
func (m *SessionReply) Fields(c *codec.Codec) {
	c.U64(&m.Session)
	codec.Uint(c, &m.Root)
	c.U32(&m.LeaseMillis)
	c.U64(&m.Epoch)
	c.Str(&m.Cluster, maxText)
	codec.List(c, &m.Kept, maxItems, 17, func(c *codec.Codec, h *Held) {
		codec.Uint(c, &h.Ino)
		codec.Uint(c, &h.Rights)
		c.Bool(&h.Open)
	})
}

// SessionClose ends a session cleanly: rights, locks and open files are given up. Reply: Empty.
type SessionClose struct{}

func (*SessionClose) Kind() Kind          { return KindSessionClose }
func (*SessionClose) Fields(*codec.Codec) {}

// Ping renews the session lease. Reply: Empty.
type Ping struct{}

func (*Ping) Kind() Kind          { return KindPing }
func (*Ping) Fields(*codec.Codec) {}

// Recall is a call of the master to a mount that holds rights somebody else's
// request conflicts with. The mount answers with RecallReply when it no longer
// uses what was recalled and has told the master all it did under it.
type Recall struct{ Items []RecallItem }

// RecallItem: the mount may keep the rights Keep on Ino. When Names is not
// empty, only these names in directory Ino have changed and D is kept but for
// them (a complete listing is void).
type RecallItem struct {
	Ino   inode.Ino
	Keep  inode.Rights
	Names []string
}

func (*Recall) Kind() Kind { return KindRecall }
func (m *Recall) Fields(c *codec.Codec) {
	codec.List(c, &m.Items, maxItems, 20, func(c *codec.Codec, r *RecallItem) {
		codec.Uint(c, &r.Ino)
		codec.Uint(c, &r.Keep)
		codec.List(c, &r.Names, maxItems, 4, func(c *codec.Codec, s *string) { c.Str(s, maxName) })
	})
}

// RecallReply lists those of the recalled inodes that are open in the mount:
// the master keeps them when their last name goes, until Release.
type RecallReply struct{ Open []inode.Ino }

func (*RecallReply) Kind() Kind { return KindRecallReply }
func (m *RecallReply) Fields(c *codec.Codec) {
	codec.List(c, &m.Open, maxItems, 8, func(c *codec.Codec, i *inode.Ino) { codec.Uint(c, i) })
}
