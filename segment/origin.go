package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/open"
	"github.com/varvefs/varve/engine/raw"
)

// origin is where the files of a store are read by those who change nothing: a directory,
// or a device with a table. It needs no right to write.
type origin struct {
	path   string
	device *readOnly  // nil: a directory
	table  *raw.Table // of the device
}

// openOrigin opens a directory or a device. A device is never taken exclusively: lockShared
// sees to that where it matters.
func openOrigin(path string) (*origin, error) {
	device, err := open.IsDevice(path)
	if err != nil || !device {
		return &origin{path: path}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, 2) // a device's size is not in its inode
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s := &origin{path: path, device: &readOnly{f: f, name: path, size: size &^ (blockSize - 1)}}
	if s.table, err = raw.Read(s.device); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return s, nil
}

// open opens a file of the store, or fails with fs.ErrNotExist.
func (s *origin) open(name string) (*readOnly, error) {
	if s.device == nil {
		f, err := os.Open(filepath.Join(s.path, name))
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return &readOnly{f: f, name: f.Name(), size: info.Size()}, nil
	}
	for _, e := range s.table.Files {
		if e.Name == name {
			return &readOnly{f: s.device.f, name: s.path + ":" + name, base: e.Off, size: e.Size, part: true}, nil
		}
	}
	return nil, &fs.PathError{Op: "open", Path: s.path + ":" + name, Err: fs.ErrNotExist}
}

// list names the files of the store.
func (s *origin) list() ([]string, error) {
	var names []string
	if s.device != nil {
		for _, e := range s.table.Files {
			names = append(names, e.Name)
		}
		return names, nil
	}
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if name := e.Name(); e.Type().IsRegular() && name[0] != '.' {
			names = append(names, name)
		}
	}
	return names, nil
}

// space is the size of what holds the store, and what is free in it, in bytes.
func (s *origin) space() (total, free uint64, err error) {
	if s.device != nil {
		free = uint64(s.device.size)
		for _, e := range s.table.Files {
			free -= min(free, uint64(e.Size))
		}
		return uint64(s.device.size), free, nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.path, &st); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: s.path, Err: err}
	}
	return st.Blocks * uint64(st.Bsize), st.Bavail * uint64(st.Bsize), nil
}

func (s *origin) close() error {
	if s.device == nil {
		return nil
	}
	return s.device.Close()
}

// readOnly is a file that is only read, through the page cache: it needs no lock and no
// right to write.
type readOnly struct {
	f    *os.File
	name string
	base int64 // byte of f where it starts
	size int64
	part bool // f belongs to the origin
}

var _ engine.File = (*readOnly)(nil)

func (r *readOnly) Name() string { return r.name }
func (r *readOnly) Size() int64  { return r.size }

func (r *readOnly) Close() error {
	if r.part {
		return nil
	}
	return r.f.Close()
}

func (r *readOnly) ReadAt(buf []byte, off int64) error {
	if r.part && off > r.size-int64(len(buf)) { // f goes on behind the file
		return &engine.IOError{Kind: engine.Read, Name: r.name, Off: off, Len: len(buf), Err: engine.ErrRange}
	}
	_, err := r.f.ReadAt(buf, r.base+off)
	return err
}

func (r *readOnly) Zero(int64, int64) error { return errors.ErrUnsupported }

// Submit is never called: Inspect reads with ReadAt.
func (r *readOnly) Submit(...*engine.Op) { panic("BUG: operation on a file that is only read") }
