package fuse

import (
	"context"
	"errors"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/client"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

const errStale = gofuse.Status(unix.ESTALE)

// Open opens a file that exists.
func (f *fileSystem) Open(cancel <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) (code gofuse.Status) {
	defer f.meters.observe(opOpen, time.Now(), &code)
	ino, flags := f.nodes.ino(in.NodeId), in.Flags
	ctx := f.context(cancel, &in.InHeader)
	if flags&unix.O_TRUNC != 0 && in.Mode&gofuse.OPEN_KILL_SUIDGID != 0 {
		// An unprivileged O_TRUNC takes suid and sgid away; the client's
		// open has no word for it.
		cut := wire.SetAttr{Valid: wire.SetSize | wire.SetKill}
		if _, err := f.client.SetAttr(ctx, ino, cut); err != nil {
			if ctx.killed() {
				f.forget(ino)
			}
			return statusOfInode(err)
		}
		flags &^= unix.O_TRUNC
	}
	file, err := f.client.OpenFile(ctx, ino, flags)
	if ctx.killed() {
		if err == nil {
			file.Close()
		}
		if in.Flags&unix.O_TRUNC != 0 {
			f.forget(ino)
		}
		return gofuse.EINTR
	}
	if err != nil {
		return statusOfInode(err)
	}
	f.opened(file, in.Flags, out)
	return gofuse.OK
}

// opened puts an open file into the table and tells the kernel how to treat it.
//
// O_DIRECT and O_APPEND go around the page cache. For O_DIRECT this lets several
// writers work in one file at once. For O_APPEND it is a must: the kernel
// chooses the offset by the size it last saw, and when another mount has
// appended meanwhile the true offset is another one; in the page cache our bytes
// would then hide the other mount's.
func (f *fileSystem) opened(file *client.File, flags uint32, out *gofuse.OpenOut) {
	h := &handle{
		ino:      file.Ino(),
		file:     file,
		direct:   flags&(unix.O_DIRECT|unix.O_APPEND) != 0,
		writable: flags&unix.O_ACCMODE != unix.O_RDONLY,
	}
	h.open = f.inodes.open(h.ino, !h.direct)
	switch {
	case flags&unix.O_DIRECT != 0:
		out.OpenFlags = gofuse.FOPEN_DIRECT_IO | gofuse.FOPEN_PARALLEL_DIRECT_WRITES
	case h.direct:
		out.OpenFlags = gofuse.FOPEN_DIRECT_IO
	case file.KeepCache():
		out.OpenFlags = gofuse.FOPEN_KEEP_CACHE
	}
	out.Fh = f.open.add(h)
}

// Create makes a file and opens it.
func (f *fileSystem) Create(cancel <-chan struct{}, in *gofuse.CreateIn, name string, out *gofuse.CreateOut) (code gofuse.Status) {
	defer f.meters.observe(opMake, time.Now(), &code)
	if len(name) > inode.NameMax {
		return nameTooLong
	}
	m := f.makeFile(in, name)
	f.dirs.beginChange(m.Parent)
	ctx := f.context(cancel, &in.InHeader)
	n, file, err := f.client.Create(ctx, m, in.Flags|unix.O_EXCL)
	if errors.Is(err, status.Exists) && in.Flags&unix.O_EXCL == 0 {
		n, file, err = f.openExisting(ctx, in, m.Parent, name)
	}
	cacheable := f.dirs.endChange(m.Parent)
	if ctx.killed() {
		f.forget(n.Attr.Ino, entryName{m.Parent, name})
		if err == nil {
			file.Close()
			err = status.Interrupted
		}
	}
	if err != nil {
		return statusOf(err)
	}
	f.fillEntry(&out.EntryOut, &n, cacheable)
	f.opened(file, in.Flags, &out.OpenOut)
	return gofuse.OK
}

// Tmpfile makes and opens a file without a name.
func (f *fileSystem) Tmpfile(cancel <-chan struct{}, in *gofuse.CreateIn, out *gofuse.CreateOut) (code gofuse.Status) {
	defer f.meters.observe(opMake, time.Now(), &code)
	ctx := f.context(cancel, &in.InHeader)
	n, file, err := f.client.Create(ctx, f.makeFile(in, ""), in.Flags)
	if err != nil {
		return statusOf(err)
	}
	if ctx.killed() {
		file.Close()
		return gofuse.EINTR
	}
	f.fillEntry(&out.EntryOut, &n, false) // there is no name that could be cached
	f.opened(file, in.Flags, &out.OpenOut)
	return gofuse.OK
}

func (f *fileSystem) makeFile(in *gofuse.CreateIn, name string) wire.Make {
	return wire.Make{
		Parent: f.nodes.ino(in.NodeId), Name: name, What: inode.File,
		Mode: in.Mode & 0o7777, Umask: in.Umask, Uid: in.Uid, Gid: in.Gid, Open: true,
	}
}

// openExisting opens what another mount has made since the kernel last looked.
// The kernel has checked the right to make the file, not the right to open this
// one. Where that is not beyond doubt the answer is ESTALE: the kernel walks the
// path again, finds the file and checks everything itself.
func (f *fileSystem) openExisting(ctx context.Context, in *gofuse.CreateIn, parent inode.Ino, name string) (client.Node, *client.File, error) {
	n, err := f.client.Lookup(ctx, parent, name)
	if err != nil || !mayOpen(&n.Attr, in.Uid, in.Flags) {
		return client.Node{}, nil, status.Stale
	}
	file, err := f.client.OpenFile(ctx, n.Attr.Ino, in.Flags&^unix.O_EXCL)
	if err != nil {
		return client.Node{}, nil, err
	}
	return n, file, nil
}

// mayOpen says whether uid may surely open a file with these flags. It knows
// no groups: others than the owner need what both the group and all others have.
func mayOpen(a *inode.Attr, uid, flags uint32) bool {
	if a.Kind != inode.File {
		return false
	}
	if uid == 0 {
		return true
	}
	var need uint32
	switch flags & unix.O_ACCMODE {
	case unix.O_RDONLY:
		need = 4
	case unix.O_WRONLY:
		need = 2
	default:
		need = 6
	}
	if flags&unix.O_TRUNC != 0 {
		need |= 2
	}
	if a.Uid == uid {
		return a.Mode>>6&need == need
	}
	return a.Flags&inode.HasACL == 0 && a.Mode>>3&need == need && a.Mode&need == need
}

// Flush is close(2) of one descriptor: its process's record locks go, and
// errors of earlier writes are told. A program that is killed is not kept by what it has
// written, which is ours to write, as after a close that did not wait for it.
func (f *fileSystem) Flush(cancel <-chan struct{}, in *gofuse.FlushIn) (code gofuse.Status) {
	defer f.meters.observe(opFlush, time.Now(), &code)
	h := f.open.file(in.Fh)
	if h == nil {
		return gofuse.EBADF
	}
	ctx := f.context(cancel, &in.InHeader)
	ctx.flush = true
	if h.writable {
		code = statusOf(h.file.Flush(ctx))
	}
	if who := (owner{id: in.LockOwner}); h.open.disown(who) {
		f.unlock(steady{ctx}, h.ino, who)
	}
	return code
}

// Release is the end of an open file. Nobody waits for its answer.
func (f *fileSystem) Release(_ <-chan struct{}, in *gofuse.ReleaseIn) {
	code := gofuse.OK
	defer f.meters.observe(opRelease, time.Now(), &code)
	f.awaitLeft(&in.InHeader)
	h := f.open.remove(in.Fh)
	if h == nil || h.file == nil {
		return
	}
	left, freed := h.open.leftovers(in.Fh)
	for _, who := range left {
		f.unlock(f.context(nil, &in.InHeader), h.ino, who)
	}
	freed()
	code = f.closeFile(h)
}

// closeFile ends the use of a handle that is no longer in the table.
func (f *fileSystem) closeFile(h *handle) gofuse.Status {
	err := h.file.Close()
	f.inodes.close(h.open, !h.direct)
	return statusOf(err)
}
