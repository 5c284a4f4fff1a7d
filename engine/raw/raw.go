// Package raw is an engine.Disk on one block device, without a file system: a table at the
// start of the device says which files there are and where; each is one piece. It stands
// on an engine.File that spans the device, of any backend.
//
// Package engine/open calls it for devices; package segment reads the table of a device
// that is not in use ([Read]). The format is in segment/FORMAT.md.
//
// State: a [Disk] owns the table (mu; held while the table is written, so that changes come
// one after the other) and its open files; a [File] the count of its users. Lock order:
// Disk.mu is a leaf, and no operation on a file takes it.
package raw

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"syscall"

	"github.com/varvefs/varve/engine"
)

// Config describes how a device is served.
type Config struct {
	Device  engine.File // all of the device; the Disk takes it over
	Backend string      // what serves the device, for Disk.Backend

	// Do carries out one operation; nil is engine.Do. A test whose device completes
	// operations by hand sets it.
	Do func(f engine.File, kind engine.Kind, buf []byte, off int64) error
}

// Disk is a device with a table of files; see [engine.Disk].
type Disk struct {
	cfg Config
	dev engine.File

	mu     sync.Mutex
	table  Table
	turn   int // copy to write first: never the only whole one
	doubt  error
	open   map[*File]struct{}
	gone   map[*File]struct{} // removed while open: their places are taken until they are closed
	closed bool
}

var (
	_ engine.Disk = (*Disk)(nil)
	_ engine.File = (*File)(nil)
)

// clearer is a device that can make a range read as zeros by itself.
type clearer interface{ Clear(off, n int64) error }

// Open takes a device over. An empty one gets a table; one that holds something else is
// refused. On an error the device is left open.
func Open(cfg Config) (*Disk, error) {
	if cfg.Do == nil {
		cfg.Do = engine.Do
	}
	d := &Disk{cfg: cfg, dev: cfg.Device, open: map[*File]struct{}{}, gone: map[*File]struct{}{}}
	t, whole, err := read(cfg.Device)
	if errors.Is(err, ErrBlank) {
		t, err = fresh(cfg.Device.Size())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Device.Name(), err)
	}
	d.table, d.turn = *t, 0
	if whole[0] && !whole[1] {
		d.turn = 1
	}
	if whole != [copies]bool{true, true} { // a crash came between the copies, or one is damaged
		if err := d.save(d.table); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// fresh is the table of an empty device.
func fresh(size int64) (*Table, error) {
	t := &Table{Size: size, Slot: slotSize(size)}
	if t.first()+unit > size {
		return nil, fmt.Errorf("a device of %d bytes is too small, %d are the least", size, t.first()+unit)
	}
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	t.Device = binary.LittleEndian.Uint64(b[:])
	return t, nil
}

// save makes t the table, durably: first over the copy that is not the only whole one,
// then over the other. When the first write is done t counts, whatever happens to the
// second. mu is held, or the disk is not yet open.
func (d *Disk) save(t Table) error {
	if d.doubt != nil {
		return d.doubt
	}
	t.Generation++
	t.Size = d.dev.Size()
	for i := range copies {
		n := (d.turn + i) % copies
		b := t.encode(n)
		err := d.cfg.Do(d.dev, engine.WriteSync, b, int64(n)*t.Slot)
		engine.Free(b)
		if err != nil {
			d.doubt = fmt.Errorf("%s: the table of files could not be written, it takes no changes until it is opened anew: %w", d.dev.Name(), err)
			return d.doubt
		}
	}
	d.table, d.turn = t, (d.turn+1)%copies
	return nil
}

// Backend names what serves the device, and that it is one.
func (d *Disk) Backend() string { return d.cfg.Backend + "-raw" }

// Create makes a file of zeros; see [engine.Disk].
func (d *Disk) Create(name string, size int64) (engine.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.create(name, size)
	if err != nil {
		return nil, d.fail("create", name, err)
	}
	return f, nil
}

func (d *Disk) create(name string, size int64) (*File, error) {
	if d.closed {
		return nil, engine.ErrClosed
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	if size <= 0 || size%engine.Align != 0 {
		return nil, fmt.Errorf("size %d is not a positive multiple of %d", size, engine.Align)
	}
	if _, ok := d.table.find(name); ok {
		return nil, fs.ErrExist
	}
	at := gap(d.taken(), d.table.first(), d.dev.Size(), size)
	if at < 0 || len(d.table.Files) >= d.table.room() {
		return nil, syscall.ENOSPC
	}
	e := Entry{Name: name, Off: at, Size: size}
	if err := d.clear(at, size); err != nil {
		return nil, err
	}
	t := d.table
	t.Files = append(slices.Clone(t.Files), e)
	slices.SortFunc(t.Files, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	if err := d.save(t); err != nil {
		return nil, err
	}
	return d.adopt(e), nil
}

// clear makes a range read as zeros, durably: what an older file, or an older owner of
// the device, has left there must not come to light.
func (d *Disk) clear(off, n int64) error {
	var err error
	if c, ok := d.dev.(clearer); ok {
		err = c.Clear(off, n)
	} else {
		err = d.dev.Zero(off, n)
	}
	if err == nil {
		err = d.cfg.Do(d.dev, engine.Sync, nil, 0)
	}
	return err
}

// taken lists what is in use, in the order of the places. mu is held.
func (d *Disk) taken() []Entry {
	t := d.table
	t.Files = slices.Clone(t.Files)
	for f := range d.gone {
		t.Files = append(t.Files, Entry{Name: f.name, Off: f.base, Size: f.size})
	}
	return t.sorted()
}

// Open opens an existing file.
func (d *Disk) Open(name string) (engine.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, d.fail("open", name, engine.ErrClosed)
	}
	if err := checkName(name); err != nil {
		return nil, d.fail("open", name, err)
	}
	e, ok := d.table.find(name)
	if !ok {
		return nil, d.fail("open", name, fs.ErrNotExist)
	}
	return d.adopt(e), nil
}

func (d *Disk) adopt(e Entry) *File {
	f := &File{disk: d, dev: d.dev, name: e.Name, base: e.Off, size: e.Size}
	f.gate.Init()
	d.open[f] = struct{}{}
	return f
}

// forget takes a closed file out of the books.
func (d *Disk) forget(f *File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, f)
	delete(d.gone, f)
}

// List returns the names of all files, sorted.
func (d *Disk) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, d.fail("list", "", engine.ErrClosed)
	}
	names := make([]string, len(d.table.Files))
	for i, e := range d.table.Files {
		names[i] = e.Name
	}
	return names, nil
}

// Remove deletes a file durably. Its place is free when nobody has it open any more.
func (d *Disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return d.fail("remove", name, engine.ErrClosed)
	}
	e, ok := d.table.find(name)
	if !ok {
		return d.fail("remove", name, fs.ErrNotExist)
	}
	t := d.table
	t.Files = slices.DeleteFunc(slices.Clone(t.Files), func(e Entry) bool { return e.Name == name })
	if err := d.save(t); err != nil {
		return d.fail("remove", name, err)
	}
	for f := range d.open {
		if f.base == e.Off {
			d.gone[f] = struct{}{}
		}
	}
	return nil
}

// Space is the size of the device and what of it no file has, in bytes.
func (d *Disk) Space() (total, free uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return 0, 0, d.fail("measure", "", engine.ErrClosed)
	}
	at, size := d.table.first(), d.dev.Size()&^(unit-1)
	left := size - at
	for _, e := range d.taken() {
		if e.Off >= at { // several handles of a removed file have one place
			left -= e.end() - e.Off
			at = e.end()
		}
	}
	return uint64(d.dev.Size()), uint64(max(left, 0)), nil
}

// Close closes the files that are still open and then the device. A second Close returns
// engine.ErrClosed.
func (d *Disk) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return engine.ErrClosed
	}
	d.closed = true
	var open []*File
	for f := range d.open {
		open = append(open, f)
	}
	d.mu.Unlock()
	slices.SortFunc(open, func(a, b *File) int { return cmp.Compare(a.base, b.base) })
	for _, f := range open {
		if err := f.Close(); err != nil && err != engine.ErrClosed {
			return err
		}
	}
	return d.dev.Close()
}

func (d *Disk) fail(what, name string, err error) error {
	path := d.dev.Name()
	if name != "" {
		path += ":" + name
	}
	return &fs.PathError{Op: what, Path: path, Err: err}
}
