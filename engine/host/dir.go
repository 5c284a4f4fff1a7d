// Package host is a directory of preallocated files on a file system of the host:
// names that survive a crash, reserved space, direct I/O where the file system has
// it. It is what the backends engine/posix and engine/uring share; they add only how
// operations are started and finished.
//
// State: a [Dir] owns the table of its open files (mu), a [File] its descriptor, which
// a gate keeps open while anybody uses it. Lock order: Dir.mu is a leaf.
package host

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/engine"
)

const (
	lockName   = ".lock" // held with flock while a Dir is open
	partPrefix = ".part-"
	fileMode   = 0o600
)

// Dir is an open directory. Its methods may be called from several goroutines.
type Dir struct {
	path   string
	fd     int // of the directory, for *at calls and fsync
	lock   int // of the lock file
	direct bool

	mu struct {
		sync.Mutex
		closed bool
		files  map[*File]struct{}
	}
}

// OpenDir opens path, which must be an existing directory, for this process alone, and
// removes what creations cut short by a crash have left. It says on log when the file
// system has no direct I/O.
func OpenDir(path string, log *slog.Logger) (*Dir, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	d := &Dir{path: path, fd: fd, lock: -1}
	d.mu.files = map[*File]struct{}{}
	if err := d.prepare(log); err != nil {
		d.release()
		return nil, err
	}
	return d, nil
}

func (d *Dir) prepare(log *slog.Logger) error {
	var err error
	d.lock, err = unix.Openat(d.fd, lockName, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, fileMode)
	if err != nil {
		return &fs.PathError{Op: "create", Path: filepath.Join(d.path, lockName), Err: err}
	}
	if err := again(func() error { return unix.Flock(d.lock, unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		if err == unix.EWOULDBLOCK {
			return fmt.Errorf("%s is in use by another process (its %s is locked)", d.path, lockName)
		}
		return &fs.PathError{Op: "lock", Path: filepath.Join(d.path, lockName), Err: err}
	}
	names, err := d.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, partPrefix) {
			if err := unix.Unlinkat(d.fd, name, 0); err != nil {
				return &fs.PathError{Op: "remove", Path: filepath.Join(d.path, name), Err: err}
			}
		}
	}
	return d.probeDirect(log)
}

// probeDirect finds out whether the file system takes O_DIRECT: it must open and it
// must transfer one aligned block.
func (d *Dir) probeDirect(log *slog.Logger) error {
	const name = partPrefix + "probe"
	fd, err := unix.Openat(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_DIRECT, fileMode)
	if err == nil {
		buf := engine.Alloc(engine.Align)
		clear(buf)
		_, err = unix.Pwrite(fd, buf, 0)
		engine.Free(buf)
		unix.Close(fd)
	}
	if rm := unix.Unlinkat(d.fd, name, 0); rm != nil && rm != unix.ENOENT && err == nil {
		err = rm
	}
	switch err {
	case nil, unix.ENOSPC, unix.EDQUOT: // a full disk must still open
		d.direct = true
	case unix.EINVAL, unix.EOPNOTSUPP:
		log.Warn("file system has no direct I/O, using the page cache", "dir", d.path)
	default:
		return &fs.PathError{Op: "write", Path: filepath.Join(d.path, name), Err: err}
	}
	return nil
}

// Path is the directory's path as given to OpenDir.
func (d *Dir) Path() string { return d.path }

// Direct reports whether files are opened with O_DIRECT.
func (d *Dir) Direct() bool { return d.direct }

// Create makes a file of size bytes under a temporary name, reserves its space, and
// gives it its name only when all of that is durable; see [engine.Disk].
func (d *Dir) Create(name string, size int64) (*File, error) {
	if err := checkName(name); err != nil {
		return nil, d.fail("create", name, err)
	}
	if size <= 0 || size%engine.Align != 0 {
		return nil, d.fail("create", name, fmt.Errorf("size %d is not a positive multiple of %d", size, engine.Align))
	}
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return nil, d.fail("create", name, fs.ErrExist)
	}
	part := partPrefix + name
	fd, err := d.open(part, unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return nil, d.fail("create", name, err)
	}
	f := newFile(d, name, fd, size)
	if err := d.finish(f, part); err != nil {
		unix.Close(fd)
		unix.Unlinkat(d.fd, part, 0)
		return nil, d.fail("create", name, err)
	}
	if err := d.adopt(f); err != nil {
		unix.Close(fd)
		return nil, d.fail("create", name, err)
	}
	return f, nil
}

// Scratch makes a file of size bytes that has no name and goes when it is closed. Close of
// the Dir does not wait for it.
func (d *Dir) Scratch(size int64) (*File, error) {
	const name = partPrefix + "scratch"
	fd, err := d.open(name, unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return nil, d.fail("create", name, err)
	}
	f := newFile(d, name, fd, size)
	if err = unix.Unlinkat(d.fd, name, 0); err == nil {
		err = f.reserve()
	}
	if err != nil {
		unix.Close(fd)
		return nil, d.fail("create", name, err)
	}
	return f, nil
}

// finish reserves the space of a new file, makes it durable and gives it its name.
func (d *Dir) finish(f *File, part string) error {
	if err := f.reserve(); err != nil {
		return err
	}
	if err := unix.Fsync(f.fd); err != nil {
		return err
	}
	err := unix.Renameat2(d.fd, part, d.fd, f.name, unix.RENAME_NOREPLACE)
	if err == unix.EINVAL || err == unix.ENOSYS { // not every file system has the flag
		if err = unix.Linkat(d.fd, part, d.fd, f.name, 0); err == nil {
			err = unix.Unlinkat(d.fd, part, 0)
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Fsync(d.fd); err != nil {
		unix.Unlinkat(d.fd, f.name, 0)
		return err
	}
	return nil
}

// Open opens an existing file. A size that is no multiple of engine.Align is rounded
// down: the rest of the file cannot be reached.
func (d *Dir) Open(name string) (*File, error) {
	if err := checkName(name); err != nil {
		return nil, d.fail("open", name, err)
	}
	fd, err := d.open(name, unix.O_NOFOLLOW)
	if err != nil {
		return nil, d.fail("open", name, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("not a regular file")
	}
	if err == nil {
		f := newFile(d, name, fd, st.Size&^(engine.Align-1))
		if err = d.adopt(f); err == nil {
			return f, nil
		}
	}
	unix.Close(fd)
	return nil, d.fail("open", name, err)
}

// List returns the names of all files, sorted.
func (d *Dir) List() ([]string, error) {
	names, err := d.names()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(name string) bool { return checkName(name) != nil }), nil
}

// Remove deletes a file durably.
func (d *Dir) Remove(name string) error {
	err := checkName(name)
	if err == nil {
		err = unix.Unlinkat(d.fd, name, 0)
	}
	if err == nil {
		err = unix.Fsync(d.fd)
	}
	if err != nil {
		return d.fail("remove", name, err)
	}
	return nil
}

// Space is the size of the file system and what an unprivileged user may still take, in bytes.
func (d *Dir) Space() (total, free uint64, err error) {
	var st unix.Statfs_t
	if err := again(func() error { return unix.Fstatfs(d.fd, &st) }); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: d.path, Err: err}
	}
	unit := uint64(st.Frsize)
	if unit == 0 {
		unit = uint64(st.Bsize)
	}
	return st.Blocks * unit, st.Bavail * unit, nil
}

// Close closes the files that are still open, waiting for whoever uses them, and then
// the directory. A second Close returns engine.ErrClosed.
func (d *Dir) Close() error {
	d.mu.Lock()
	if d.mu.closed {
		d.mu.Unlock()
		return engine.ErrClosed
	}
	d.mu.closed = true
	var open []*File
	for f := range d.mu.files {
		open = append(open, f)
	}
	d.mu.Unlock()
	var first error
	for _, f := range open {
		if err := f.Close(); err != nil && err != engine.ErrClosed && first == nil {
			first = err
		}
	}
	d.release()
	return first
}

func (d *Dir) release() {
	if d.lock >= 0 {
		unix.Close(d.lock)
	}
	unix.Close(d.fd)
}

// adopt enters f into the table of open files.
func (d *Dir) adopt(f *File) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.closed {
		return engine.ErrClosed
	}
	d.mu.files[f] = struct{}{}
	return nil
}

func (d *Dir) forget(f *File) {
	d.mu.Lock()
	delete(d.mu.files, f)
	d.mu.Unlock()
}

func (d *Dir) open(name string, flags int) (fd int, err error) {
	flags |= unix.O_RDWR | unix.O_CLOEXEC | unix.O_NOATIME
	if d.direct {
		flags |= unix.O_DIRECT
	}
	err = again(func() error { fd, err = unix.Openat(d.fd, name, flags, fileMode); return err })
	if err == unix.EPERM { // O_NOATIME needs the owner
		flags &^= unix.O_NOATIME
		err = again(func() error { fd, err = unix.Openat(d.fd, name, flags, fileMode); return err })
	}
	return fd, err
}

// names reads the directory afresh, sorted, with the entries that are not ours.
func (d *Dir) names() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (d *Dir) fail(what, name string, err error) error {
	return &fs.PathError{Op: what, Path: filepath.Join(d.path, name), Err: err}
}

// checkName refuses what is not a plain, visible file name.
func checkName(name string) error {
	if name == "" || name[0] == '.' || len(name) > 200 || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q is not a file name: %w", name, fs.ErrInvalid)
	}
	return nil
}

// again repeats a system call that a signal has interrupted.
func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
