// Package inode holds the nouns of the name space: inode numbers, kinds,
// attributes, the limits of names, and the rights that a mount can hold.
//
// Everybody imports it; it imports nobody and owns no state.
package inode

import "fmt"

// Ino is an inode number. They are never reused.
type Ino uint64

// Root is the inode number of the top directory. It is 1, as FUSE expects.
const Root Ino = 1

func (i Ino) String() string { return fmt.Sprintf("%d", uint64(i)) }

// Kind is the type of an inode.
type Kind uint8

// Kinds of inodes. The numbers are on disk and on the wire: append only.
const (
	File Kind = iota + 1
	Dir
	Symlink
	FIFO
	Socket
	CharDev
	BlockDev
)

var kindNames = [...]string{"none", "file", "dir", "symlink", "fifo", "socket", "chardev", "blockdev"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// ModeType gives the S_IF... bits of a kind.
func (k Kind) ModeType() uint32 {
	switch k {
	case Dir:
		return 0o040000
	case Symlink:
		return 0o120000
	case FIFO:
		return 0o010000
	case Socket:
		return 0o140000
	case CharDev:
		return 0o020000
	case BlockDev:
		return 0o060000
	}
	return 0o100000
}

// KindOf gives the kind for the S_IF... bits of a mode. No type bits mean a file, as in mknod(2).
func KindOf(mode uint32) Kind {
	switch mode & 0o170000 {
	case 0o040000:
		return Dir
	case 0o120000:
		return Symlink
	case 0o010000:
		return FIFO
	case 0o140000:
		return Socket
	case 0o020000:
		return CharDev
	case 0o060000:
		return BlockDev
	}
	return File
}

// Limits.
const (
	NameMax   = 255       // bytes of one name
	TargetMax = 4095      // bytes of a symbolic link's target
	LinkMax   = 1<<31 - 1 // hard links of one inode
	XattrMax  = 64 << 10  // bytes of one extended attribute's value
	SizeMax   = 1 << 57   // bytes of one file
	GoalMin   = 1
	GoalMax   = 9
)

// Flags of an inode that let a mount answer without asking.
const (
	HasXattr uint8 = 1 << iota // any extended attribute
	HasACL                     // system.posix_acl_access or _default
	HasCaps                    // security.capability
)

// Attr is what stat(2) shows and a little more. Times are nanoseconds since 1970.
type Attr struct {
	Ino    Ino
	Kind   Kind
	Flags  uint8  // HasXattr ...
	Mode   uint32 // permission bits, suid, sgid, sticky: 07777
	Nlink  uint32
	Uid    uint32
	Gid    uint32
	Rdev   uint32
	Goal   uint8
	Size   uint64 // bytes; of a directory: the number of its entries
	Blocks uint64 // 512-byte units in use, not counting copies
	Atime  int64
	Mtime  int64
	Ctime  int64
	Btime  int64
	Trash  uint32 // seconds that a removed file stays in the trash
	Gen    uint64 // raised by every change of this inode
}

// Rights that a session holds on an inode. R and W are for the attributes and
// the bytes of any inode, D is for the names in a directory.
type Rights uint8

// R: attributes, extended attributes, symlink target and pages may be cached.
// W: exclusive; size, mtime and bytes may be changed locally and told later. W includes R.
// D: names in this directory and their absence may be cached.
const (
	R Rights = 1 << iota
	W
	D
)

func (r Rights) String() string {
	s := ""
	for i, c := range "RWD" {
		if r&(1<<i) != 0 {
			s += string(c)
		}
	}
	if s == "" {
		return "-"
	}
	return s
}
