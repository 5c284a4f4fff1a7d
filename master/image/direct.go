package image

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// directFile writes a file past the page cache, a piece at a time. A large image
// would push everything else out of memory, and a sync of it would hold up the
// changelog, whose small writes then queue behind all of it on the same disk.
type directFile struct {
	*os.File
	buf    []byte // aligned
	n      int    // bytes of it that wait
	direct bool
	dirty  int // bytes written and not synced, where the file system knows no direct writes

	rest    func(worked time.Duration) // after each piece; may be nil
	resumed time.Time                  // when rest returned
}

const (
	// pieceSize is what the disk gets at once: a write of the changelog waits
	// for at most one of them.
	pieceSize = 512 << 10
	// syncEvery bounds the dirty bytes where writes are not direct.
	syncEvery = 8 << 20
)

// createDirect makes a new file.
func createDirect(path string) (*directFile, error) {
	const flags = os.O_CREATE | os.O_TRUNC | os.O_WRONLY
	f := &directFile{direct: true}
	var err error
	f.File, err = os.OpenFile(path, flags|syscall.O_DIRECT, 0o600)
	if errors.Is(err, syscall.EINVAL) {
		f.direct = false
		f.File, err = os.OpenFile(path, flags, 0o600)
	}
	if err != nil {
		return nil, err
	}
	// Memory of a mapping is aligned to pages.
	f.buf, err = unix.Mmap(-1, 0, pieceSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		f.File.Close()
		return nil, os.NewSyscallError("mmap", err)
	}
	return f, nil
}

// Write gathers pieces.
func (f *directFile) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		k := copy(f.buf[f.n:], rest)
		f.n, rest = f.n+k, rest[k:]
		if f.n == len(f.buf) {
			if err := f.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(b), nil
}

// flush writes what has gathered.
func (f *directFile) flush() error {
	n := f.n
	f.n = 0
	_, err := f.File.Write(f.buf[:n])
	if f.dirty += n; err == nil && !f.direct && f.dirty >= syncEvery {
		f.dirty = 0
		err = f.File.Sync()
	}
	if f.rest != nil {
		f.rest(time.Since(f.resumed))
		f.resumed = time.Now()
	}
	return err
}

// finish writes the end, which need not fill a block, and makes all durable.
func (f *directFile) finish() error {
	if f.n > 0 && f.direct {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFL, 0); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
	}
	if err := f.flush(); err != nil {
		return err
	}
	return f.Sync()
}

// Close closes the file and gives its memory back.
func (f *directFile) Close() error {
	unix.Munmap(f.buf)
	return f.File.Close()
}
