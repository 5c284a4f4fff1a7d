package perf

import (
	"bytes"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/varvefs/varve/engine"
)

// memoryDisk is a disk in memory that counts what is written to it: to measure what a
// store writes, not how fast a disk is. A write takes delay, so that commits group as they
// do on a disk. Blocks of zeros take no memory.
type memoryDisk struct {
	capacity int64
	delay    time.Duration
	written  atomic.Int64 // bytes of all writes, without Zero

	mu    sync.Mutex
	files map[string]*memoryFile
	used  int64
}

type memoryFile struct {
	disk *memoryDisk
	name string
	size int64

	mu     sync.RWMutex
	blocks [][]byte // of engine.Align bytes; nil: zeros
}

func newMemoryDisk(capacity int64, delay time.Duration) *memoryDisk {
	return &memoryDisk{capacity: capacity, delay: delay, files: make(map[string]*memoryFile)}
}

func (d *memoryDisk) Backend() string { return "memory" }

func (d *memoryDisk) Create(name string, size int64) (engine.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[name] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	if d.used+size > d.capacity {
		return nil, &fs.PathError{Op: "create", Path: name, Err: syscall.ENOSPC}
	}
	d.used += size
	f := &memoryFile{disk: d, name: name, size: size, blocks: make([][]byte, size/engine.Align)}
	d.files[name] = f
	return f, nil
}

func (d *memoryDisk) Open(name string) (engine.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.files[name]; f != nil {
		return f, nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (d *memoryDisk) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for name := range d.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

func (d *memoryDisk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	if f == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	d.used -= f.Size()
	delete(d.files, name)
	return nil
}

func (d *memoryDisk) Space() (total, free uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return uint64(d.capacity), uint64(d.capacity - d.used), nil
}

func (d *memoryDisk) Close() error { return nil }

func (f *memoryFile) Name() string { return f.name }
func (f *memoryFile) Size() int64  { return f.size }
func (f *memoryFile) Close() error { return nil }

func (f *memoryFile) check(n int, off int64) error {
	if off < 0 || off+int64(n) > f.Size() {
		return fmt.Errorf("%s: %d bytes at %d: %w", f.name, n, off, engine.ErrRange)
	}
	return nil
}

func (f *memoryFile) ReadAt(b []byte, off int64) error {
	if err := f.check(len(b), off); err != nil {
		return err
	}
	f.read(b, off)
	return nil
}

func (f *memoryFile) read(b []byte, off int64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for n := off / engine.Align; len(b) > 0; n++ {
		if block := f.blocks[n]; block != nil {
			copy(b, block)
		} else {
			clear(b[:engine.Align])
		}
		b = b[engine.Align:]
	}
}

var zeros [engine.Align]byte

func (f *memoryFile) write(b []byte, off int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := off / engine.Align; len(b) > 0; n++ {
		if bytes.Equal(b[:engine.Align], zeros[:]) {
			f.blocks[n] = nil
		} else {
			f.blocks[n] = bytes.Clone(b[:engine.Align])
		}
		b = b[engine.Align:]
	}
}

func (f *memoryFile) Zero(off, n int64) error {
	if err := f.check(int(n), off); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.blocks[off/engine.Align : (off+n)/engine.Align])
	return nil
}

func (f *memoryFile) Submit(ops ...*engine.Op) {
	for _, op := range ops {
		op.Err = f.check(len(op.Buf), op.Off)
		switch {
		case op.Err != nil || op.Kind == engine.Sync:
		case op.Kind == engine.Read:
			f.read(op.Buf, op.Off)
		default:
			f.write(op.Buf, op.Off)
			f.disk.written.Add(int64(len(op.Buf)))
		}
		if op.Kind == engine.Read {
			go op.Done(op)
			continue
		}
		time.AfterFunc(f.disk.delay, func() { op.Done(op) })
	}
}
