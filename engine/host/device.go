package host

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/engine"
)

// OpenDevice opens a block device, or a regular file in its place, for this process alone
// and with direct I/O. A device that is mounted, or that something else has taken, is
// refused. It says on log when a file's file system has no direct I/O.
func OpenDevice(path string, log *slog.Logger) (*File, error) {
	fail := func(err error) (*File, error) { return nil, &fs.PathError{Op: "open", Path: path, Err: err} }
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fail(err)
	}
	flags := unix.O_RDWR | unix.O_CLOEXEC | unix.O_DIRECT
	block := st.Mode&unix.S_IFMT == unix.S_IFBLK
	switch {
	case block:
		flags |= unix.O_EXCL
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fail(errors.New("neither a block device nor a regular file"))
	}
	fd, err := openAgain(path, flags)
	if err == unix.EINVAL && !block {
		log.Warn("file system has no direct I/O, using the page cache", "file", path)
		fd, err = openAgain(path, flags&^unix.O_DIRECT)
	}
	if err == unix.EBUSY {
		return fail(errors.New("the device is in use: mounted, part of something else, or opened by another process"))
	}
	if err != nil {
		return fail(err)
	}
	size, err := deviceSize(fd, block)
	if err != nil {
		unix.Close(fd)
		return fail(err)
	}
	return newFile(nil, path, fd, size&^(engine.Align-1)), nil
}

func openAgain(path string, flags int) (fd int, err error) {
	err = again(func() error { fd, err = unix.Open(path, flags, 0); return err })
	return fd, err
}

// deviceSize makes sure that the device is ours and can be used, and returns its bytes.
func deviceSize(fd int, block bool) (int64, error) {
	if !block {
		if err := again(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }); err == unix.EWOULDBLOCK {
			return 0, errors.New("the file is in use by another process (it is locked)")
		} else if err != nil {
			return 0, err
		}
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		return st.Size, err
	}
	sector, err := unix.IoctlGetInt(fd, unix.BLKSSZGET)
	if err != nil {
		return 0, fmt.Errorf("size of a sector: %w", err)
	}
	if sector > engine.Align {
		return 0, fmt.Errorf("sectors of %d bytes, at most %d are possible; put a file system on the device and give the directory instead", sector, engine.Align)
	}
	var size uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size))); errno != 0 {
		return 0, fmt.Errorf("size of the device: %w", errno)
	}
	return int64(size), nil
}

// Memory makes a file of size bytes in memory, which goes when it is closed.
func Memory(size int64) (*File, error) {
	fd, err := unix.MemfdCreate("varve-scratch", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("file in memory: %w", err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("file in memory: %w", err)
	}
	return newFile(nil, "memory", fd, size), nil
}

// clearPiece is how much of a device is cleared by one call, in bytes: a call cannot be
// interrupted.
const clearPiece = 64 << 20

// Clear makes [off, off+n) read as zeros without carrying them to the device where that can
// be helped; where not, zeros are written. It is durable only after a Sync.
func (f *File) Clear(off, n int64) error { return f.within(off, n, f.clear) }

func (f *File) clear(off, n int64) error {
	for n > 0 {
		piece := min(n, clearPiece)
		// Block devices take fallocate for this since Linux 4.9; unlike BLKZEROOUT, it also
		// drops what the page cache has of the range.
		err := again(func() error {
			return unix.Fallocate(f.fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, piece)
		})
		if err == unix.EOPNOTSUPP || err == unix.ENOSYS || err == unix.EINVAL {
			return f.zero(off, n)
		}
		if err != nil {
			return f.fail(engine.Write, nil, off, err)
		}
		off += piece
		n -= piece
	}
	return nil
}
