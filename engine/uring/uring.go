//go:build giouring

package uring

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/host"
)

// ErrNotBuilt is what Open and On return in a program built without io_uring.
var ErrNotBuilt = errors.New("built without io_uring")

// entries is the size of a disk's submission queue. All of it but one entry, which the
// eventfd has, can be in flight; what exceeds it waits in the backlog.
const entries = 256

// few is the number of ops in flight up to which plain system calls answer sooner than the
// ring: a worker's thread does the call and goes on with the caller, where the ring's owner
// is woken, and wakes somebody in turn. BenchmarkRing/Wait against BenchmarkPosix/Wait, 4 KiB
// on 2 busy cores, in us an op, ring first: reads 110 and 78 with one caller, 50 and 33 with
// two, 31 and 31 with four, 22 and 30 with eight, 15 and 29 with 32; synced writes 180 and
// 125, 105 and 85, 63 and 55, 40 and 44, 19 and 40. A variable for tests.
var few = 2

// Disk is a directory served by a ring.
type Disk struct {
	dir   *host.Dir
	own   *owner
	pool  *host.Pool // for the ops of a quiet disk
	depth depth
}

// depth follows the number of ops in flight over the last few submissions: callers that
// wait for each other's batch leave the disk idle for moments in which it is not quiet.
type depth struct {
	mean atomic.Int64 // in 1/256; two that update at once lose one update, which does not matter
}

// note enters the number in flight after a submission and returns whether the mean is at most few.
func (d *depth) note(ops int) bool {
	old := d.mean.Load()
	mean := old + (int64(ops)<<8-old)>>3
	d.mean.Store(mean)
	return mean <= int64(few)<<8
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
	if err := selfTest(dir.Scratch); err != nil {
		return nil, fmt.Errorf("self-test of io_uring: %w", err)
	}
	own, err := startOwner(entries)
	if err != nil {
		return nil, err
	}
	return newDisk(dir, own), nil
}

// device is a Disk's only file, which is a whole device.
type device struct{ *File }

// OnFile serves one file, a whole device, after a self-test on a file in memory. It takes
// the file over; on an error the file is left open.
func OnFile(f *host.File) (engine.File, error) {
	if err := selfTest(host.Memory); err != nil {
		return nil, fmt.Errorf("self-test of io_uring: %w", err)
	}
	own, err := startOwner(entries)
	if err != nil {
		return nil, err
	}
	return &device{&File{File: f, disk: newDisk(nil, own)}}, nil
}

// Close closes the device, then ends the ring.
func (d *device) Close() error {
	err := d.File.Close()
	if err != engine.ErrClosed {
		d.disk.own.close()
		d.disk.pool.Close()
	}
	return err
}

func newDisk(dir *host.Dir, own *owner) *Disk {
	return &Disk{dir: dir, own: own, pool: host.NewPool(few)}
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
	return &File{File: f, disk: d}, nil
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
	d.pool.Close()
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
	d := f.disk
	quiet := d.depth.note(int(d.own.load.Load()) + d.pool.Busy() + len(ops))
	if !quiet || !d.pool.TrySubmit(f.File, ops) {
		d.own.submit(f, ops)
	}
	f.Leave()
}
