// Package posix is the engine's backend for every kernel and container: pread, pwrite
// and fdatasync with direct I/O, carried out by a bounded pool of goroutines. Package
// engine/open chooses it where io_uring is missing or forbidden.
//
// It has no state of its own: files and workers belong to engine/host.
package posix

import (
	"log/slog"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/host"
)

// workersMax bounds the operations in flight on one disk, and so the threads blocked in
// the kernel for it. It is near the depth at which disks stop getting faster.
const workersMax = 32

// Disk is a directory served by a pool of workers.
type Disk struct {
	dir  *host.Dir
	pool *host.Pool
}

// File is an open file of a Disk.
type File struct {
	*host.File
	pool *host.Pool
}

var (
	_ engine.Disk = (*Disk)(nil)
	_ engine.File = (*File)(nil)
)

// Open opens an existing directory, for this process alone. A nil log is slog's default.
func Open(dir string, log *slog.Logger) (*Disk, error) {
	if log == nil {
		log = slog.Default()
	}
	hd, err := host.OpenDir(dir, log)
	if err != nil {
		return nil, err
	}
	return On(hd), nil
}

// On serves a directory that is open already; the disk takes it over.
func On(dir *host.Dir) *Disk {
	return &Disk{dir: dir, pool: host.NewPool(workersMax)}
}

// device is one file, a whole device, with workers of its own.
type device struct{ File }

// OnFile serves one file, a whole device; it takes the file over.
func OnFile(f *host.File) engine.File {
	return &device{File{File: f, pool: host.NewPool(workersMax)}}
}

// Close closes the device, then ends the workers.
func (d *device) Close() error {
	err := d.File.File.Close()
	if err != engine.ErrClosed {
		d.pool.Close()
	}
	return err
}

// Backend is "posix".
func (d *Disk) Backend() string { return "posix" }

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
	return &File{File: f, pool: d.pool}, nil
}

// List returns the names of all files, sorted.
func (d *Disk) List() ([]string, error) { return d.dir.List() }

// Remove deletes a file durably.
func (d *Disk) Remove(name string) error { return d.dir.Remove(name) }

// Space is size and free space of the file system in bytes.
func (d *Disk) Space() (total, free uint64, err error) { return d.dir.Space() }

// Close closes the open files, then ends the workers and the directory.
func (d *Disk) Close() error {
	err := d.dir.Close() // drains: no op is left for the workers
	d.pool.Close()
	return err
}

// Submit queues ops for the workers; see [engine.File].
func (f *File) Submit(ops ...*engine.Op) {
	if len(ops) == 0 {
		return
	}
	if !f.Enter(len(ops)) {
		f.Refuse(ops)
		return
	}
	f.pool.Submit(f.File, ops)
}
