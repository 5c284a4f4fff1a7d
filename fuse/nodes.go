package fuse

import (
	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/varvefs/varve/inode"
)

// nodes maps inode numbers to the kernel's node ids. They are the same but for
// the mount's root, which the kernel always calls 1.
type nodes struct{ root inode.Ino }

func (n nodes) node(ino inode.Ino) uint64 {
	if ino == n.root {
		return gofuse.FUSE_ROOT_ID
	}
	return uint64(ino)
}

func (n nodes) ino(node uint64) inode.Ino {
	if node == gofuse.FUSE_ROOT_ID {
		return n.root
	}
	return inode.Ino(node)
}
