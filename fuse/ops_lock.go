package fuse

import (
	"context"
	"errors"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// lockEnd is how the kernel names the end of a lock that reaches to the end of
// the file (OFFSET_MAX).
const lockEnd = 1<<63 - 1

// GetLk is F_GETLK: who stands in the way of a lock.
func (f *fileSystem) GetLk(cancel <-chan struct{}, in *gofuse.LkIn, out *gofuse.LkOut) (code gofuse.Status) {
	defer f.meters.observe(opLock, time.Now(), &code)
	l, code := lockOf(f.nodes.ino(in.NodeId), in)
	if code != gofuse.OK {
		return code
	}
	l.Test = true
	r, err := f.client.Lock(f.context(cancel, &in.InHeader), l)
	if err != nil {
		return statusOfInode(err)
	}
	out.Lk = gofuse.FileLock{Start: r.Start, End: r.End, Typ: kernelLock(r.Type), Pid: r.Pid}
	return gofuse.OK
}

// SetLk takes or frees a lock without waiting.
func (f *fileSystem) SetLk(cancel <-chan struct{}, in *gofuse.LkIn) (code gofuse.Status) {
	defer f.meters.observe(opLock, time.Now(), &code)
	h := f.open.file(in.Fh)
	if h == nil {
		return gofuse.EBADF
	}
	ctx, since := f.context(cancel, &in.InHeader), h.open.frees()
	code = f.setLock(ctx, h, in, false)
	who := owner{id: in.Owner, flock: in.LkFlags&gofuse.LK_FLOCK != 0}
	if code == gofuse.EAGAIN && h.open.awaitFree(ctx, who, since) {
		code = f.setLock(ctx, h, in, false)
	}
	return code
}

// SetLkw waits for the lock until it is interrupted.
func (f *fileSystem) SetLkw(cancel <-chan struct{}, in *gofuse.LkIn) (code gofuse.Status) {
	defer f.meters.observe(opLock, time.Now(), &code)
	ctx, stop := context.WithCancel(f.context(cancel, &in.InHeader))
	defer stop()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-cancel:
			stop()
		case <-done:
		}
	}()
	h := f.open.file(in.Fh)
	if h == nil {
		return gofuse.EBADF
	}
	return f.setLock(ctx, h, in, true)
}

// setLock asks for the lock.
func (f *fileSystem) setLock(ctx context.Context, h *handle, in *gofuse.LkIn, wait bool) gofuse.Status {
	l, code := lockOf(h.ino, in)
	if code != gofuse.OK {
		return code
	}
	l.Wait = wait
	who := owner{id: in.Owner, flock: l.Flock}
	if l.Type == wire.LockFree && !h.open.owns(who) {
		return gofuse.OK
	}
	if l.Type != wire.LockFree {
		// Before it is had: when the wait is broken off while the lock is
		// being granted, the close of the file still frees it.
		h.open.own(who, in.Fh)
	}
	_, err := f.client.Lock(ctx, l)
	if errors.Is(err, status.Interrupted) {
		return gofuse.EINTR
	}
	return statusOfInode(err)
}

// unlock frees all that an owner has locked in a file.
func (f *fileSystem) unlock(ctx context.Context, ino inode.Ino, who owner) {
	l := wire.Lock{Ino: ino, Owner: who.id, Flock: who.flock, Type: wire.LockFree, End: lockEnd}
	if _, err := f.client.Lock(ctx, l); err != nil {
		f.log.Warn("unlock", "inode", ino, "err", err)
	}
}

// lockOf translates the kernel's request.
func lockOf(ino inode.Ino, in *gofuse.LkIn) (wire.Lock, gofuse.Status) {
	l := wire.Lock{
		Ino: ino, Owner: in.Owner, Pid: in.Lk.Pid, Flock: in.LkFlags&gofuse.LK_FLOCK != 0,
		Start: in.Lk.Start, End: in.Lk.End,
	}
	switch in.Lk.Typ {
	case unix.F_RDLCK:
		l.Type = wire.LockRead
	case unix.F_WRLCK:
		l.Type = wire.LockWrite
	case unix.F_UNLCK:
		l.Type = wire.LockFree
	default:
		return l, gofuse.EINVAL
	}
	if l.Flock {
		l.Start, l.End = 0, lockEnd
	}
	return l, gofuse.OK
}

func kernelLock(t uint8) uint32 {
	switch t {
	case wire.LockRead:
		return unix.F_RDLCK
	case wire.LockWrite:
		return unix.F_WRLCK
	}
	return unix.F_UNLCK
}
