// Package disk is the directory of a changelog on a simulated disk: what was
// written without a sync is in doubt after a power cut, and so are changes of names
// that no Sync has followed; of those the latest are lost first, as on journalling
// file systems. The simulations of package journal and of whole clusters use it.
//
// Log files lie on an engine/sim disk that is driven by hand; small files that are
// replaced as a whole are kept as they are. Everything belongs to one goroutine.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/sim"
	"github.com/varvefs/varve/master/journal/files"
)

// ErrPower is the error of everything on a disk without power.
var ErrPower = errors.New("the power has failed")

// ErrIO is an error of the medium.
var ErrIO = errors.New("simulated disk: input/output error")

// Fate is what becomes of one write or sync.
type Fate uint8

// Fates.
const (
	Done  Fate = iota
	Cut        // the power fails in the midst of it
	Error      // it fails, and some of it may have arrived
)

// content is a file: on the engine's disk, or bytes.
type content struct {
	file  string // on the engine's disk; "" if small
	size  int64
	small []byte
}

// Disk is a directory. It implements files.Dir.
type Disk struct {
	// Fate, if set, is asked before each write and sync of a log file.
	Fate func(kind engine.Kind) Fate

	eng    *sim.Disk
	names  map[string]content
	old    []map[string]content // names before each change that is not durable, oldest first
	made   int                  // files ever made
	locked bool
	off    bool // without power
	open   []*file
}

var _ files.Dir = (*Disk)(nil)

// New makes an empty one.
func New(seed uint64) *Disk {
	return &Disk{eng: sim.New(sim.Config{Seed: seed, Mode: sim.Manual}), names: map[string]content{}}
}

// PowerCut cuts the power, if it is not off already, and returns what comes back
// with it. choose returns a number below n, and decides the rest with seed.
func (d *Disk) PowerCut(seed uint64, choose func(n int) int) *Disk {
	d.off = true
	n := &Disk{eng: d.eng.Crash(sim.Random(seed)), names: d.names, made: d.made}
	if len(d.old) > 0 {
		if k := choose(len(d.old) + 1); k < len(d.old) { // k changes had become durable
			n.names = d.old[k]
		}
	}
	return n
}

// Die is the end of the process that had files open: nothing is lost.
func (d *Disk) Die() {
	for _, f := range d.open {
		_ = f.Close()
	}
	d.open, d.locked = nil, false
}

func (d *Disk) get(name string) (content, error) {
	if d.off {
		return content{}, ErrPower
	}
	c, ok := d.names[name]
	if !ok {
		return c, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return c, nil
}

// change makes the next version of the names.
func (d *Disk) change() error {
	if d.off {
		return ErrPower
	}
	d.old = append(d.old, d.names)
	d.names = maps.Clone(d.names)
	return nil
}

// Path implements files.Dir.
func (d *Disk) Path(name string) string { return "sim:" + name }

// List implements files.Dir.
func (d *Disk) List() ([]string, error) {
	if d.off {
		return nil, ErrPower
	}
	return slices.Sorted(maps.Keys(d.names)), nil
}

// Size implements files.Dir.
func (d *Disk) Size(name string) (int64, error) {
	c, err := d.get(name)
	return c.size, err
}

// Read implements files.Dir.
func (d *Disk) Read(name string) ([]byte, error) {
	c, err := d.get(name)
	if err != nil {
		return nil, err
	}
	if c.file == "" {
		return slices.Clone(c.small), nil
	}
	return d.eng.Peek(c.file, 0, int(c.size)), nil
}

// Reader implements files.Dir.
func (d *Disk) Reader(name string) (files.Reader, error) {
	c, err := d.get(name)
	if err != nil {
		return nil, err
	}
	return &reader{d, c}, nil
}

type reader struct {
	d *Disk
	c content
}

// ReadAt implements io.ReaderAt.
func (r *reader) ReadAt(b []byte, off int64) (int, error) {
	n := min(int64(len(b)), max(0, r.c.size-off))
	if r.c.file == "" {
		copy(b, r.c.small[off:off+n])
	} else {
		copy(b, r.d.eng.Peek(r.c.file, off, int(n)))
	}
	if n < int64(len(b)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// Close implements io.Closer.
func (r *reader) Close() error { return nil }

// Replace implements files.Dir.
func (d *Disk) Replace(name string, b []byte) error {
	if err := d.change(); err != nil {
		return err
	}
	d.names[name] = content{size: int64(len(b)), small: slices.Clone(b)}
	return d.Sync()
}

// Fill implements files.Dir.
func (d *Disk) Fill(name string, size int64) error {
	if err := d.change(); err != nil {
		return err
	}
	d.made++
	c := content{file: fmt.Sprint("f", d.made), size: size}
	f, err := d.eng.Create(c.file, size)
	if err != nil {
		return err
	}
	d.names[name] = c
	return f.Close()
}

// Rename implements files.Dir.
func (d *Disk) Rename(from, to string) error {
	c, err := d.get(from)
	if err == nil {
		err = d.change()
	}
	if err != nil {
		return err
	}
	delete(d.names, from)
	d.names[to] = c
	return nil
}

// Remove implements files.Dir.
func (d *Disk) Remove(name string) error {
	_, err := d.get(name)
	if err == nil {
		err = d.change()
	}
	if err != nil {
		return err
	}
	delete(d.names, name)
	return nil
}

// Sync implements files.Dir.
func (d *Disk) Sync() error {
	if d.off {
		return ErrPower
	}
	d.old = nil
	return nil
}

// Lock implements files.Dir.
func (d *Disk) Lock() (io.Closer, error) {
	if d.off {
		return nil, ErrPower
	}
	if d.locked {
		return nil, errors.New("the directory is in use")
	}
	d.locked = true
	return lock{d}, nil
}

type lock struct{ d *Disk }

// Close implements io.Closer.
func (l lock) Close() error {
	l.d.locked = false
	return nil
}

// Open implements files.Dir.
func (d *Disk) Open(name string, _ bool) (files.File, error) {
	c, err := d.get(name)
	if err != nil {
		return nil, err
	}
	f, err := d.eng.Open(c.file)
	if err != nil {
		return nil, err
	}
	o := &file{d: d, f: f}
	d.open = append(d.open, o)
	return o, nil
}

// file is a log file.
type file struct {
	d      *Disk
	f      engine.File
	closed bool
}

func (f *file) do(kind engine.Kind, b []byte, off int64) error {
	d := f.d
	if d.off {
		return ErrPower
	}
	fate := Done
	if d.Fate != nil {
		fate = d.Fate(kind)
	}
	op := &engine.Op{Kind: kind, Off: off}
	if kind != engine.Sync {
		op.Buf = engine.Alloc(len(b))
		copy(op.Buf, b)
	}
	if fate == Error {
		d.eng.Inject(sim.Fault{Effect: sim.Fail, Times: 1})
	}
	done := false
	op.Done = func(*engine.Op) { done = true }
	f.f.Submit(op)
	if fate == Cut {
		d.off = true // op stays in flight
		return ErrPower
	}
	for !done {
		d.eng.Step()
	}
	engine.Free(op.Buf)
	if op.Err != nil {
		return ErrIO
	}
	return nil
}

// Write implements files.File.
func (f *file) Write(b []byte, off int64) error { return f.do(engine.Write, b, off) }

// WriteSync implements files.File.
func (f *file) WriteSync(b []byte, off int64) error { return f.do(engine.WriteSync, b, off) }

// Sync implements files.File.
func (f *file) Sync() error { return f.do(engine.Sync, nil, 0) }

// Close implements files.File.
func (f *file) Close() error {
	if f.closed {
		return fs.ErrClosed
	}
	f.closed = true
	if f.d.off {
		return nil
	}
	return f.f.Close()
}
