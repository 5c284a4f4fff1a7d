// Package sim is a disk in memory that behaves as badly as a disk may, and on request
// worse. Tests of whatever stands on package engine use it; nothing else does.
//
// What it knows of each grain (512 bytes unless configured) is what a disk with a
// volatile cache knows: the contents that are durable, and every version written since
// that a power cut may or may not leave behind. A crash ([Disk.Crash], [Disk.CrashClone])
// asks a [Chooser], grain by grain, which of them survives: a random one, or every
// combination in turn. Operations in flight take part, so writes tear and reorder. A
// write to fresh space that was not synced may read back as zeros. WriteSync makes only
// its own range durable; it does not flush earlier plain writes.
//
// [Disk.Inject] adds faults that an honest disk does not have: errors, lost, misdirected
// and flipped writes, flushes that lie, stalls. A failed Sync taints what it should have
// flushed: no later Sync makes it durable, as on the file systems of Linux.
//
// Operations complete in an order drawn from the seed: on a goroutine of the disk (Auto),
// or one by one when the test says so (Manual), which makes a run repeatable.
//
// State: everything belongs to the Disk and is guarded by its mu, which is a leaf and is
// not held while a Done runs.
package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/varvefs/varve/engine"
)

// ErrCrashed is the error of every operation on a disk that has crashed.
var ErrCrashed = errors.New("simulated disk has crashed")

// Mode says who completes submitted operations.
type Mode uint8

// The modes.
const (
	Auto   Mode = iota // a goroutine of the disk
	Manual             // Step, StepAt, Drain, and Close for what is left
)

// Config describes a disk. The zero Config is a healthy one of 1 TiB.
type Config struct {
	Seed     uint64
	Mode     Mode
	Capacity int64 // bytes that Create can hand out; 0 is 1 TiB
	Grain    int   // bytes that never tear, a power of two from 512 to 4096; 0 is 512

	// Trace, if set, is told of every operation as it completes (testing.T.Logf fits).
	// It must not call the disk.
	Trace func(format string, args ...any)
}

// Stats counts what has reached the disk.
type Stats struct {
	Reads, Writes, Syncs    uint64 // operations; a WriteSync is a write
	BytesRead, BytesWritten uint64
}

// Disk is a simulated disk; see [engine.Disk].
type Disk struct {
	cfg Config

	mu      sync.Mutex
	changed sync.Cond // on mu: an operation ended, a stall was lifted, the disk crashed
	files   map[string]*file
	handles map[*File]struct{}
	used    int64 // bytes of all files, also removed ones that are still open
	pending []*pending
	rules   []*Rule
	rnd     *rand.Rand
	clock   uint64 // counts the writes that have ended
	serving bool   // the goroutine of Auto runs
	closed  bool
	dead    bool // crashed
	stats   Stats
}

// pending is a submitted operation that has not ended.
type pending struct {
	op      *engine.Op
	file    *File
	horizon uint64 // Sync: writes that ended up to this clock become durable
	stall   *Rule  // held back by it
	sum     uint32 // of Buf, for writes
}

var (
	_ engine.Disk = (*Disk)(nil)
	_ engine.File = (*File)(nil)
)

// New makes an empty disk. It panics on a Config that makes no sense.
func New(cfg Config) *Disk {
	if cfg.Capacity == 0 {
		cfg.Capacity = 1 << 40
	}
	if cfg.Grain == 0 {
		cfg.Grain = 512
	}
	if cfg.Grain < 512 || cfg.Grain > engine.Align || cfg.Grain&(cfg.Grain-1) != 0 || cfg.Capacity < 0 {
		panic(fmt.Sprintf("BUG: simulated disk of %d bytes with grain %d", cfg.Capacity, cfg.Grain))
	}
	d := &Disk{
		cfg:     cfg,
		files:   map[string]*file{},
		handles: map[*File]struct{}{},
		rnd:     rand.New(rand.NewPCG(cfg.Seed, 0x7661727665)),
	}
	d.changed.L = &d.mu
	return d
}

// Backend is "sim".
func (d *Disk) Backend() string { return "sim" }

// Create makes a file, durable at once; see [engine.Disk].
func (d *Disk) Create(name string, size int64) (engine.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(name); err != nil {
		return nil, fail("create", name, err)
	}
	if size <= 0 || size%engine.Align != 0 {
		return nil, fail("create", name, fmt.Errorf("size %d is not a positive multiple of %d", size, engine.Align))
	}
	if d.files[name] != nil {
		return nil, fail("create", name, fs.ErrExist)
	}
	if size > d.cfg.Capacity-d.used {
		return nil, fail("create", name, syscall.ENOSPC)
	}
	c := newFile(name, size, d.cfg.Grain)
	d.files[name] = c
	d.used += size
	return d.handle(c), nil
}

// Open opens an existing file.
func (d *Disk) Open(name string) (engine.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(name); err != nil {
		return nil, fail("open", name, err)
	}
	c := d.files[name]
	if c == nil {
		return nil, fail("open", name, fs.ErrNotExist)
	}
	return d.handle(c), nil
}

func (d *Disk) handle(c *file) *File {
	f := &File{disk: d, file: c}
	c.open++
	d.handles[f] = struct{}{}
	return f
}

// List returns the names of all files, sorted.
func (d *Disk) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.alive(); err != nil {
		return nil, err
	}
	return d.names(), nil
}

func (d *Disk) names() []string {
	names := make([]string, 0, len(d.files))
	for name := range d.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Remove deletes a file, durably at once.
func (d *Disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(name); err != nil {
		return fail("remove", name, err)
	}
	c := d.files[name]
	if c == nil {
		return fail("remove", name, fs.ErrNotExist)
	}
	delete(d.files, name)
	c.removed = true
	if c.open == 0 {
		d.used -= c.size
	}
	return nil
}

// Space is the capacity and what of it no file has, in bytes.
func (d *Disk) Space() (total, free uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.alive(); err != nil {
		return 0, 0, err
	}
	return uint64(d.cfg.Capacity), uint64(max(0, d.cfg.Capacity-d.used)), nil
}

// SetCapacity changes the capacity; files that exist keep their space.
func (d *Disk) SetCapacity(bytes int64) {
	d.mu.Lock()
	d.cfg.Capacity = bytes
	d.mu.Unlock()
}

// SetMode changes the mode from now on, for pending operations too.
func (d *Disk) SetMode(m Mode) {
	d.mu.Lock()
	d.cfg.Mode = m
	d.kick()
	d.mu.Unlock()
}

// Stats returns the counters.
func (d *Disk) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// Close closes the open files and the disk.
func (d *Disk) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return engine.ErrClosed
	}
	d.closed = true
	var open []*File
	for f := range d.handles {
		open = append(open, f)
	}
	d.mu.Unlock()
	slices.SortFunc(open, func(a, b *File) int { return strings.Compare(a.file.name, b.file.name) })
	for _, f := range open {
		if err := f.Close(); err != nil && !errors.Is(err, engine.ErrClosed) {
			return err
		}
	}
	return nil
}

func (d *Disk) alive() error {
	switch {
	case d.dead:
		return ErrCrashed
	case d.closed:
		return engine.ErrClosed
	}
	return nil
}

func (d *Disk) usable(name string) error {
	if err := d.alive(); err != nil {
		return err
	}
	if name == "" || name[0] == '.' || len(name) > 200 || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q is not a file name: %w", name, fs.ErrInvalid)
	}
	return nil
}

func fail(what, name string, err error) error {
	return &fs.PathError{Op: what, Path: name, Err: err}
}

func (d *Disk) trace(format string, args ...any) {
	if d.cfg.Trace != nil {
		d.cfg.Trace(format, args...)
	}
}
