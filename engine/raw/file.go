package raw

import (
	"errors"
	"slices"
	"sync"

	"github.com/varvefs/varve/engine"
)

// File is a range of the device; see [engine.File].
type File struct {
	disk *Disk
	dev  engine.File
	name string
	base int64 // byte of the device where it starts
	size int64
	gate engine.Gate
}

// Name is the file's name in the table.
func (f *File) Name() string { return f.name }

// Size is the file's length in bytes.
func (f *File) Size() int64 { return f.size }

// ReadAt fills buf from off.
func (f *File) ReadAt(buf []byte, off int64) error {
	if !f.gate.Enter(1) {
		return f.fail(engine.Read, len(buf), off, engine.ErrClosed)
	}
	defer f.gate.Leave()
	if err := engine.CheckRange(buf, off, f.size); err != nil {
		return f.fail(engine.Read, len(buf), off, err)
	}
	if err := f.dev.ReadAt(buf, f.base+off); err != nil {
		return f.fail(engine.Read, len(buf), off, bare(err))
	}
	return nil
}

// Lend opens the device once more; see [engine.Lender].
func (f *File) Lend() (fd int, base int64, err error) {
	if !f.gate.Enter(1) {
		return -1, 0, f.fail(engine.Read, 0, 0, engine.ErrClosed)
	}
	defer f.gate.Leave()
	dev, ok := f.dev.(engine.Lender)
	if !ok {
		return -1, 0, f.fail(engine.Read, 0, 0, errors.ErrUnsupported)
	}
	fd, base, err = dev.Lend()
	return fd, base + f.base, err
}

// Zero writes zeros; see [engine.File].
func (f *File) Zero(off, n int64) error {
	if !f.gate.Enter(1) {
		return f.fail(engine.Write, 0, off, engine.ErrClosed)
	}
	defer f.gate.Leave()
	if off%engine.Align != 0 || n%engine.Align != 0 {
		return f.fail(engine.Write, 0, off, engine.ErrMisaligned)
	}
	if off < 0 || n < 0 || off > f.size-n {
		return f.fail(engine.Write, 0, off, engine.ErrRange)
	}
	if err := f.dev.Zero(f.base+off, n); err != nil {
		return f.fail(engine.Write, int(n), off, bare(err))
	}
	return nil
}

// Submit passes ops on to the device, with its offsets; see [engine.File].
func (f *File) Submit(ops ...*engine.Op) {
	if len(ops) == 0 {
		return
	}
	if !f.gate.Enter(len(ops) + 1) { // one for ourselves: the ops may be done before we are
		f.refuse(slices.Clone(ops), engine.ErrClosed, func() {})
		return
	}
	b := batches.Get().(*batch)
	for _, op := range ops {
		if err := op.Check(f.size); err != nil {
			f.refuse([]*engine.Op{op}, err, f.gate.Leave)
			continue
		}
		s := subs.Get().(*sub)
		if s.file, s.outer = f, op; s.op.Done == nil {
			s.op.Done = s.done
		}
		s.op.Kind, s.op.Buf, s.op.Off = op.Kind, op.Buf, f.base+op.Off
		if op.Kind == engine.Sync {
			s.op.Off = 0
		}
		b.ops = append(b.ops, &s.op)
	}
	f.dev.Submit(b.ops...)
	clear(b.ops)
	b.ops = b.ops[:0]
	batches.Put(b)
	f.gate.Leave()
}

// refuse ends ops with err, on a goroutine of its own: the submitter may hold a lock that
// Done takes.
func (f *File) refuse(ops []*engine.Op, err error, leave func()) {
	go func() {
		for _, op := range ops {
			op.Finish(f.name, err)
			leave()
		}
	}()
}

// sub is an operation on the device for one on a file. Subs and batches are used again and
// again, so that submitting makes no garbage.
type sub struct {
	op    engine.Op
	file  *File
	outer *engine.Op
}

type batch struct{ ops []*engine.Op }

var (
	subs    = sync.Pool{New: func() any { return new(sub) }}
	batches = sync.Pool{New: func() any { return new(batch) }}
)

// done ends the operation on the file as the device has ended its own.
func (s *sub) done(op *engine.Op) {
	f, outer, err := s.file, s.outer, op.Err
	s.file, s.outer, op.Buf, op.Err = nil, nil, nil, nil
	subs.Put(s)
	outer.Finish(f.name, bare(err))
	f.gate.Leave()
}

// Close waits for all users to leave. The device stays open.
func (f *File) Close() error {
	if !f.gate.Shut() {
		return engine.ErrClosed
	}
	f.disk.forget(f)
	return nil
}

// bare is err without the name of the device and the place there.
func bare(err error) error {
	if e, ok := err.(*engine.IOError); ok {
		return e.Err
	}
	return err
}

func (f *File) fail(kind engine.Kind, n int, off int64, err error) error {
	return &engine.IOError{Kind: kind, Name: f.name, Off: off, Len: n, Err: err}
}
