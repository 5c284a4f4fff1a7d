package sim_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/enginetest"
	"github.com/varvefs/varve/engine/sim"
)

// place keeps the contents over a Close, as a disk does.
type place struct{ disk *sim.Disk }

func (p *place) Open(testing.TB) engine.Disk {
	if p.disk == nil {
		p.disk = sim.New(sim.Config{Seed: 1})
	} else {
		p.disk = p.disk.CrashClone(sim.Newest)
	}
	return p.disk
}

func TestSuite(t *testing.T) {
	enginetest.Run(t, func(testing.TB) enginetest.Place { return &place{} })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, d *sim.Disk, size int64) engine.File {
	t.Helper()
	f, err := d.Create("f", size)
	must(t, err)
	return f
}

func block(tag byte) []byte { return bytes.Repeat([]byte{tag}, 4096) }

func aligned(tag byte, blocks int) []byte {
	b := engine.Alloc(blocks * 4096)
	for i := range b {
		b[i] = tag
	}
	return b
}

func submit(f engine.File, kind engine.Kind, tag byte, off int64) *engine.Op {
	op := &engine.Op{Kind: kind, Off: off, Done: func(*engine.Op) {}}
	if kind != engine.Sync {
		op.Buf = aligned(tag, 1)
	}
	f.Submit(op)
	return op
}

// states crashes the disk in every way and counts the outcomes of the range by their
// text, one letter per 4096 bytes of equal bytes.
func states(d *sim.Disk, blocks int) map[string]int {
	got := map[string]int{}
	for e := new(sim.Every); e.Next(); {
		b := d.CrashClone(e).Peek("f", 0, blocks*4096)
		var s strings.Builder
		for i := range blocks {
			part := b[i*4096:][:4096]
			switch {
			case !bytes.Equal(part, block(part[0])):
				s.WriteByte('#') // torn
			case part[0] == 0:
				s.WriteByte('.')
			default:
				s.WriteByte(part[0])
			}
		}
		got[s.String()]++
	}
	return got
}

func wantStates(t *testing.T, d *sim.Disk, blocks int, want ...string) {
	t.Helper()
	got := states(d, blocks)
	for _, w := range want {
		if got[w] == 0 {
			t.Errorf("no crash leaves %q", w)
		}
		delete(got, w)
	}
	if len(got) > 0 {
		t.Errorf("unexpected outcomes of a crash: %v", got)
	}
}

func coarse(mode sim.Mode) sim.Config { return sim.Config{Mode: mode, Grain: 4096} }

func TestCrashKeepsOnlyWhatWasSynced(t *testing.T) {
	d := sim.New(coarse(sim.Auto))
	f := create(t, d, 64<<10)
	must(t, engine.Do(f, engine.Write, aligned('a', 1), 0))
	wantStates(t, d, 2, "..", "a.")
	must(t, engine.Do(f, engine.Write, aligned('b', 2), 0))
	wantStates(t, d, 2, "..", "a.", "b.", ".b", "ab", "bb")
	must(t, engine.Do(f, engine.Sync, nil, 0))
	wantStates(t, d, 2, "bb")
	must(t, engine.Do(f, engine.WriteSync, aligned('c', 1), 4096))
	wantStates(t, d, 2, "bc")
}

func TestWriteSyncFlushesNothingElse(t *testing.T) {
	d := sim.New(coarse(sim.Auto))
	f := create(t, d, 64<<10)
	must(t, engine.Do(f, engine.Write, aligned('a', 1), 0))
	must(t, engine.Do(f, engine.WriteSync, aligned('b', 1), 4096))
	wantStates(t, d, 2, ".b", "ab")
	must(t, engine.Do(f, engine.WriteSync, aligned('c', 1), 0))
	wantStates(t, d, 2, "cb")
}

func TestZeroIsNotDurable(t *testing.T) {
	d := sim.New(coarse(sim.Auto))
	f := create(t, d, 64<<10)
	must(t, engine.Do(f, engine.WriteSync, aligned('a', 1), 0))
	must(t, f.Zero(0, 4096))
	wantStates(t, d, 1, "a", ".")
	must(t, engine.Do(f, engine.Sync, nil, 0))
	wantStates(t, d, 1, ".")
}

func TestInFlightWritesTear(t *testing.T) {
	d := sim.New(sim.Config{Mode: sim.Manual, Grain: 2048})
	f := create(t, d, 64<<10)
	submit(f, engine.WriteSync, 'a', 0)
	wantStates(t, d, 1, ".", "a", "#")
	submit(f, engine.WriteSync, 'b', 0)
	wantStates(t, d, 1, ".", "a", "b", "#")
	d.StepAt(0)
	wantStates(t, d, 1, "a", "b", "#")
	d.StepAt(0)
	wantStates(t, d, 1, "b")
}

// TestSyncCoversOnlyWhatWasDone: a write that was still in flight when the Sync was
// submitted has no promise.
func TestSyncCoversOnlyWhatWasDone(t *testing.T) {
	d := sim.New(coarse(sim.Manual))
	f := create(t, d, 64<<10)
	submit(f, engine.Write, 'a', 0)
	d.Drain()
	submit(f, engine.Write, 'b', 4096) // in flight
	submit(f, engine.Sync, 0, 0)
	d.StepAt(0) // the write ends before the sync
	d.StepAt(0)
	wantStates(t, d, 2, "a.", "ab")
}

func TestFailedSyncTaints(t *testing.T) {
	d := sim.New(coarse(sim.Auto))
	f := create(t, d, 64<<10)
	must(t, engine.Do(f, engine.Write, aligned('a', 1), 0))
	d.Inject(sim.Fault{Effect: sim.Fail, Kinds: []engine.Kind{engine.Sync}, Times: 1})
	if err := engine.Do(f, engine.Sync, nil, 0); !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v", err)
	}
	must(t, engine.Do(f, engine.Sync, nil, 0))
	wantStates(t, d, 1, ".", "a")
	must(t, engine.Do(f, engine.Write, aligned('b', 1), 0))
	must(t, engine.Do(f, engine.Sync, nil, 0))
	wantStates(t, d, 1, "b")
}

func TestFaultsOfWrites(t *testing.T) {
	for _, c := range []struct {
		fault sim.Fault
		fails bool
		sees  string // what a reader sees of two blocks, "?" for anything
		crash []string
	}{
		{sim.Fault{Effect: sim.Lose}, false, "..", []string{".."}},
		{sim.Fault{Effect: sim.Misdirect, Shift: 4096}, false, ".a", []string{".a"}},
		{sim.Fault{Effect: sim.Misdirect, Shift: -4096}, false, "..", []string{".."}},
		{sim.Fault{Effect: sim.Lie}, false, "a.", []string{"..", "a."}},
		{sim.Fault{Effect: sim.Flip}, false, "#.", []string{"#."}},
		{sim.Fault{Effect: sim.Fail, Err: syscall.ENOSPC}, true, "?", nil},
		{sim.Fault{Effect: sim.Lose, File: "g"}, false, "a.", []string{"a."}},
		{sim.Fault{Effect: sim.Lose, Off: 4096, Len: 4096}, false, "a.", []string{"a."}},
		{sim.Fault{Effect: sim.Lose, Skip: 1}, false, "a.", []string{"a."}},
		{sim.Fault{Effect: sim.Lose, Kinds: []engine.Kind{engine.Write}}, false, "a.", []string{"a."}},
	} {
		t.Run(fmt.Sprintf("%+v", c.fault), func(t *testing.T) {
			d := sim.New(coarse(sim.Auto))
			f := create(t, d, 64<<10)
			r := d.Inject(c.fault)
			err := engine.Do(f, engine.WriteSync, aligned('a', 1), 0)
			if (err != nil) != c.fails || c.fails && !errors.Is(err, c.fault.Err) {
				t.Errorf("error is %v", err)
			}
			if struck := c.sees != "a." || c.fault.Effect == sim.Lie; (r.Hits() == 1) != struck {
				t.Errorf("%d hits", r.Hits())
			}
			r.Lift()
			if c.sees == "?" {
				return
			}
			seen := d.CrashClone(sim.Newest)
			wantStates(t, seen, 2, c.sees)
			wantStates(t, d, 2, c.crash...)
		})
	}
}

func TestFaultsOfReads(t *testing.T) {
	d := sim.New(sim.Config{})
	f := create(t, d, 64<<10)
	must(t, engine.Do(f, engine.WriteSync, aligned('a', 1), 0))
	buf := engine.Alloc(4096)
	d.Inject(sim.Fault{Effect: sim.Flip, Times: 1})
	must(t, f.ReadAt(buf, 0))
	if bytes.Equal(buf, block('a')) {
		t.Error("no bit was flipped")
	}
	must(t, f.ReadAt(buf, 0))
	if !bytes.Equal(buf, block('a')) {
		t.Error("a flip in a read stayed")
	}
	r := d.Inject(sim.Fault{Effect: sim.Fail, Kinds: []engine.Kind{engine.Read}, Off: 4096, Len: 4096})
	must(t, f.ReadAt(buf, 0))
	for _, read := range []func() error{
		func() error { return f.ReadAt(buf, 4096) },
		func() error { return engine.Do(f, engine.Read, buf, 4096) },
	} {
		if err := read(); !errors.Is(err, syscall.EIO) {
			t.Errorf("read of a bad sector: %v", err)
		}
	}
	r.Lift()
	must(t, f.ReadAt(buf, 4096))
}

func TestLyingSync(t *testing.T) {
	d := sim.New(coarse(sim.Auto))
	f := create(t, d, 64<<10)
	d.Inject(sim.Fault{Effect: sim.Lie, Times: 1})
	must(t, engine.Do(f, engine.Write, aligned('a', 1), 0))
	must(t, engine.Do(f, engine.Sync, nil, 0))
	wantStates(t, d, 1, ".", "a")
}

func TestDecay(t *testing.T) {
	d := sim.New(sim.Config{})
	f := create(t, d, 64<<10)
	must(t, engine.Do(f, engine.WriteSync, aligned('a', 1), 0))
	if !d.Poke("f", 1000, []byte("decay")) || !d.Flip("f", 2000, 1) {
		t.Fatal("no such place")
	}
	if d.Poke("g", 0, nil) || d.Poke("f", 64<<10, []byte{1}) || d.Flip("f", -1, 0) {
		t.Error("a place that does not exist was changed")
	}
	buf := engine.Alloc(4096)
	must(t, f.ReadAt(buf, 0))
	want := block('a')
	copy(want[1000:], "decay")
	want[2000] ^= 2
	if !bytes.Equal(buf, want) {
		t.Error("contents are not as poked")
	}
}

func TestStall(t *testing.T) {
	d := sim.New(sim.Config{})
	f := create(t, d, 64<<10)
	r := d.Inject(sim.Fault{Effect: sim.Stall, Kinds: []engine.Kind{engine.WriteSync}})
	done := make(chan struct{})
	f.Submit(&engine.Op{Kind: engine.WriteSync, Buf: aligned('a', 1), Done: func(*engine.Op) { close(done) }})
	must(t, engine.Do(f, engine.Write, aligned('b', 1), 4096)) // overtakes
	if p := d.Pending(); len(p) != 1 || !p[0].Stalled || p[0].Kind != engine.WriteSync {
		t.Fatalf("pending: %+v", p)
	}
	r.Lift()
	<-done
	must(t, f.Close())
}

func TestNoSpace(t *testing.T) {
	d := sim.New(sim.Config{Capacity: 100 << 10})
	f := create(t, d, 64<<10)
	if _, err := d.Create("g", 64<<10); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("create on a full disk: %v", err)
	}
	must(t, d.Remove("f"))
	if _, free, _ := d.Space(); free != 36<<10 {
		t.Errorf("free space while a removed file is open: %d", free)
	}
	must(t, f.Close())
	if _, free, _ := d.Space(); free != 100<<10 {
		t.Errorf("free space at the end: %d", free)
	}
	d.SetCapacity(1 << 20)
	create(t, d, 1<<20)
}

func TestCrash(t *testing.T) {
	for _, mode := range []sim.Mode{sim.Auto, sim.Manual} {
		d := sim.New(sim.Config{Mode: mode})
		f := create(t, d, 64<<10)
		d.Inject(sim.Fault{Effect: sim.Stall})
		done := make(chan error, 1)
		f.Submit(&engine.Op{Kind: engine.WriteSync, Buf: aligned('a', 1),
			Done: func(op *engine.Op) { done <- op.Err }})
		after := d.Crash(sim.Newest)
		if err := <-done; !errors.Is(err, sim.ErrCrashed) {
			t.Errorf("pending op: %v", err)
		}
		buf := engine.Alloc(4096)
		if err := f.ReadAt(buf, 0); !errors.Is(err, sim.ErrCrashed) {
			t.Errorf("read: %v", err)
		}
		if err := engine.Do(f, engine.Sync, nil, 0); !errors.Is(err, sim.ErrCrashed) {
			t.Errorf("sync: %v", err)
		}
		if _, err := d.Open("f"); !errors.Is(err, sim.ErrCrashed) {
			t.Errorf("open: %v", err)
		}
		must(t, f.Close())
		must(t, d.Close())
		g, err := after.Open("f")
		must(t, err)
		must(t, g.ReadAt(buf, 0))
		if !bytes.Equal(buf, block('a')) {
			t.Error("Newest lost the write in flight")
		}
	}
}

func TestClonesAreApart(t *testing.T) {
	d := sim.New(sim.Config{Grain: 4096})
	f := create(t, d, 1<<20)
	must(t, engine.Do(f, engine.WriteSync, aligned('a', 4), 0))
	c := d.CrashClone(sim.Newest)
	g, err := c.Open("f")
	must(t, err)
	must(t, engine.Do(g, engine.WriteSync, aligned('b', 1), 0))
	must(t, engine.Do(f, engine.WriteSync, aligned('c', 1), 4096))
	wantStates(t, d, 4, "acaa")
	wantStates(t, c, 4, "baaa")
}

// TestSeedRepeats plays the same program twice and wants the same history.
func TestSeedRepeats(t *testing.T) {
	play := func(seed uint64) (log []string, after []byte) {
		d := sim.New(sim.Config{Seed: seed, Mode: sim.Manual, Trace: func(f string, a ...any) {
			log = append(log, fmt.Sprintf(f, a...))
		}})
		f := create(t, d, 1<<20)
		d.Inject(sim.Fault{Effect: sim.Fail, Chance: 0.1})
		d.Inject(sim.Fault{Effect: sim.Flip, Chance: 0.1})
		for i := range 200 {
			submit(f, engine.Kind(1+i%3), byte(i), int64(i%256)*4096)
			if i%3 == 0 {
				d.Step()
			}
		}
		return log, d.CrashClone(sim.Random(seed)).Peek("f", 0, 1<<20)
	}
	log1, after1 := play(5)
	log2, after2 := play(5)
	log3, _ := play(6)
	if strings.Join(log1, "\n") != strings.Join(log2, "\n") || !bytes.Equal(after1, after2) {
		t.Error("the same seed gave another history")
	}
	if strings.Join(log1, "\n") == strings.Join(log3, "\n") {
		t.Error("another seed gave the same history")
	}
}

func TestChangedBufferIsCaught(t *testing.T) {
	d := sim.New(sim.Config{Mode: sim.Manual})
	op := submit(create(t, d, 64<<10), engine.Write, 'a', 0)
	op.Buf[17]++
	defer func() {
		if r := recover(); r == nil || !strings.HasPrefix(fmt.Sprint(r), "BUG: the buffer") {
			t.Errorf("recovered %v", r)
		}
	}()
	d.Step()
}

// TestRandomChooser: over many seeds both extremes and mixtures come up.
func TestRandomChooser(t *testing.T) {
	var none, all, mixed int
	for seed := range uint64(300) {
		ch, kept := sim.Random(seed), 0
		for range 100 {
			k := ch.Choose(3)
			if k < 0 || k > 2 {
				t.Fatalf("chose %d of 3", k)
			}
			if k > 0 {
				kept++
			}
		}
		switch kept {
		case 0:
			none++
		case 100:
			all++
		default:
			mixed++
		}
	}
	if none < 20 || all < 20 || mixed < 100 {
		t.Errorf("of 300 crashes %d lose everything, %d nothing, %d something", none, all, mixed)
	}
}
