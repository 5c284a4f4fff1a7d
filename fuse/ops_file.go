package fuse

import (
	"math"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/client"
)

// Read reads into go-fuse's own buffer, from which the answer is written.
func (f *fileSystem) Read(_ <-chan struct{}, in *gofuse.ReadIn, buf []byte) (res gofuse.ReadResult, code gofuse.Status) {
	defer f.meters.observe(opRead, time.Now(), &code)
	h := f.open.file(in.Fh)
	if h == nil {
		return nil, gofuse.EBADF
	}
	if !h.direct {
		s := span{int64(in.Offset), int64(in.Offset) + int64(len(buf))}
		h.open.begin(s)
		defer h.open.end(s)
	}
	n, err := h.file.ReadAt(f.ctx, buf, int64(in.Offset))
	if err != nil {
		return nil, statusOf(err)
	}
	f.meters.read.Add(n)
	return gofuse.ReadResultData(buf[:n]), gofuse.OK
}

// Writev is what go-fuse calls for a WRITE. From /dev/fuse data is one piece.
func (f *fileSystem) Writev(_ <-chan struct{}, in *gofuse.WriteIn, data [][]byte) (written uint32, code gofuse.Status) {
	defer f.meters.observe(opWrite, time.Now(), &code)
	h := f.open.file(in.Fh)
	if h == nil {
		return 0, gofuse.EBADF
	}
	if !h.direct {
		s := span{int64(in.Offset), int64(in.Offset) + int64(in.Size)}
		h.open.begin(s)
		defer h.open.end(s)
	}
	w := f.writeFlags(h, in)
	where := w.Where
	for _, p := range data {
		n, err := h.file.WriteAt(f.ctx, p, int64(in.Offset)+int64(written), w)
		w.Where = nil // the first piece's counts
		written += uint32(n)
		if err != nil && written == 0 {
			return 0, statusOf(err)
		}
		if n < len(p) {
			break
		}
	}
	f.meters.written.Add(int(written))
	f.written(h, in, where, written)
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

// written drops pages that a write has made untrue.
//
// Around the page cache: the kernel has dropped the pages before the write, but
// a reader may have fetched them again meanwhile. It holds no page's lock now,
// so they can be dropped before the writer goes on.
//
// Through the page cache only an append by a file whose O_APPEND was set after
// it was opened may have gone elsewhere than the kernel believes. It holds the
// page's lock until we have answered, so that is done behind the answer.
//
// appended is where an append went, nil for any other write.
func (f *fileSystem) written(h *handle, in *gofuse.WriteIn, appended *int64, n uint32) {
	off := int64(in.Offset)
	switch {
	case n == 0:
	case !h.direct:
		if appended != nil && *appended != off {
			go f.notify.Data(h.ino)
		}
	case !h.open.pageCached():
	case appended != nil:
		f.notify.pages(h.ino, min(off, *appended), wholeFile)
	default:
		f.notify.pages(h.ino, off, int64(n))
	}
}

// Lseek answers SEEK_DATA and SEEK_HOLE; the kernel does the rest itself.
func (f *fileSystem) Lseek(_ <-chan struct{}, in *gofuse.LseekIn, out *gofuse.LseekOut) (code gofuse.Status) {
	defer f.meters.observe(opSeek, time.Now(), &code)
	h := f.open.file(in.Fh)
	if h == nil {
		return gofuse.EBADF
	}
	if in.Whence != client.SeekData && in.Whence != client.SeekHole {
		return gofuse.EINVAL
	}
	off, err := h.file.Seek(f.ctx, int64(in.Offset), int(in.Whence))
	if err != nil {
		return statusOf(err)
	}
	out.Offset = uint64(off)
	return gofuse.OK
}

// copyMost bounds one copy, so that the copying program can be interrupted.
const copyMost = 256 << 20

// CopyFileRange copies within the file system. It may copy less than asked for.
func (f *fileSystem) CopyFileRange(_ <-chan struct{}, in *gofuse.CopyFileRangeIn) (written uint32, code gofuse.Status) {
	defer f.meters.observe(opCopy, time.Now(), &code)
	from, to := f.open.file(in.FhIn), f.open.file(in.FhOut)
	if from == nil || to == nil {
		return 0, gofuse.EBADF
	}
	if in.Flags != 0 || in.OffIn > math.MaxInt64 || in.OffOut > math.MaxInt64 {
		return 0, gofuse.EINVAL
	}
	n, err := f.client.CopyRange(f.ctx, from.file, int64(in.OffIn), to.file, int64(in.OffOut), int64(min(in.Len, copyMost)))
	if err != nil && n == 0 {
		return 0, statusOf(err)
	}
	return uint32(n), gofuse.OK
}

// Fallocate allocates, punches holes and zeroes; the kernel lets no other modes pass.
func (f *fileSystem) Fallocate(_ <-chan struct{}, in *gofuse.FallocateIn) (code gofuse.Status) {
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
	return statusOf(h.file.Allocate(f.ctx, in.Mode, int64(in.Offset), int64(in.Length)))
}

// fsyncData is the flag of an fdatasync(2) (FUSE_FSYNC_FDATASYNC).
const fsyncData = 1

// Fsync returns when the file is durable on all replicas.
func (f *fileSystem) Fsync(_ <-chan struct{}, in *gofuse.FsyncIn) (code gofuse.Status) {
	defer f.meters.observe(opSync, time.Now(), &code)
	h := f.open.file(in.Fh)
	if h == nil {
		return gofuse.EBADF
	}
	return statusOf(h.file.Sync(f.ctx, in.FsyncFlags&fsyncData != 0))
}
