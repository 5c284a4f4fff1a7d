package files

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/varvefs/varve/owner"
	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/engine/blocking"
)

// lockName is the file whose lock says that the directory is in use.
const lockName = "LOCK"

// Host is a directory of the host, by its path.
type Host string

var _ Dir = Host("")

// Path implements Dir.
func (h Host) Path(name string) string { return filepath.Join(string(h), name) }

// List implements Dir.
func (h Host) List() ([]string, error) {
	entries, err := os.ReadDir(string(h))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// Size implements Dir.
func (h Host) Size(name string) (int64, error) {
	st, err := os.Stat(h.Path(name))
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// Read implements Dir.
func (h Host) Read(name string) ([]byte, error) { return os.ReadFile(h.Path(name)) }

// Reader implements Dir.
func (h Host) Reader(name string) (Reader, error) {
	f, err := os.Open(h.Path(name))
	if err != nil {
		return nil, err
	}
	return f, nil
}

// roomName is a file that holds a place on the disk for a Replace when it is full.
const (
	roomName = "room"
	roomSize = 64 << 10
)

// Replace implements Dir. The little that is kept here beside the log must find a
// place on a full disk too: a voter that cannot write it has to stop.
func (h Host) Replace(name string, b []byte) error {
	err := h.replace(name, b)
	if errors.Is(err, unix.ENOSPC) && os.Remove(h.Path(roomName)) == nil {
		err = h.replace(name, b)
	}
	h.holdRoom()
	return err
}

// holdRoom makes the file that gives its place up, if that is possible now.
func (h Host) holdRoom() {
	path := h.Path(roomName)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return // it is there
	}
	_, err = f.Write(make([]byte, roomSize))
	if errors.Join(err, owner.Give(f), f.Sync(), f.Close()) != nil {
		os.Remove(path)
	}
}

func (h Host) replace(name string, b []byte) error {
	path := h.Path(name)
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, owner.Give(f), f.Sync(), f.Close()); err != nil {
		os.Remove(path + ".tmp")
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return h.Sync()
}

// Rename implements Dir.
func (h Host) Rename(from, to string) error { return os.Rename(h.Path(from), h.Path(to)) }

// Remove implements Dir.
func (h Host) Remove(name string) error { return os.Remove(h.Path(name)) }

// osFile is a file of the host. With direct, a durable write is one
// pwritev2(RWF_DSYNC) past the page cache, which a disk with FUA takes as one
// command; without, data stays in the page cache until Sync.
type osFile struct {
	f    *os.File
	fd   int
	name string
}

// Open implements Dir. O_DIRECT is dropped where the file system has none (tmpfs):
// RWF_DSYNC alone is as safe.
func (h Host) Open(name string, direct bool) (File, error) {
	path := h.Path(name)
	flags := os.O_RDWR
	if direct {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(path, flags, 0)
	if direct && errors.Is(err, unix.EINVAL) {
		f, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, err
	}
	return &osFile{f: f, fd: int(f.Fd()), name: path}, nil
}

// write has call write b at off, whole.
func (o *osFile) write(b []byte, off int64, call func(fd int, b []byte, off int64) (int, error)) error {
	for {
		n, err := call(o.fd, b, off)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n != len(b) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return fmt.Errorf("%s: write of %d bytes at %d: %w", o.name, len(b), off, err)
		}
		return nil
	}
}

func (o *osFile) Write(b []byte, off int64) error     { return o.write(b, off, unix.Pwrite) }
func (o *osFile) WriteSync(b []byte, off int64) error { return o.write(b, off, blocking.WriteSync) }

func (o *osFile) Sync() error {
	for {
		if err := blocking.Datasync(o.fd); err == nil {
			return nil
		} else if err != unix.EINTR {
			return fmt.Errorf("%s: fdatasync: %w", o.name, err)
		}
	}
}

func (o *osFile) Close() error { return o.f.Close() }

// Fill implements Dir. Preallocation alone would not do: the first write to an
// unwritten extent costs a journal commit of the host's file system with every sync.
func (h Host) Fill(name string, size int64) (err error) {
	path := h.Path(name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil && err != unix.EOPNOTSUPP {
		return fmt.Errorf("%s: reserve %d bytes: %w", path, size, err)
	}
	zeros := make([]byte, min(size, 1<<20))
	for off := int64(0); off < size; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off); err != nil {
			return err
		}
	}
	return errors.Join(owner.Give(f), f.Sync())
}

// Sync implements Dir.
func (h Host) Sync() error {
	d, err := os.Open(string(h))
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}

// Lock implements Dir: two masters that write one log would destroy it. The
// kernel drops the lock when the process dies.
func (h Host) Lock() (io.Closer, error) {
	path := h.Path(lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder := make([]byte, 32)
		n, _ := f.ReadAt(holder, 0)
		_ = f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("%s: in use by another master (process %s)", string(h), strings.TrimSpace(string(holder[:n])))
		}
		return nil, fmt.Errorf("%s: lock: %w", path, err)
	}
	if err := owner.Give(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // only for the sentence above
	}
	return f, nil
}
