package state

import (
	"fmt"

	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/inode"
)

// What a SetAttr sets. The numbers are those of the protocol.
const (
	SetMode = 1 << iota
	SetUid
	SetGid
	SetSize
	SetAtime
	SetMtime
	SetAtimeNow
	SetMtimeNow
	SetCtime // to Mtime's moment instead of the entry's
	SetKill  // clear suid, sgid (when group-executable) and security.capability
	SetGoal
	SetTrash
)

// Flags of SetXattr, as in setxattr(2).
const (
	XattrCreate  = 1
	XattrReplace = 2
)

// Names of the extended attributes that mean something here.
const (
	XattrAccess  = "system.posix_acl_access"
	XattrDefault = "system.posix_acl_default"
	XattrCaps    = "security.capability"
)

// SetAttr changes attributes of one inode. A smaller Size frees the chunks
// behind it and notes in the last one how many of its bytes count. A change of
// owner clears suid and sgid as chown(2) does. Result: Ino.
type SetAttr struct {
	Ino   inode.Ino
	Valid uint32 // SetMode ...
	Mode  uint32
	Uid   uint32
	Gid   uint32
	Size  uint64
	Atime int64
	Mtime int64
	Goal  uint8
	Trash uint32 // seconds
	Time  int64  // when the mount did it, ns since 1970; 0: the entry's
}

// Code is OpSetAttr.
func (*SetAttr) Code() OpCode { return OpSetAttr }

// Fields encodes and decodes.
func (o *SetAttr) Fields(c *codec.Codec) {
	codec.Uint(c, &o.Ino)
	c.U32(&o.Valid)
	c.U32(&o.Mode)
	c.U32(&o.Uid)
	c.U32(&o.Gid)
	c.U64(&o.Size)
	c.I64(&o.Atime)
	c.I64(&o.Mtime)
	c.U8(&o.Goal)
	c.U32(&o.Trash)
	c.I64(&o.Time)
}

func (o *SetAttr) String() string {
	return fmt.Sprintf("ATTR(%d,0x%x,%04o,%d,%d,%d,%d,%d,%d,%d%s)", o.Ino, o.Valid, o.Mode, o.Uid, o.Gid, o.Size, o.Atime, o.Mtime, o.Goal, o.Trash, own(0, o.Time))
}

// SetMany sets goal or trash time of many inodes: a step of a recursive change.
// Inodes that no longer exist are passed over. Result: Count.
type SetMany struct {
	Inos  []inode.Ino
	Valid uint32 // SetGoal, SetTrash
	Goal  uint8
	Trash uint32 // seconds
}

// Code is OpSetMany.
func (*SetMany) Code() OpCode { return OpSetMany }

// Fields encodes and decodes.
func (o *SetMany) Fields(c *codec.Codec) {
	inoFields(c, &o.Inos)
	c.U32(&o.Valid)
	c.U8(&o.Goal)
	c.U32(&o.Trash)
}

func (o *SetMany) String() string {
	return fmt.Sprintf("SETMANY(%s,0x%x,%d,%d)", list(o.Inos), o.Valid, o.Goal, o.Trash)
}

// SetXattr sets one extended attribute. An access ACL also sets the mode's
// permission bits and is not stored when they say the same. Result: Ino.
type SetXattr struct {
	Ino   inode.Ino
	Name  string
	Value []byte
	Flags uint32 // XattrCreate, XattrReplace
	Kill  bool   // clear sgid
}

// Code is OpSetXattr.
func (*SetXattr) Code() OpCode { return OpSetXattr }

// Fields encodes and decodes.
func (o *SetXattr) Fields(c *codec.Codec) {
	codec.Uint(c, &o.Ino)
	c.Str(&o.Name, maxName)
	c.Bytes(&o.Value, maxXattr)
	c.U32(&o.Flags)
	c.Bool(&o.Kill)
}

func (o *SetXattr) String() string {
	return fmt.Sprintf("SETXATTR(%d,%s,%s,%d,%s)", o.Ino, escape(o.Name), escape(string(o.Value)), o.Flags, flags("k", o.Kill))
}

// RemoveXattr removes one extended attribute. Result: Ino.
type RemoveXattr struct {
	Ino  inode.Ino
	Name string
}

// Code is OpRemoveXattr.
func (*RemoveXattr) Code() OpCode { return OpRemoveXattr }

// Fields encodes and decodes.
func (o *RemoveXattr) Fields(c *codec.Codec) {
	codec.Uint(c, &o.Ino)
	c.Str(&o.Name, maxName)
}

func (o *RemoveXattr) String() string {
	return fmt.Sprintf("REMOVEXATTR(%d,%s)", o.Ino, escape(o.Name))
}
