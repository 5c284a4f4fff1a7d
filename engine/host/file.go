package host

import (
	"fmt"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/blocking"
)

// zeroPiece is the size of one write of File.Zero, in bytes: larger ones gain nothing,
// and a write in progress delays its neighbours by its own length.
const zeroPiece = 1 << 20

// zeros is only ever read from.
var zeros = engine.Alloc(zeroPiece)

func init() { clear(zeros) }

// File is an open file of fixed size.
type File struct {
	dir  *Dir // nil: a device, or a file in memory
	name string
	fd   int
	size int64
	gate engine.Gate
}

func newFile(d *Dir, name string, fd int, size int64) *File {
	f := &File{dir: d, name: name, fd: fd, size: size}
	f.gate.Init()
	return f
}

// Name is the file's name in its directory.
func (f *File) Name() string { return f.name }

// Size is the file's length in bytes.
func (f *File) Size() int64 { return f.size }

// Fd is the descriptor. It may be used only between Enter and Leave.
func (f *File) Fd() int { return f.fd }

// Enter keeps the file open for n users, or reports false when it is closed.
func (f *File) Enter(n int) bool { return f.gate.Enter(n) }

// Leave ends one use. It is the last thing a user does with the file.
func (f *File) Leave() { f.gate.Leave() }

// Lend opens the file once more, see [engine.Lender]. A duplicate of our descriptor would
// share its right to write.
func (f *File) Lend() (fd int, base int64, err error) {
	if !f.Enter(1) {
		return -1, 0, f.fail(engine.Read, nil, 0, engine.ErrClosed)
	}
	defer f.Leave()
	flags, err := unix.FcntlInt(uintptr(f.fd), unix.F_GETFL, 0)
	if err == nil {
		fd, err = openAgain(fmt.Sprintf("/proc/self/fd/%d", f.fd), unix.O_RDONLY|unix.O_CLOEXEC|flags&unix.O_DIRECT)
	}
	if err != nil {
		return -1, 0, fmt.Errorf("open %s once more for reading: %w", f.name, err)
	}
	return fd, 0, nil
}

// Refuse ends ops that came after Close. It does so on a goroutine of its own: the
// submitter may hold a lock that Done takes.
func (f *File) Refuse(ops []*engine.Op) {
	ops = slices.Clone(ops)
	go func() {
		for _, op := range ops {
			op.Finish(f.name, engine.ErrClosed)
		}
	}()
}

// ReadAt fills buf from off; see [engine.File].
func (f *File) ReadAt(buf []byte, off int64) error {
	if !f.Enter(1) {
		return f.fail(engine.Read, buf, off, engine.ErrClosed)
	}
	defer f.Leave()
	err := engine.CheckRange(buf, off, f.size)
	if err == nil {
		err = f.Transfer(engine.Read, buf, off)
	}
	if err != nil {
		return f.fail(engine.Read, buf, off, err)
	}
	return nil
}

// Transfer carries out one operation in the calling goroutine, which must have entered
// the file and checked the range. Its errors do not name the file.
func (f *File) Transfer(kind engine.Kind, buf []byte, off int64) error {
	for {
		var n int
		var err error
		switch kind {
		case engine.Read:
			n, err = unix.Pread(f.fd, buf, off)
		case engine.Write:
			n, err = unix.Pwrite(f.fd, buf, off)
		case engine.WriteSync:
			n, err = blocking.WriteSync(f.fd, buf, off)
		case engine.Sync:
			n, err = len(buf), blocking.Datasync(f.fd)
		}
		if err == unix.EINTR {
			continue
		}
		return Whole(kind, n, len(buf), err)
	}
}

// Whole turns the outcome of one operation, n bytes of want, into its error.
func Whole(kind engine.Kind, n, want int, err error) error {
	switch {
	case err != nil:
		return err
	case kind == engine.Sync || n == want:
		return nil
	case kind == engine.Read:
		return io.ErrUnexpectedEOF
	}
	return io.ErrShortWrite
}

// Zero writes zeros; see [engine.File].
func (f *File) Zero(off, n int64) error { return f.within(off, n, f.zero) }

// within has do work on a range of the file if it is one.
func (f *File) within(off, n int64, do func(off, n int64) error) error {
	if !f.Enter(1) {
		return f.fail(engine.Write, nil, off, engine.ErrClosed)
	}
	defer f.Leave()
	if off%engine.Align != 0 || n%engine.Align != 0 {
		return f.fail(engine.Write, nil, off, engine.ErrMisaligned)
	}
	if off < 0 || n < 0 || off > f.size-n {
		return f.fail(engine.Write, nil, off, engine.ErrRange)
	}
	return do(off, n)
}

func (f *File) zero(off, n int64) error {
	for n > 0 {
		piece := zeros[:min(n, zeroPiece)]
		if err := f.Transfer(engine.Write, piece, off); err != nil {
			return f.fail(engine.Write, piece, off, err)
		}
		off += int64(len(piece))
		n -= int64(len(piece))
	}
	return nil
}

// reserve takes the space of the whole file. Where the file system cannot do that by
// itself, zeros are written.
func (f *File) reserve() error {
	err := again(func() error { return unix.Fallocate(f.fd, 0, 0, f.size) })
	if err != unix.EOPNOTSUPP && err != unix.ENOSYS {
		return err
	}
	return f.zero(0, f.size)
}

// Close waits for all users to leave and closes the descriptor.
func (f *File) Close() error {
	if !f.gate.Shut() {
		return engine.ErrClosed
	}
	if f.dir != nil {
		f.dir.forget(f)
	}
	return unix.Close(f.fd)
}

func (f *File) fail(kind engine.Kind, buf []byte, off int64, err error) error {
	return &engine.IOError{Kind: kind, Name: f.name, Off: off, Len: len(buf), Err: err}
}
