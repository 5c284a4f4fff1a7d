package sim

import (
	"fmt"
	"hash/crc32"
	"runtime"
	"slices"

	"github.com/varvefs/varve/engine"
)

// File is an open file of a simulated disk; see [engine.File].
type File struct {
	disk    *Disk
	file    *file
	pending int // submitted ops whose Done has not returned
	closed  bool
}

// Name is the file's name.
func (f *File) Name() string { return f.file.name }

// Size is the file's length in bytes.
func (f *File) Size() int64 { return f.file.size }

// ReadAt reads in the calling goroutine.
func (f *File) ReadAt(buf []byte, off int64) error {
	return f.direct(engine.Read, buf, off)
}

// Zero writes zeros in pieces of 1 MiB in the calling goroutine.
func (f *File) Zero(off, n int64) error {
	err := error(nil)
	switch {
	case off%engine.Align != 0 || n%engine.Align != 0:
		err = engine.ErrMisaligned
	case off < 0 || n < 0 || off > f.Size()-n:
		err = engine.ErrRange
	}
	if err != nil {
		return f.fail(engine.Write, nil, off, err)
	}
	zeros := engine.Alloc(int(min(n, 1<<20)))
	defer engine.Free(zeros)
	clear(zeros)
	for ; n > 0; n, off = n-int64(len(zeros)), off+int64(len(zeros)) {
		zeros = zeros[:min(n, int64(len(zeros)))]
		if err := f.direct(engine.Write, zeros, off); err != nil {
			return err
		}
	}
	return nil
}

// direct carries out one operation in the calling goroutine, which may stall.
func (f *File) direct(kind engine.Kind, buf []byte, off int64) error {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	op := &engine.Op{Kind: kind, Buf: buf, Off: off}
	err := f.usable()
	if err == nil {
		err = op.Check(f.Size())
	}
	if err == nil {
		for r := d.stalls(f, op); r.holds() && f.usable() == nil; {
			d.changed.Wait()
		}
		if err = f.usable(); err == nil {
			err = d.carryOut(&pending{op: op, file: f})
		}
	}
	if err != nil {
		return f.fail(kind, buf, off, err)
	}
	return nil
}

func (f *File) usable() error {
	switch {
	case f.disk.dead:
		return ErrCrashed
	case f.closed:
		return engine.ErrClosed
	}
	return nil
}

// Submit adds ops to the pending ones.
func (f *File) Submit(ops ...*engine.Op) {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := f.usable(); err != nil {
		if len(ops) > 0 {
			ops := slices.Clone(ops)
			go func() {
				for _, op := range ops {
					op.Finish(f.file.name, err)
				}
			}()
		}
		return
	}
	f.pending += len(ops)
	for _, op := range ops {
		p := &pending{op: op, file: f, horizon: d.clock, stall: d.stalls(f, op)}
		if op.Kind == engine.Write || op.Kind == engine.WriteSync {
			p.sum = sum(op.Buf)
		}
		d.pending = append(d.pending, p)
	}
	d.kick()
}

// Close ends what is pending (by hand if the mode is Manual) and closes the file.
func (f *File) Close() error {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.closed {
		return engine.ErrClosed
	}
	f.closed = true
	for f.pending > 0 {
		i := -1
		if d.cfg.Mode == Manual {
			i = slices.IndexFunc(d.pending, func(p *pending) bool { return p.file == f && !p.stall.holds() })
		}
		if i >= 0 {
			d.finish(i)
		} else {
			d.changed.Wait()
		}
	}
	delete(d.handles, f)
	if f.file.open--; f.file.open == 0 && f.file.removed {
		d.used -= f.file.size
	}
	d.changed.Broadcast()
	return nil
}

func (f *File) fail(kind engine.Kind, buf []byte, off int64, err error) error {
	return &engine.IOError{Kind: kind, Name: f.file.name, Off: off, Len: len(buf), Err: err}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// kick starts the goroutine of Auto if it has something to do. The caller holds mu.
func (d *Disk) kick() {
	if d.cfg.Mode == Auto && !d.serving && d.ready() {
		d.serving = true
		go d.serve()
	}
}

// ready reports whether some pending op may end.
func (d *Disk) ready() bool {
	return slices.ContainsFunc(d.pending, func(p *pending) bool { return d.dead || !p.stall.holds() })
}

// serve ends pending ops in random order until none is left.
func (d *Disk) serve() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.cfg.Mode == Auto && d.step() {
		d.mu.Unlock()
		runtime.Gosched() // so that more come together and their order has a choice
		d.mu.Lock()
	}
	d.serving = false
}

// step ends one pending op drawn from the seed; false when there is none that may end.
// The caller holds mu, which is released while Done runs.
func (d *Disk) step() bool {
	n := 0
	for _, p := range d.pending {
		if d.dead || !p.stall.holds() {
			n++
		}
	}
	if n == 0 {
		return false
	}
	k := 0
	if n > 1 {
		k = d.rnd.IntN(n)
	}
	for i, p := range d.pending {
		if d.dead || !p.stall.holds() {
			if k == 0 {
				d.finish(i)
				return true
			}
			k--
		}
	}
	panic("BUG: fewer pending operations than counted")
}

// finish carries out pending op i and calls its Done. The caller holds mu, which is
// released while Done runs.
func (d *Disk) finish(i int) {
	p := d.pending[i]
	d.pending = slices.Delete(d.pending, i, i+1)
	err := ErrCrashed
	if !d.dead {
		if err = p.op.Check(p.file.Size()); err == nil {
			err = d.carryOut(p)
		}
	}
	d.mu.Unlock()
	p.op.Finish(p.file.Name(), err)
	d.mu.Lock()
	p.file.pending--
	d.changed.Broadcast()
}

// carryOut lets op reach the disk, through whatever faults apply.
func (d *Disk) carryOut(p *pending) (err error) {
	op, c := p.op, p.file.file
	isWrite := op.Kind == engine.Write || op.Kind == engine.WriteSync
	if isWrite && p.sum != 0 && p.sum != sum(op.Buf) {
		panic(fmt.Sprintf("BUG: the buffer of a %s of %s at %d was changed before it was done", op.Kind, c.name, op.Off))
	}
	r := d.strikes(p.file, op)
	defer func() { d.trace("%s %s %d+%d%s: %v", op.Kind, c.name, op.Off, len(op.Buf), r, err) }()
	switch {
	case op.Kind == engine.Read:
		d.stats.Reads++
		d.stats.BytesRead += uint64(len(op.Buf))
		return d.carryRead(c, op, r)
	case op.Kind == engine.Sync:
		d.stats.Syncs++
		return d.carrySync(c, p.horizon, r)
	}
	d.stats.Writes++
	d.stats.BytesWritten += uint64(len(op.Buf))
	return d.carryWrite(c, op, r)
}

func (d *Disk) carryRead(c *file, op *engine.Op, r *Rule) error {
	if r.is(Fail) {
		return r.err()
	}
	c.read(op.Buf, op.Off)
	if r.is(Flip) {
		d.flip(op.Buf)
	}
	return nil
}

func (d *Disk) carrySync(c *file, horizon uint64, r *Rule) error {
	switch {
	case r.is(Fail):
		c.taint(horizon)
		return r.err()
	case !r.is(Lie):
		c.flush(horizon)
	}
	return nil
}

func (d *Disk) carryWrite(c *file, op *engine.Op, r *Rule) error {
	d.clock++
	buf, off := op.Buf, op.Off
	switch {
	case r.is(Fail): // some of it may have arrived
		c.write(buf, off, d.clock, func() bool { return d.rnd.IntN(2) == 0 })
		return r.err()
	case r.is(Lose):
		return nil
	case r.is(Misdirect):
		off += r.fault.Shift
		if engine.CheckRange(buf, off, c.size) != nil {
			return nil // it went somewhere outside of all files
		}
	case r.is(Flip):
		buf = slices.Clone(buf)
		d.flip(buf)
	}
	if op.Kind == engine.WriteSync && !r.is(Lie) {
		c.writeDurable(buf, off)
	} else {
		c.write(buf, off, d.clock, nil)
	}
	return nil
}

// flip changes one random bit.
func (d *Disk) flip(b []byte) {
	bit := d.rnd.IntN(len(b) * 8)
	b[bit/8] ^= 1 << (bit % 8)
}
