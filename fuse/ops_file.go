package fuse

import (
	"context"
	"math"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/client"
)

// read reads into the buffer from which the answer is written.
func (f *fileSystem) read(in *gofuse.ReadIn, buf []byte) (n int, code gofuse.Status) {
	defer f.meters.observe(opRead, time.Now(), &code)
	h := f.open.file(in.Fh)
	if h == nil {
		return 0, gofuse.EBADF
	}
	ctx := f.context(nil, &in.InHeader)
	if h.direct {
		n, err := h.file.ReadAt(ctx, buf, int64(in.Offset))
		f.meters.read.Add(n)
		return n, statusOf(err)
	}
	io := h.open.beginRead(span{int64(in.Offset), int64(in.Offset) + int64(len(buf))}, ctx.Waits)
	n, err := f.fetch(ctx, h, io, buf)
	if err != nil || n == 0 {
		io.arrived() // there are no bytes whose arrival could matter
		return 0, statusOf(err)
	}
	f.meters.read.Add(n)
	f.replies.await(in.Unique, io)
	return n, gofuse.OK
}

// Read is read for go-fuse, which is asked when every request is logged.
func (f *fileSystem) Read(_ <-chan struct{}, in *gofuse.ReadIn, buf []byte) (gofuse.ReadResult, gofuse.Status) {
	n, code := f.read(in, buf)
	if code != gofuse.OK {
		return nil, code // with a result go-fuse would forget the error
	}
	return inPlace(buf[:n]), gofuse.OK
}

// fetch reads for the page cache. The pages stay locked until the kernel has the
// answer. If they are dropped meanwhile, the bytes may be older than what
// dropped them, and are fetched again. In between other mounts had their turn.
func (f *fileSystem) fetch(ctx context.Context, h *handle, io *pageIO, buf []byte) (n int, err error) {
	for {
		io.fetching()
		n, err = h.file.ReadAt(ctx, buf, io.off)
		if err != nil || io.fetched() {
			return n, err
		}
	}
}

// Writev is what go-fuse calls for a WRITE. From /dev/fuse data is one piece.
func (f *fileSystem) Writev(cancel <-chan struct{}, in *gofuse.WriteIn, data [][]byte) (written uint32, code gofuse.Status) {
	defer f.meters.observe(opWrite, time.Now(), &code)
	h := f.open.file(in.Fh)
	if h == nil {
		return 0, gofuse.EBADF
	}
	ctx, w := f.context(cancel, &in.InHeader), f.writeFlags(h, in)
	if h.direct {
		written, code = f.writePieces(ctx, h, in, data, w)
		f.wroteAround(h, in, w.Where, written)
	} else {
		io := h.open.beginWrite(span{int64(in.Offset), int64(in.Offset) + int64(in.Size)})
		written, code = f.writePieces(ctx, h, in, data, w)
		answers, stale := io.carriedOut()
		mapped := in.WriteFlags&gofuse.WRITE_CACHE != 0
		if !mapped { // else the kernel keeps the pages until it has the answer
			f.wroteThrough(h, in.Unique, io, w.Where, answers, stale)
		}
		io.answered(mapped)
	}
	if ctx.killed() {
		f.forget(h.ino)
	}
	f.meters.written.Add(int(written))
	return written, code
}

// writePieces writes until an error; one behind the first piece is not told.
func (f *fileSystem) writePieces(ctx *request, h *handle, in *gofuse.WriteIn, data [][]byte, w client.WriteFlags) (written uint32, code gofuse.Status) {
	for _, p := range data {
		n, err := h.file.WriteAt(ctx, p, int64(in.Offset)+int64(written), w)
		w.Where = nil // the first piece's counts
		written += uint32(n)
		if err != nil && written == 0 {
			return 0, statusOf(err)
		}
		if n < len(p) {
			break
		}
	}
	return written, gofuse.OK
}

// writeFlags translates the kernel's flags. Data from the page cache
// (WRITE_CACHE: pages written through a mapping) has its place and comes with
// the flags of any open file. Sync is only for what goes around the page cache:
// for the rest the kernel sends an FSYNC of its own.
func (f *fileSystem) writeFlags(h *handle, in *gofuse.WriteIn) client.WriteFlags {
	w := client.WriteFlags{Kill: in.WriteFlags&gofuse.WRITE_KILL_SUIDGID != 0}
	if in.WriteFlags&gofuse.WRITE_CACHE != 0 {
		return w
	}
	w.Sync = h.direct && in.Flags&unix.O_DSYNC != 0
	if in.Flags&unix.O_APPEND != 0 {
		w.Append = true
		w.Where = new(int64)
	}
	return w
}

// wroteAround drops pages after a write around the page cache: the kernel has
// dropped them before the write, but a reader may have fetched them again
// meanwhile. The kernel holds no page's lock for this write, so that they are
// gone before the writer goes on. appended is where an append went, else nil.
func (f *fileSystem) wroteAround(h *handle, in *gofuse.WriteIn, appended *int64, n uint32) {
	off, length := int64(in.Offset), int64(n)
	if n == 0 || !h.open.pageCached() {
		return
	}
	if appended != nil {
		off, length = min(off, *appended), wholeFile
	}
	f.turns.yield(in.Unique)
	h.open.refetch() // answers on their way keep their pages locked
	f.notify.drop(h.open, off, length)
}

// wroteThrough drops pages after a write through the page cache where it may
// hold something else than the file:
//
// When a page of the write was dropped before the WRITE was carried out, and was
// read again without its bytes (see pages.go).
//
// When an append by a file whose O_APPEND was set after it was opened did not
// go where the kernel believed the end of the file to be.
//
// The kernel may hold the lock of the last page until it has our answer. Then
// nobody can have read it, and it is dropped behind the answer.
func (f *fileSystem) wroteThrough(h *handle, request uint64, io *pageIO, appended *int64, answers []*pageIO, stale bool) {
	moved := appended != nil && *appended != io.off
	if len(answers) == 0 && !stale && !moved {
		return
	}
	f.turns.yield(request)
	for _, r := range answers {
		<-r.done
	}
	off, length := io.off, io.end-io.off
	if moved {
		off, length = min(off, *appended), wholeFile
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.notify.drop(h.open, off, length)
	}()
	within(ownLockPatience, done)
}

// ownLockPatience is how long a WRITE waits for the drop of its own pages. The
// drop takes that long only when the last page is locked for the very WRITE, so
// that it cannot be stale, or when a reader that has its answer does not get on.
const ownLockPatience = 20 * time.Millisecond

// Lseek answers SEEK_DATA and SEEK_HOLE; the kernel does the rest itself.
func (f *fileSystem) Lseek(cancel <-chan struct{}, in *gofuse.LseekIn, out *gofuse.LseekOut) (code gofuse.Status) {
	defer f.meters.observe(opSeek, time.Now(), &code)
	h := f.open.file(in.Fh)
	if h == nil {
		return gofuse.EBADF
	}
	if in.Whence != client.SeekData && in.Whence != client.SeekHole {
		return gofuse.EINVAL
	}
	off, err := h.file.Seek(f.context(cancel, &in.InHeader), int64(in.Offset), int(in.Whence))
	if err != nil {
		return statusOf(err)
	}
	out.Offset = uint64(off)
	return gofuse.OK
}

// copyMost bounds one copy, so that the copying program can be interrupted.
const copyMost = 256 << 20

// CopyFileRange copies within the file system. It may copy less than asked for.
func (f *fileSystem) CopyFileRange(cancel <-chan struct{}, in *gofuse.CopyFileRangeIn) (written uint32, code gofuse.Status) {
	defer f.meters.observe(opCopy, time.Now(), &code)
	from, to := f.open.file(in.FhIn), f.open.file(in.FhOut)
	if from == nil || to == nil {
		return 0, gofuse.EBADF
	}
	if in.Flags != 0 || in.OffIn > math.MaxInt64 || in.OffOut > math.MaxInt64 {
		return 0, gofuse.EINVAL
	}
	ctx := f.context(cancel, &in.InHeader)
	n, err := f.client.CopyRange(ctx, from.file, int64(in.OffIn), to.file, int64(in.OffOut), int64(min(in.Len, copyMost)))
	if ctx.killed() {
		f.forget(to.ino)
	}
	if err != nil && n == 0 {
		return 0, statusOf(err)
	}
	return uint32(n), gofuse.OK
}

// Fallocate allocates, punches holes and zeroes; the kernel lets no other modes pass.
func (f *fileSystem) Fallocate(cancel <-chan struct{}, in *gofuse.FallocateIn) (code gofuse.Status) {
	defer f.meters.observe(opAllocate, time.Now(), &code)
	h := f.open.file(in.Fh)
	if h == nil {
		return gofuse.EBADF
	}
	if in.Mode&^(client.AllocKeepSize|client.AllocPunchHole|client.AllocZeroRange) != 0 {
		return notSupported
	}
	if in.Offset > math.MaxInt64 || in.Length > math.MaxInt64 {
		return gofuse.EINVAL
	}
	ctx := f.context(cancel, &in.InHeader)
	code = statusOf(h.file.Allocate(ctx, in.Mode, int64(in.Offset), int64(in.Length)))
	if ctx.killed() {
		f.forget(h.ino)
	}
	return code
}

// fsyncData is the flag of an fdatasync(2) (FUSE_FSYNC_FDATASYNC).
const fsyncData = 1

// Fsync returns when the file is durable on all replicas.
func (f *fileSystem) Fsync(cancel <-chan struct{}, in *gofuse.FsyncIn) (code gofuse.Status) {
	defer f.meters.observe(opSync, time.Now(), &code)
	h := f.open.file(in.Fh)
	if h == nil {
		return gofuse.EBADF
	}
	return statusOf(h.file.Sync(f.context(cancel, &in.InHeader), in.FsyncFlags&fsyncData != 0))
}
