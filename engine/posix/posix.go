// Package posix is the engine's backend for every kernel and container: pread, pwrite
// and fdatasync with direct I/O, carried out by a bounded pool of goroutines. Package
// engine/open chooses it where io_uring is missing or forbidden.
//
// State: a [Disk] owns the queue and its workers (mu); files belong to engine/host.
// Lock order: mu is a leaf and is not held while an operation or a Done runs.
package posix

import (
	"log/slog"
	"sync"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/host"
)

// workersMax bounds the operations in flight on one disk, and so the threads blocked in
// the kernel for it. It is near the depth at which disks stop getting faster.
const workersMax = 32

// Disk is a directory served by a pool of workers.
type Disk struct {
	dir *host.Dir

	mu struct {
		sync.Mutex
		queue   engine.List
		workers int // running goroutines
		idle    int // workers that wait for work
		closed  bool
	}
	work sync.Cond // on mu: the queue has work, or the disk is closed
	gone sync.WaitGroup
}

// File is an open file of a Disk.
type File struct {
	*host.File
	disk *Disk
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
	d := &Disk{dir: dir}
	d.work.L = &d.mu
	return d
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
	return &File{File: f, disk: d}, nil
}

// List returns the names of all files, sorted.
func (d *Disk) List() ([]string, error) { return d.dir.List() }

// Remove deletes a file durably.
func (d *Disk) Remove(name string) error { return d.dir.Remove(name) }

// Space is size and free space of the file system in bytes.
func (d *Disk) Space() (total, free uint64, err error) { return d.dir.Space() }

// Close closes the open files, then ends the workers and the directory.
func (d *Disk) Close() error {
	err := d.dir.Close() // drains: no op is left in the queue
	d.mu.Lock()
	d.mu.closed = true
	d.mu.Unlock()
	d.work.Broadcast()
	d.gone.Wait()
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
	d := f.disk
	d.mu.Lock()
	for _, op := range ops {
		d.mu.queue.Push(f, op)
	}
	wake := min(len(ops), d.mu.idle)
	d.mu.idle -= wake
	start := min(len(ops)-wake, workersMax-d.mu.workers)
	d.mu.workers += start
	d.gone.Add(start)
	d.mu.Unlock()
	for range wake {
		d.work.Signal()
	}
	for range start {
		go d.serve()
	}
}

// serve carries out queued ops until the disk is closed.
func (d *Disk) serve() {
	defer d.gone.Done()
	for {
		op := d.next()
		if op == nil {
			return
		}
		f := op.Target().(*File)
		err := op.Check(f.Size())
		if err == nil {
			err = f.Transfer(op.Kind, op.Buf, op.Off)
		}
		op.Finish(f.Name(), err)
		f.Leave()
	}
}

// next waits for an op; nil when the disk is closed.
func (d *Disk) next() *engine.Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if op := d.mu.queue.Pop(); op != nil {
			return op
		}
		if d.mu.closed {
			return nil
		}
		d.mu.idle++ // whoever signals takes it off again
		d.work.Wait()
	}
}
