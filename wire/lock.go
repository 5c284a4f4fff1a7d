package wire

import (
	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/inode"
)

// Types of a lock.
const (
	LockRead = iota
	LockWrite
	LockFree
)

// Lock sets, frees or tests an advisory lock: flock(2) when Flock is set, else
// a record lock of fcntl(2) over bytes Start..End (inclusive). Owners are per
// session. With Wait the reply comes when the lock is had, or with Deadlock or
// Interrupted (LockCancel). Reply: LockReply; NotWaited when it is held by others.
type Lock struct {
	Ino   inode.Ino
	Owner uint64
	Pid   uint32
	Flock bool
	Type  uint8
	Start uint64
	End   uint64
	Wait  bool
	Test  bool   // F_GETLK: change nothing, report the conflicting lock
	Token uint64 // names a waiting request for LockCancel
}

func (*Lock) Kind() Kind { return KindLock }
func (m *Lock) Fields(c *codec.Codec) {
	codec.Uint(c, &m.Ino)
	c.U64(&m.Owner)
	c.U32(&m.Pid)
	c.Bool(&m.Flock)
	c.U8(&m.Type)
	c.U64(&m.Start)
	c.U64(&m.End)
	c.Bool(&m.Wait)
	c.Bool(&m.Test)
	c.U64(&m.Token)
}

// LockReply is, after Test, the conflicting lock or Type LockFree. Pid is 0 for
// a lock that another mount holds.
type LockReply struct {
	Type  uint8
	Start uint64
	End   uint64
	Pid   uint32
}

func (*LockReply) Kind() Kind { return KindLockReply }
func (m *LockReply) Fields(c *codec.Codec) {
	c.U8(&m.Type)
	c.U64(&m.Start)
	c.U64(&m.End)
	c.U32(&m.Pid)
}

// LockCancel makes the waiting Lock with this Token fail with Interrupted. Reply: Empty.
type LockCancel struct{ Token uint64 }

func (*LockCancel) Kind() Kind              { return KindLockCancel }
func (m *LockCancel) Fields(c *codec.Codec) { c.U64(&m.Token) }
