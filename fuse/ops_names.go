package fuse

import (
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/wire"
)

// make makes an inode of any kind but an open file.
func (f *fileSystem) make(cancel <-chan struct{}, h *gofuse.InHeader, m wire.Make, out *gofuse.EntryOut) (code gofuse.Status) {
	defer f.meters.observe(opMake, time.Now(), &code)
	if len(m.Name) > inode.NameMax {
		return nameTooLong
	}
	m.Parent = f.nodes.ino(h.NodeId)
	m.Uid, m.Gid = h.Uid, h.Gid
	f.dirs.beginChange(m.Parent)
	ctx := f.context(cancel, h)
	n, err := f.client.Make(ctx, m)
	cacheable := f.dirs.endChange(m.Parent)
	if ctx.killed() {
		f.forget(0, entryName{m.Parent, m.Name})
	}
	if err != nil {
		return statusOf(err)
	}
	f.fillEntry(out, &n, cacheable)
	return gofuse.OK
}

// Mknod makes a file, a device, a FIFO or a socket.
func (f *fileSystem) Mknod(cancel <-chan struct{}, in *gofuse.MknodIn, name string, out *gofuse.EntryOut) gofuse.Status {
	return f.make(cancel, &in.InHeader, wire.Make{
		Name: name, What: inode.KindOf(in.Mode), Mode: in.Mode & 0o7777, Umask: in.Umask, Rdev: in.Rdev,
	}, out)
}

// Mkdir makes a directory.
func (f *fileSystem) Mkdir(cancel <-chan struct{}, in *gofuse.MkdirIn, name string, out *gofuse.EntryOut) gofuse.Status {
	return f.make(cancel, &in.InHeader, wire.Make{
		Name: name, What: inode.Dir, Mode: in.Mode & 0o7777, Umask: in.Umask,
	}, out)
}

// Symlink makes a symbolic link.
func (f *fileSystem) Symlink(cancel <-chan struct{}, h *gofuse.InHeader, target, name string, out *gofuse.EntryOut) gofuse.Status {
	if len(target) > inode.TargetMax {
		return nameTooLong
	}
	return f.make(cancel, h, wire.Make{Name: name, What: inode.Symlink, Mode: 0o777, Target: target}, out)
}

// Readlink reads a symbolic link. The kernel keeps the answer: it never changes.
func (f *fileSystem) Readlink(cancel <-chan struct{}, h *gofuse.InHeader) (target []byte, code gofuse.Status) {
	defer f.meters.observe(opReadlink, time.Now(), &code)
	target, err := f.client.Readlink(f.context(cancel, h), f.nodes.ino(h.NodeId))
	return target, statusOfInode(err)
}

// Link gives an inode one more name.
func (f *fileSystem) Link(cancel <-chan struct{}, in *gofuse.LinkIn, name string, out *gofuse.EntryOut) (code gofuse.Status) {
	defer f.meters.observe(opLink, time.Now(), &code)
	if len(name) > inode.NameMax {
		return nameTooLong
	}
	parent := f.nodes.ino(in.NodeId)
	f.dirs.beginChange(parent)
	ctx, ino := f.context(cancel, &in.InHeader), f.nodes.ino(in.Oldnodeid)
	n, err := f.client.Link(ctx, ino, parent, name)
	cacheable := f.dirs.endChange(parent)
	if ctx.killed() {
		f.forget(ino, entryName{parent, name})
	}
	if err != nil {
		return statusOf(err)
	}
	f.fillEntry(out, &n, cacheable)
	return gofuse.OK
}

// Unlink takes a name away, Rmdir that of an empty directory.
func (f *fileSystem) Unlink(cancel <-chan struct{}, h *gofuse.InHeader, name string) gofuse.Status {
	return f.remove(cancel, h, name, false)
}

func (f *fileSystem) Rmdir(cancel <-chan struct{}, h *gofuse.InHeader, name string) gofuse.Status {
	return f.remove(cancel, h, name, true)
}

func (f *fileSystem) remove(cancel <-chan struct{}, h *gofuse.InHeader, name string, dir bool) (code gofuse.Status) {
	defer f.meters.observe(opRemove, time.Now(), &code)
	if len(name) > inode.NameMax {
		return nameTooLong
	}
	parent := f.nodes.ino(h.NodeId)
	f.dirs.beginChange(parent)
	defer f.dirs.endChange(parent)
	ctx := f.context(cancel, h)
	code = statusOf(f.client.Remove(ctx, parent, name, dir))
	if ctx.killed() {
		f.forget(0, entryName{parent, name})
	}
	return code
}

// Rename moves a name, with the flags of renameat2(2).
func (f *fileSystem) Rename(cancel <-chan struct{}, in *gofuse.RenameIn, name, newName string) (code gofuse.Status) {
	defer f.meters.observe(opRename, time.Now(), &code)
	if len(name) > inode.NameMax || len(newName) > inode.NameMax {
		return nameTooLong
	}
	if in.Flags&^(wire.RenameNoReplace|wire.RenameExchange|wire.RenameWhiteout) != 0 {
		return gofuse.Status(unix.EINVAL)
	}
	from, to := f.nodes.ino(in.NodeId), f.nodes.ino(in.Newdir)
	f.dirs.beginChange(from)
	defer f.dirs.endChange(from)
	if to != from {
		f.dirs.beginChange(to)
		defer f.dirs.endChange(to)
	}
	ctx := f.context(cancel, &in.InHeader)
	code = statusOf(f.client.Rename(ctx, from, name, to, newName, in.Flags))
	if ctx.killed() {
		f.forget(0, entryName{from, name}, entryName{to, newName})
	}
	return code
}
