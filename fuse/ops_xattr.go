package fuse

import (
	"strings"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/inode"
)

// Names that the kernel itself asks for, on nearly every file.
const (
	xattrCaps       = "security.capability"
	xattrACL        = "system.posix_acl_access"
	xattrDefaultACL = "system.posix_acl_default"
)

const notSupported = gofuse.Status(unix.EOPNOTSUPP)

// xattrFlag is the attribute bit without which name cannot be set.
func xattrFlag(name string) uint8 {
	switch name {
	case xattrCaps:
		return inode.HasCaps
	case xattrACL, xattrDefaultACL:
		return inode.HasACL
	}
	return inode.HasXattr
}

// checkXattrName refuses what no Linux file system stores.
func checkXattrName(name string) gofuse.Status {
	if len(name) > inode.NameMax {
		return gofuse.ERANGE
	}
	space, rest, _ := strings.Cut(name, ".")
	switch space {
	case "user", "trusted", "security":
		if rest == "" {
			return gofuse.EINVAL
		}
		return gofuse.OK
	}
	if name == xattrACL || name == xattrDefaultACL {
		return gofuse.OK
	}
	return notSupported
}

// GetXAttr answers most questions from the inode's flags, which come with its
// attributes: files without any extended attribute cost no trip to the master.
func (f *fileSystem) GetXAttr(cancel <-chan struct{}, h *gofuse.InHeader, name string, dest []byte) (n uint32, code gofuse.Status) {
	defer f.meters.observe(opXattr, time.Now(), &code)
	if code = checkXattrName(name); code != gofuse.OK {
		return 0, code
	}
	ino := f.nodes.ino(h.NodeId)
	ctx := f.context(cancel, h)
	node, err := f.client.GetAttr(ctx, ino)
	if err != nil {
		return 0, statusOfInode(err)
	}
	if node.Attr.Flags&xattrFlag(name) == 0 {
		return 0, gofuse.ENODATA
	}
	value, err := f.client.GetXattr(ctx, ino, name)
	if err != nil {
		return 0, statusOfInode(err)
	}
	return fit(dest, value)
}

// ListXAttr lists the names, each ended by a zero byte.
func (f *fileSystem) ListXAttr(cancel <-chan struct{}, h *gofuse.InHeader, dest []byte) (n uint32, code gofuse.Status) {
	defer f.meters.observe(opXattr, time.Now(), &code)
	ino := f.nodes.ino(h.NodeId)
	ctx := f.context(cancel, h)
	node, err := f.client.GetAttr(ctx, ino)
	if err != nil {
		return 0, statusOfInode(err)
	}
	if node.Attr.Flags&(inode.HasXattr|inode.HasACL|inode.HasCaps) == 0 {
		return 0, gofuse.OK
	}
	names, err := f.client.ListXattr(ctx, ino)
	if err != nil {
		return 0, statusOfInode(err)
	}
	return fit(dest, names)
}

// fit copies value to dest. go-fuse turns the ERANGE of an empty dest into the
// answer "this many bytes".
func fit(dest, value []byte) (uint32, gofuse.Status) {
	if len(dest) < len(value) {
		return uint32(len(value)), gofuse.ERANGE
	}
	return uint32(copy(dest, value)), gofuse.OK
}

// SetXAttr sets one attribute; the flags are those of setxattr(2).
func (f *fileSystem) SetXAttr(cancel <-chan struct{}, in *gofuse.SetXAttrIn, name string, data []byte) (code gofuse.Status) {
	defer f.meters.observe(opXattr, time.Now(), &code)
	if code = checkXattrName(name); code != gofuse.OK {
		return code
	}
	if len(data) > inode.XattrMax {
		return gofuse.Status(unix.E2BIG)
	}
	value := append([]byte(nil), data...) // data is go-fuse's again when this returns
	kill := in.SetXAttrFlags&gofuse.SETXATTR_ACL_KILL_SGID != 0
	ctx, ino := f.context(cancel, &in.InHeader), f.nodes.ino(in.NodeId)
	code = statusOfInode(f.client.SetXattr(ctx, ino, name, value, in.Flags, kill))
	if ctx.killed() {
		f.forget(ino)
	}
	return code
}

// RemoveXAttr removes one attribute.
func (f *fileSystem) RemoveXAttr(cancel <-chan struct{}, h *gofuse.InHeader, name string) (code gofuse.Status) {
	defer f.meters.observe(opXattr, time.Now(), &code)
	if code = checkXattrName(name); code != gofuse.OK {
		return code
	}
	ctx, ino := f.context(cancel, h), f.nodes.ino(h.NodeId)
	code = statusOfInode(f.client.RemoveXattr(ctx, ino, name))
	if ctx.killed() {
		f.forget(ino)
	}
	return code
}
