//go:build giouring

package uring

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/host"
)

// ErrNotBuilt is what Open and On return in a program built without io_uring.
var ErrNotBuilt = errors.New("built without io_uring")

// depth is the size of a disk's submission queue. All of it but one entry, which the
// eventfd has, can be in flight; what exceeds it waits in the backlog.
const depth = 256

// Disk is a directory served by a ring.
type Disk struct {
	dir *host.Dir
	own *owner
}

// File is an open file of a Disk.
type File struct {
	*host.File
	own *owner
}

var (
	_ engine.Disk = (*Disk)(nil)
	_ engine.File = (*File)(nil)
)

// Open opens an existing directory, for this process alone, after a self-test of
// io_uring in it. A nil log is slog's default.
func Open(dir string, log *slog.Logger) (engine.Disk, error) {
	if log == nil {
		log = slog.Default()
	}
	hd, err := host.OpenDir(dir, log)
	if err != nil {
		return nil, err
	}
	d, err := On(hd)
	if err != nil {
		hd.Close()
		return nil, err
	}
	return d, nil
}

// On serves a directory that is open already, after a self-test. The disk takes the
// directory over; on an error it is left open.
func On(dir *host.Dir) (engine.Disk, error) {
	if err := selfTest(dir); err != nil {
		return nil, fmt.Errorf("self-test of io_uring: %w", err)
	}
	own, err := startOwner(depth)
	if err != nil {
		return nil, err
	}
	return &Disk{dir: dir, own: own}, nil
}

// Backend is "uring".
func (d *Disk) Backend() string { return "uring" }

// Create makes a file with its space reserved; see [engine.Disk].
func (d *Disk) Create(name string, size int64) (engine.File, error) {
	return d.file(d.dir.Create(name, size))
}

// Open opens an existing file.
func (d *Disk) Open(name string) (engine.File, error) { return d.file(d.dir.Open(name)) }

func (d *Disk) file(f *host.File, err error) (engine.File, error) {
	if err != nil {
		return nil, err
	}
	return &File{File: f, own: d.own}, nil
}

// List returns the names of all files, sorted.
func (d *Disk) List() ([]string, error) { return d.dir.List() }

// Remove deletes a file durably.
func (d *Disk) Remove(name string) error { return d.dir.Remove(name) }

// Space is size and free space of the file system in bytes.
func (d *Disk) Space() (total, free uint64, err error) { return d.dir.Space() }

// Close closes the open files, then ends the ring and the directory.
func (d *Disk) Close() error {
	err := d.dir.Close() // drains: nothing is left in the ring
	d.own.close()
	return err
}

// Submit hands ops to the ring's owner; see [engine.File].
func (f *File) Submit(ops ...*engine.Op) {
	if len(ops) == 0 {
		return
	}
	if !f.Enter(len(ops) + 1) { // one for ourselves: the ops may be done before we have woken the owner
		f.Refuse(ops)
		return
	}
	f.own.submit(f, ops)
	f.Leave()
}
