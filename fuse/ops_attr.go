package fuse

import (
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/client"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/wire"
)

const (
	nameTooLong = gofuse.Status(unix.ENAMETOOLONG)
	notTTY      = gofuse.Status(unix.ENOTTY)
)

// GetAttr is stat(2) of an inode that the kernel knows.
func (f *fileSystem) GetAttr(cancel <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) (code gofuse.Status) {
	defer f.meters.observe(opGetAttr, time.Now(), &code)
	n, err := f.getAttr(cancel, &in.InHeader)
	if err != nil {
		return statusOfInode(err)
	}
	out.SetTimeout(f.attrTTL(&n))
	fillAttr(&out.Attr, &n.Attr)
	return gofuse.OK
}

// getAttr answers only when what the kernel does with a directory's attributes
// is in order: it follows names in it.
func (f *fileSystem) getAttr(cancel <-chan struct{}, h *gofuse.InHeader) (client.Node, error) {
	ino := f.nodes.ino(h.NodeId)
	ctx := f.context(cancel, h)
	f.dirs.awaitExpired(ctx, ino, func() bool { return onlyLooks(h.Pid) })
	return f.client.GetAttr(ctx, ino)
}

// Statx is asked for when somebody wants to know the time of birth.
func (f *fileSystem) Statx(cancel <-chan struct{}, in *gofuse.StatxIn, out *gofuse.StatxOut) (code gofuse.Status) {
	defer f.meters.observe(opGetAttr, time.Now(), &code)
	n, err := f.getAttr(cancel, &in.InHeader)
	if err != nil {
		return statusOfInode(err)
	}
	out.SetTimeout(f.attrTTL(&n))
	fillStatx(&out.Statx, &n.Attr)
	return gofuse.OK
}

// SetAttr is chmod, chown, truncate, utimensat.
func (f *fileSystem) SetAttr(cancel <-chan struct{}, in *gofuse.SetAttrIn, out *gofuse.AttrOut) (code gofuse.Status) {
	defer f.meters.observe(opSetAttr, time.Now(), &code)
	ctx, ino := f.context(cancel, &in.InHeader), f.nodes.ino(in.NodeId)
	n, err := f.client.SetAttr(ctx, ino, setAttr(in))
	if ctx.killed() {
		f.forget(ino)
	}
	if err != nil {
		return statusOfInode(err)
	}
	// Unlike any other reply, that of a SETATTR makes attributes valid even if
	// they were invalidated while it was on its way; see dirs.awaitExpired.
	if n.Attr.Kind != inode.Dir {
		out.SetTimeout(ttl(n.AttrTTL))
	}
	fillAttr(&out.Attr, &n.Attr)
	return gofuse.OK
}

// setAttr translates the kernel's request. FATTR_CTIME is not looked at: it
// comes only with the write-back cache, which is off.
func setAttr(in *gofuse.SetAttrIn) wire.SetAttr {
	s := wire.SetAttr{
		Mode:  in.Mode & 0o7777,
		Uid:   in.Uid,
		Gid:   in.Gid,
		Size:  in.Size,
		Atime: join(in.Atime, in.Atimensec),
		Mtime: join(in.Mtime, in.Mtimensec),
	}
	for _, b := range []struct {
		kernel, ours uint32
	}{
		{gofuse.FATTR_MODE, wire.SetMode},
		{gofuse.FATTR_UID, wire.SetUid},
		{gofuse.FATTR_GID, wire.SetGid},
		{gofuse.FATTR_SIZE, wire.SetSize},
		{gofuse.FATTR_ATIME, wire.SetAtime},
		{gofuse.FATTR_MTIME, wire.SetMtime},
		{gofuse.FATTR_KILL_SUIDGID, wire.SetKill},
	} {
		if in.Valid&b.kernel != 0 {
			s.Valid |= b.ours
		}
	}
	// "Now" is a time of its own, not a flag on the other one.
	if in.Valid&gofuse.FATTR_ATIME_NOW != 0 {
		s.Valid = s.Valid&^wire.SetAtime | wire.SetAtimeNow
	}
	if in.Valid&gofuse.FATTR_MTIME_NOW != 0 {
		s.Valid = s.Valid&^wire.SetMtime | wire.SetMtimeNow
	}
	return s
}
