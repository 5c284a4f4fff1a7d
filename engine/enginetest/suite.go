// Package enginetest is the conformance suite of package engine: what every backend must
// do. The tests of the backends call Run with a way to make a disk; nobody else imports it.
package enginetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/varvefs/varve/engine"
)

// Place is where a disk lives.
type Place interface {
	// Open opens the disk, the same one at every call; the caller closes it.
	Open(t testing.TB) engine.Disk
}

// patience bounds every wait of the suite; nothing comes near it unless it hangs.
const patience = 30 * time.Second

// Run runs the suite; fresh makes an empty place.
func Run(t *testing.T, fresh func(t testing.TB) Place) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, p Place)
	}{
		{"Names", testNames},
		{"Persist", testPersist},
		{"Unwritten", testUnwritten},
		{"Kinds", testKinds},
		{"BadOps", testBadOps},
		{"Zero", testZero},
		{"Batch", testBatch},
		{"ResubmitFromDone", testResubmit},
		{"Random", testRandom},
		{"CloseDrains", testCloseDrains},
		{"DiskCloseDrains", testDiskCloseDrains},
		{"Closed", testClosed},
		{"RemoveOpen", testRemoveOpen},
		{"Space", testSpace},
		{"Lend", testLend},
		{"NoAllocs", testNoAllocs},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, fresh(t)) })
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error is %v, want %v", err, want)
	}
}

// open opens the disk of p and closes it at the end of the test.
func open(t testing.TB, p Place) engine.Disk {
	t.Helper()
	d := p.Open(t)
	t.Cleanup(func() {
		if err := d.Close(); err != nil && !errors.Is(err, engine.ErrClosed) {
			t.Errorf("close disk: %v", err)
		}
	})
	return d
}

func create(t testing.TB, d engine.Disk, name string, size int64) engine.File {
	t.Helper()
	f, err := d.Create(name, size)
	must(t, err)
	return f
}

// fill writes a pattern that names its place: every 8 bytes hold tag and offset.
func fill(b []byte, off int64, tag uint32) []byte {
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], uint64(tag)<<40|uint64(off+int64(i)))
	}
	return b
}

func pattern(n int, off int64, tag uint32) []byte { return fill(engine.Alloc(n), off, tag) }

// wantBytes reads want's length at off and compares.
func wantBytes(t testing.TB, f engine.File, off int64, want []byte) {
	t.Helper()
	got := engine.Alloc(len(want))
	defer engine.Free(got)
	must(t, f.ReadAt(got, off))
	if !bytes.Equal(got, want) {
		t.Fatalf("%s at %d: %d bytes differ from what was written", f.Name(), off, len(want))
	}
}

func testNames(t *testing.T, p Place) {
	d := open(t, p)
	for _, name := range []string{"b", "a", "c-0001"} {
		f := create(t, d, name, 64<<10)
		if f.Name() != name || f.Size() != 64<<10 {
			t.Errorf("created %q of %d bytes, got %q of %d", name, 64<<10, f.Name(), f.Size())
		}
		must(t, f.Close())
	}
	_, err := d.Create("a", 64<<10)
	wantErr(t, err, fs.ErrExist)
	_, err = d.Open("nobody")
	wantErr(t, err, fs.ErrNotExist)
	wantErr(t, d.Remove("nobody"), fs.ErrNotExist)
	for _, bad := range []string{"", ".", "..", ".hidden", "a/b", "/a", "a\x00b"} {
		if _, err := d.Create(bad, 4096); err == nil {
			t.Errorf("create %q succeeded", bad)
		}
		if _, err := d.Open(bad); err == nil {
			t.Errorf("open %q succeeded", bad)
		}
	}
	for _, bad := range []int64{0, -4096, 1, 4095, 4097} {
		if _, err := d.Create("sized", bad); err == nil {
			t.Errorf("create of %d bytes succeeded", bad)
		}
	}
	wantList(t, d, "a", "b", "c-0001")
	must(t, d.Remove("b"))
	wantList(t, d, "a", "c-0001")
}

func wantList(t testing.TB, d engine.Disk, want ...string) {
	t.Helper()
	got, err := d.List()
	must(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("list is %q, want %q", got, want)
	}
}

func testPersist(t *testing.T, p Place) {
	d := p.Open(t)
	f := create(t, d, "f", 1<<20)
	want := pattern(64<<10, 8192, 7)
	must(t, engine.Do(f, engine.WriteSync, want, 8192))
	must(t, f.Close())
	must(t, d.Close())
	d = open(t, p)
	f, err := d.Open("f")
	must(t, err)
	if f.Size() != 1<<20 {
		t.Errorf("size after reopening is %d", f.Size())
	}
	wantBytes(t, f, 8192, want)
}

func testUnwritten(t *testing.T, p Place) {
	f := create(t, open(t, p), "f", 1<<20)
	must(t, engine.Do(f, engine.Write, pattern(4096, 0, 1), 512<<10))
	wantBytes(t, f, 0, make([]byte, 512<<10))
	wantBytes(t, f, 512<<10+4096, make([]byte, 512<<10-4096))
	got := pattern(8192, 0, 9)
	must(t, engine.Do(f, engine.Read, got, 4096))
	if !bytes.Equal(got, make([]byte, 8192)) {
		t.Error("a submitted read of unwritten blocks is not zero")
	}
}

func testKinds(t *testing.T, p Place) {
	f := create(t, open(t, p), "f", 4<<20)
	for i, n := range []int{4096, 8192, 12288, 64 << 10, 1<<20 + 4096} {
		off := int64(i) * 4096
		for _, kind := range []engine.Kind{engine.Write, engine.WriteSync} {
			want := pattern(n, off, uint32(i)<<4|uint32(kind))
			must(t, engine.Do(f, kind, want, off))
			must(t, engine.Do(f, engine.Sync, nil, 0))
			got := engine.Alloc(n)
			must(t, engine.Do(f, engine.Read, got, off))
			if !bytes.Equal(got, want) {
				t.Errorf("%s of %d bytes reads back differently", kind, n)
			}
			wantBytes(t, f, off, want)
		}
	}
	last := pattern(4096, 0, 99)
	must(t, engine.Do(f, engine.WriteSync, last, f.Size()-4096))
	wantBytes(t, f, f.Size()-4096, last)
}

func testBadOps(t *testing.T, p Place) {
	f := create(t, open(t, p), "f", 64<<10)
	buf := engine.Alloc(8192)
	for _, kind := range []engine.Kind{engine.Read, engine.Write, engine.WriteSync} {
		wantErr(t, engine.Do(f, kind, buf, 512), engine.ErrMisaligned)
		wantErr(t, engine.Do(f, kind, buf[:4000], 0), engine.ErrMisaligned)
		wantErr(t, engine.Do(f, kind, buf[8:4104], 0), engine.ErrMisaligned)
		wantErr(t, engine.Do(f, kind, nil, 0), engine.ErrMisaligned)
		wantErr(t, engine.Do(f, kind, buf, 60<<10), engine.ErrRange)
		wantErr(t, engine.Do(f, kind, buf, 1<<62), engine.ErrRange)
		wantErr(t, engine.Do(f, kind, buf, -4096), engine.ErrRange)
	}
	if err := engine.Do(f, engine.Kind(77), buf, 0); err == nil {
		t.Error("an unknown kind of op succeeded")
	}
	wantErr(t, f.ReadAt(buf, 512), engine.ErrMisaligned)
	wantErr(t, f.ReadAt(buf, 60<<10), engine.ErrRange)
	wantErr(t, f.Zero(512, 4096), engine.ErrMisaligned)
	wantErr(t, f.Zero(0, 128<<10), engine.ErrRange)
	wantErr(t, f.Zero(-4096, 4096), engine.ErrRange)
	var io *engine.IOError
	if err := engine.Do(f, engine.Write, buf, 60<<10); !errors.As(err, &io) || io.Name != "f" || io.Len != 8192 {
		t.Errorf("error %v does not name file and range", err)
	}
	wantBytes(t, f, 0, make([]byte, 64<<10))
}

func testZero(t *testing.T, p Place) {
	f := create(t, open(t, p), "f", 4<<20)
	must(t, engine.Do(f, engine.Write, pattern(4<<20, 0, 3), 0))
	must(t, f.Zero(8192, 3<<20))
	must(t, f.Zero(0, 0))
	must(t, engine.Do(f, engine.Sync, nil, 0))
	wantBytes(t, f, 0, pattern(8192, 0, 3))
	wantBytes(t, f, 8192, make([]byte, 3<<20))
	wantBytes(t, f, 8192+3<<20, pattern(1<<20-8192, 8192+3<<20, 3))
}

// flight submits ops and waits for all of them.
type flight struct {
	wg sync.WaitGroup
}

func (fl *flight) op(kind engine.Kind, buf []byte, off int64) *engine.Op {
	fl.wg.Add(1)
	return &engine.Op{Kind: kind, Buf: buf, Off: off, Done: func(*engine.Op) { fl.wg.Done() }}
}

func (fl *flight) wait(t testing.TB) {
	t.Helper()
	done := make(chan struct{})
	go func() { fl.wg.Wait(); close(done) }()
	within(t, done)
}

func within(t testing.TB, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("operations do not complete")
	}
}

// testBatch submits far more at once than any ring or pool holds.
func testBatch(t *testing.T, p Place) {
	f := create(t, open(t, p), "f", 8<<20)
	f.Submit()
	var fl flight
	var ops []*engine.Op
	for off := int64(0); off < f.Size(); off += 8192 {
		ops = append(ops, fl.op(engine.Write, pattern(8192, off, 5), off))
	}
	f.Submit(ops...)
	fl.wait(t)
	var syncs []*engine.Op
	for range 8 {
		syncs = append(syncs, fl.op(engine.Sync, nil, 0))
	}
	f.Submit(syncs...)
	fl.wait(t)
	for _, op := range slices.Concat(ops, syncs) {
		must(t, op.Err)
	}
	wantBytes(t, f, 0, pattern(8<<20, 0, 5))
}

// testResubmit keeps a chain going out of Done, in which the same op is used again.
func testResubmit(t *testing.T, p Place) {
	f := create(t, open(t, p), "f", 1<<20)
	const chains, links = 8, 40
	done := make(chan struct{})
	var left, errs atomic.Int64
	left.Store(chains)
	for c := range chains {
		base, i := int64(c)*(128<<10), 0
		op := &engine.Op{Kind: engine.WriteSync, Buf: pattern(4096, base, uint32(c)), Off: base}
		op.Done = func(op *engine.Op) {
			if op.Err != nil {
				errs.Add(1)
			}
			if i++; i == links {
				if left.Add(-1) == 0 {
					close(done)
				}
				return
			}
			op.Kind = []engine.Kind{engine.WriteSync, engine.Sync, engine.Write, engine.Read}[i%4]
			op.Off = base + int64(i%32)*4096
			if op.Kind != engine.Read {
				fill(op.Buf, op.Off, uint32(c))
			}
			f.Submit(op)
		}
		f.Submit(op)
	}
	within(t, done)
	if n := errs.Load(); n > 0 {
		t.Errorf("%d ops failed", n)
	}
}

// testRandom plays random operations of many goroutines, each on a range of its own,
// against a copy in memory.
func testRandom(t *testing.T, p Place) {
	d := open(t, p)
	files := []engine.File{create(t, d, "x", 4<<20), create(t, d, "y", 4<<20)}
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			f, base := files[g%2], int64(g/2)<<20
			if err := randomOps(f, base, rounds, rand.New(rand.NewPCG(uint64(g), 42))); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
}

func randomOps(f engine.File, base int64, rounds int, rnd *rand.Rand) error {
	const blocks = 256
	model := make([]byte, blocks*4096)
	for round := range rounds {
		at := rnd.IntN(blocks)
		n := 1 + rnd.IntN(min(blocks-at, 16))
		off, ref := base+int64(at)*4096, model[at*4096:(at+n)*4096]
		switch rnd.IntN(6) {
		case 0:
			if err := f.Zero(off, int64(n)*4096); err != nil {
				return err
			}
			clear(ref)
		case 1, 2:
			buf := pattern(n*4096, off, uint32(round))
			kind := engine.Write + engine.Kind(rnd.IntN(2))
			if err := engine.Do(f, kind, buf, off); err != nil {
				return err
			}
			copy(ref, buf)
			engine.Free(buf)
		case 3:
			if err := engine.Do(f, engine.Sync, nil, 0); err != nil {
				return err
			}
		default:
			buf := engine.Alloc(n * 4096)
			err := f.ReadAt(buf, off)
			if rnd.IntN(2) == 0 {
				err = engine.Do(f, engine.Read, buf, off)
			}
			if err != nil {
				return err
			}
			if !bytes.Equal(buf, ref) {
				return fmt.Errorf("%s round %d: %d blocks at %d differ", f.Name(), round, n, off)
			}
			engine.Free(buf)
		}
	}
	return nil
}

// burst submits writes and reports how many are done; it does not wait.
func burst(f engine.File, n int) (done *atomic.Int64) {
	done = new(atomic.Int64)
	ops := make([]*engine.Op, n)
	for i := range ops {
		off := int64(i) * 4096 % f.Size()
		ops[i] = &engine.Op{Kind: engine.WriteSync, Buf: pattern(4096, off, 1), Off: off,
			Done: func(op *engine.Op) {
				if op.Err == nil {
					done.Add(1)
				}
			}}
	}
	f.Submit(ops...)
	return done
}

func testCloseDrains(t *testing.T, p Place) {
	f := create(t, open(t, p), "f", 1<<20)
	done := burst(f, 100)
	must(t, f.Close())
	if n := done.Load(); n != 100 {
		t.Errorf("%d of 100 ops were done when Close returned", n)
	}
}

func testDiskCloseDrains(t *testing.T, p Place) {
	d := open(t, p)
	f, idle := create(t, d, "f", 1<<20), create(t, d, "idle", 4096)
	done := burst(f, 100)
	must(t, d.Close())
	if n := done.Load(); n != 100 {
		t.Errorf("%d of 100 ops were done when Close returned", n)
	}
	wantErr(t, idle.Close(), engine.ErrClosed)
}

func testClosed(t *testing.T, p Place) {
	d := open(t, p)
	f := create(t, d, "f", 64<<10)
	must(t, f.Close())
	wantErr(t, f.Close(), engine.ErrClosed)
	buf := engine.Alloc(4096)
	wantErr(t, f.ReadAt(buf, 0), engine.ErrClosed)
	wantErr(t, f.Zero(0, 4096), engine.ErrClosed)
	wantErr(t, engine.Do(f, engine.Write, buf, 0), engine.ErrClosed)
	must(t, d.Close())
	wantErr(t, d.Close(), engine.ErrClosed)
	if _, err := d.Create("g", 4096); err == nil {
		t.Error("create on a closed disk succeeded")
	}
	if _, err := d.Open("f"); err == nil {
		t.Error("open on a closed disk succeeded")
	}
}

func testRemoveOpen(t *testing.T, p Place) {
	d := open(t, p)
	f := create(t, d, "f", 64<<10)
	must(t, d.Remove("f"))
	wantList(t, d)
	want := pattern(4096, 0, 8)
	must(t, engine.Do(f, engine.WriteSync, want, 0))
	g := create(t, d, "f", 32<<10)
	wantBytes(t, f, 0, want)
	wantBytes(t, g, 0, make([]byte, 32<<10))
	must(t, f.Close())
	must(t, g.Close())
}

func testSpace(t *testing.T, p Place) {
	d := open(t, p)
	total, free, err := d.Space()
	must(t, err)
	if free > total { // both are 0 on a file system that does not count, such as ramfs
		t.Errorf("space: total %d, free %d", total, free)
	}
}

// testNoAllocs holds the hot paths free of garbage.
func testNoAllocs(t *testing.T, p Place) {
	d := open(t, p)
	if d.Backend() == "sim" || raceEnabled {
		t.Skip("allocations count only on a real backend without the race detector")
	}
	f := create(t, d, "f", 64<<10)
	buf := pattern(4096, 0, 1)
	must(t, engine.Do(f, engine.Write, buf, 0))
	for _, c := range []struct {
		name string
		call func() error
	}{
		{"ReadAt", func() error { return f.ReadAt(buf, 0) }},
		{"Do(Read)", func() error { return engine.Do(f, engine.Read, buf, 0) }},
		{"Do(WriteSync)", func() error { return engine.Do(f, engine.WriteSync, buf, 0) }},
	} {
		n := testing.AllocsPerRun(20, func() { must(t, c.call()) })
		if n >= 1 {
			t.Errorf("%s allocates %v times", c.name, n)
		}
	}
}
