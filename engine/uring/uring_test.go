//go:build giouring

package uring

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/enginetest"
	"github.com/varvefs/varve/engine/host"
)

type place string

func (p place) Open(t testing.TB) engine.Disk {
	t.Helper()
	d, err := Open(string(p), slog.New(slog.DiscardHandler))
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skipf("io_uring is not allowed here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func fresh(t testing.TB) enginetest.Place { return place(t.TempDir()) }

func BenchmarkUring(b *testing.B) { enginetest.Bench(b, fresh) }

func BenchmarkRing(b *testing.B) {
	onlyRing(b)
	enginetest.Bench(b, fresh)
}

func TestSuite(t *testing.T) { enginetest.Run(t, fresh) }

// onlyRing sends everything through the ring for the rest of the test.
func onlyRing(t testing.TB) {
	old := few
	few = 0
	t.Cleanup(func() { few = old })
}

// TestRing runs the suite through the ring alone, with each set of flags that an older
// kernel would leave us with.
func TestRing(t *testing.T) {
	onlyRing(t)
	all := setups
	defer func() { setups = all }()
	for i := range all {
		if i > 0 && testing.Short() {
			break
		}
		t.Run(fmt.Sprintf("flags=%#x", all[i]), func(t *testing.T) {
			setups = all[i : i+1]
			enginetest.Run(t, fresh)
		})
	}
}

// newFile opens a disk with a ring of n entries and a file in it.
func newFile(t *testing.T, n int, size int64) *File {
	t.Helper()
	onlyRing(t)
	place(t.TempDir()).Open(t).Close() // skips where io_uring is forbidden
	dir, err := host.OpenDir(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	own, err := startOwner(n)
	if err != nil {
		t.Fatal(err)
	}
	d := newDisk(dir, own)
	t.Cleanup(func() { d.Close() })
	f, err := d.Create("f", size)
	if err != nil {
		t.Fatal(err)
	}
	return f.(*File)
}

// TestSmallRings puts more into a ring than fits, so that entries are reused all the time
// and by operations of every kind.
func TestSmallRings(t *testing.T) {
	for _, n := range []int{1, 2, 3, 8} {
		f := newFile(t, n, 1<<20)
		var ops []*engine.Op
		done := make(chan error)
		for i := range 100 {
			ops = append(ops, &engine.Op{
				Kind: engine.Kind(i % 4), Buf: engine.Alloc(4096), Off: int64(i) * 4096,
				Done: func(op *engine.Op) { go func() { done <- op.Err }() },
			})
		}
		f.Submit(ops...)
		for range ops {
			if err := <-done; err != nil {
				t.Errorf("ring of %d: %v", n, err)
			}
		}
	}
}

// TestShort cuts the file off behind the engine's back.
func TestShort(t *testing.T) {
	f := newFile(t, entries, 64<<10)
	if err := unix.Ftruncate(f.Fd(), 8192); err != nil {
		t.Fatal(err)
	}
	buf := engine.Alloc(8192)
	for _, off := range []int64{4096, 8192} {
		if err := engine.Do(f, engine.Read, buf, off); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("submitted read at %d: %v", off, err)
		}
		if err := f.ReadAt(buf, off); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("ReadAt %d: %v", off, err)
		}
	}
	if err := engine.Do(f, engine.Read, buf, 0); err != nil {
		t.Error(err)
	}
}

// TestComplete feeds the owner completions that a healthy disk does not produce.
func TestComplete(t *testing.T) {
	f := newFile(t, entries, 64<<10)
	for _, c := range []struct {
		kind engine.Kind
		res  int32
		want error
	}{
		{engine.Write, 4096, nil},
		{engine.Write, 2048, io.ErrShortWrite},
		{engine.WriteSync, 0, io.ErrShortWrite},
		{engine.Read, 512, io.ErrUnexpectedEOF},
		{engine.WriteSync, -int32(syscall.EIO), syscall.EIO},
		{engine.Sync, -int32(syscall.EIO), syscall.EIO},
		{engine.Sync, 0, nil},
	} {
		o := &owner{slots: make([]slot, 1)}
		done := false
		op := &engine.Op{Kind: c.kind, Buf: engine.Alloc(4096), Done: func(*engine.Op) { done = true }}
		f.Enter(1)
		o.slots[0] = slot{op: op, file: f}
		o.complete(0, c.res)
		if !done || !errors.Is(op.Err, c.want) || (op.Err == nil) != (c.want == nil) {
			t.Errorf("%v with result %d: done %v, error %v", c.kind, c.res, done, op.Err)
		}
		if len(o.free) != 1 {
			t.Errorf("%v with result %d: slot is not free", c.kind, c.res)
		}
	}
}

// TestRetry: what the kernel interrupts or puts off is tried again, but not for ever.
func TestRetry(t *testing.T) {
	f := newFile(t, entries, 64<<10)
	o := &owner{slots: make([]slot, 1)}
	op := &engine.Op{Kind: engine.Write, Buf: engine.Alloc(4096), Done: func(*engine.Op) {}}
	f.Enter(1)
	o.slots[0] = slot{op: op, file: f}
	for i := range retries {
		o.complete(0, -int32(syscall.EAGAIN))
		if len(o.again) != 1 || len(o.free) != 0 {
			t.Fatalf("after %d failures: %d to retry, %d free", i+1, len(o.again), len(o.free))
		}
		o.again = o.again[:0]
	}
	o.complete(0, -int32(syscall.EAGAIN))
	if !errors.Is(op.Err, syscall.EAGAIN) || len(o.free) != 1 {
		t.Errorf("at the end: error %v, %d free", op.Err, len(o.free))
	}
}
