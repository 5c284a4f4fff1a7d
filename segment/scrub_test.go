package segment

import (
	"errors"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/sim"
	"github.com/varvefs/varve/status"
)

// scrubWorld is a store with a past: sealed, open and free segments.
func scrubWorld(t *testing.T) *world {
	w := newWorld(t, "scrub", 3, blockSize)
	for i := range 60 {
		w.must(w.write(Write{Chunk: chunk.ID(1 + i%5), Version: 1, Create: true, Off: uint32(i%4) * 8192, Data: w.fill(1 + i*131%9000)}))
		w.disk.Drain()
	}
	w.cleanOne()
	w.disk.Drain()
	if n := w.s.Scrub(); n != 0 {
		t.Fatalf("%d damages in a good store", n)
	}
	return w
}

// one finds a segment in a state.
func (w *world) one(state segState) *segment {
	for _, g := range w.s.segs {
		if g.state == state && (state != segOpen || g.frames > 1) {
			return g
		}
	}
	w.fatal("no segment is %v", state)
	return nil
}

// TestScrubFindsFlips flips one bit anywhere that matters: in live data, in a header of an
// open segment, in a seal, in a free mark, in the superblock. One pass finds it, heals what
// is not data, and the next pass finds nothing more.
func TestScrubFindsFlips(t *testing.T) {
	cases := map[string]func(w *world) (file string, off int64){
		"data": func(w *world) (string, int64) {
			e := w.s.index.unpacked(&w.s.index.find(2).body)[0]
			g := w.s.segs[e.seg]
			return g.file.Name(), g.base + int64(e.pos) + 10
		},
		"header of an open segment": func(w *world) (string, int64) { g := w.one(segOpen); return g.file.Name(), g.base + 100 },
		"body of a seal": func(w *world) (string, int64) {
			g := w.one(segSealed)
			return g.file.Name(), g.base + int64(w.s.segSize) - 2*blockSize + 7
		},
		"trailer": func(w *world) (string, int64) {
			g := w.one(segSealed)
			return g.file.Name(), g.base + int64(w.s.segSize) - 50
		},
		"free mark at the start": func(w *world) (string, int64) { g := w.one(segFree); return g.file.Name(), g.base + 20 },
		"free mark at the end": func(w *world) (string, int64) {
			g := w.one(segFree)
			return g.file.Name(), g.base + int64(w.s.segSize) - 4000
		},
		"superblock": func(w *world) (string, int64) { return superName, superStride + 60 },
	}
	for name, place := range cases {
		t.Run(name, func(t *testing.T) {
			w := scrubWorld(t)
			file, off := place(w)
			if !w.disk.Flip(file, off, 3) {
				t.Fatal("no such place")
			}
			if n := w.s.Scrub(); n != 1 {
				t.Fatalf("%d damages found, want 1", n)
			}
			for w.s.keepOnce() {
			}
			w.disk.Drain()
			if name == "data" {
				if e := <-w.s.Events(); e.Kind != Damaged || e.Chunk != 2 {
					t.Fatalf("event %+v", e)
				}
				w.must(w.replace(2, 2, true, Write{Off: 0, Data: w.fill(9000)})) // as the master would have it done
				w.must(w.s.Sync([]chunk.ID{2}))
			}
			if n := w.s.Scrub(); n != 0 {
				t.Fatalf("%d damages are still there", n)
			}
			w.check(w.s, true)
			w.restart(sim.Random(1))
		})
	}
}

// TestScrubFindsWrongWrites lets one write be lost, or go astray, that the disk says it has
// done. A pass finds all that it has cost.
func TestScrubFindsWrongWrites(t *testing.T) {
	found := 0
	for run := range 60 {
		w := newWorld(t, "wrong writes", uint64(run), blockSize)
		f := sim.Fault{Effect: sim.Lose, Kinds: []engine.Kind{engine.WriteSync}, File: containerName(0), Skip: w.rnd.IntN(40), Times: 1}
		if run%2 == 1 {
			f.Effect, f.Shift = sim.Misdirect, int64(1+w.rnd.IntN(10))*blockSize
		}
		w.disk.Inject(f)
		for range 40 {
			id := chunk.ID(1 + w.rnd.IntN(6))
			w.must(w.write(Write{Chunk: id, Version: 1, Create: true, Off: uint32(w.rnd.IntN(modelSize - 9000)), Data: w.fill(1 + w.rnd.IntN(9000))}))
			w.disk.Drain()
		}
		n := w.s.Scrub()
		suspect := make(map[chunk.ID]bool)
		for len(w.s.events) > 0 {
			suspect[(<-w.s.events).Chunk] = true
		}
		for id := range w.chunks {
			_, err := w.s.Read(id, 0, 9, 0, make([]byte, modelSize), nil)
			if errors.Is(err, status.Corrupt) != suspect[id] {
				t.Fatalf("run %d: chunk %v: read ends with %v, the scrubber announced %v", run, id, err, suspect[id])
			}
		}
		if n > 0 {
			found++
		} else if len(suspect) > 0 {
			t.Fatalf("run %d: damage was not counted", run)
		}
	}
	t.Logf("damage in %d of 60 runs", found)
	if found < 20 {
		t.Error("hardly anything was found")
	}
}

// TestScrubGoesOn: the position survives a restart, and passes follow each other.
func TestScrubGoesOn(t *testing.T) {
	w := scrubWorld(t)
	for range 7 {
		if !w.s.scrubStep(time.Nanosecond) {
			t.Fatal("the scrubber stops")
		}
	}
	w.s.noteScrub(0)
	w.s.mu.Lock()
	w.s.scrub.at.found = 11
	w.s.unlock()
	w.s.noteScrub(0)
	w.restart(sim.Oldest)
	got := w.s.Scrubbed()
	if got.Segment != 7 || got.Passes != 0 || got.Found != 11 || got.Began.IsZero() || !got.Finished.IsZero() {
		t.Fatalf("after a restart: %+v", got)
	}
	for range int(got.Segments) - 7 + 1 {
		w.s.scrubStep(time.Nanosecond)
	}
	if got = w.s.Scrubbed(); got.Passes != 1 || got.Segment != 0 || got.Finished.IsZero() {
		t.Fatalf("after a pass: %+v", got)
	}
}

// TestScrubPace: a pass takes the time that it is given, however little there is to read,
// and it finds damage by itself.
func TestScrubPace(t *testing.T) {
	d := sim.New(sim.Config{})
	cfg := smallConfig(d)
	cfg.Scrub = 300 * time.Millisecond
	began := time.Now()
	s := mustOpen(t, cfg)
	tk, err := s.Write(Write{Chunk: 5, Version: 1, Create: true, Data: fill(300000, 1)})
	if err == nil {
		err = tk.Wait()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	e := s.index.unpacked(&s.index.find(5).body)[0]
	s.unlock()
	d.Flip(s.segs[e.seg].file.Name(), s.segs[e.seg].base+int64(e.pos)+5, 1)
	select {
	case e := <-s.Events():
		if e.Kind != Damaged || e.Chunk != 5 {
			t.Fatalf("event %+v", e)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("damage is not found")
	}
	for end := time.Now().Add(30 * time.Second); s.Scrubbed().Passes < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no second pass: %+v", s.Scrubbed())
		}
	}
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("two passes of 300 ms took %v", took)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestReadAround: a block that cannot be read costs only the bytes that lie in it, and a
// bit that flipped on the way costs nothing.
func TestReadAround(t *testing.T) {
	w := newWorld(t, "read around", 1, blockSize)
	w.must(w.write(Write{Chunk: 1, Version: 1, Create: true, Data: w.fill(8192)}))
	w.must(w.write(Write{Chunk: 1, Version: 1, Create: true, Off: 8192, Data: w.fill(5000)}))
	w.must(w.s.Sync([]chunk.ID{1}))
	l := w.s.index.unpacked(&w.s.index.find(1).body)
	g := w.s.segs[l[0].seg]
	bad := w.disk.Inject(sim.Fault{Effect: sim.Fail, Kinds: []engine.Kind{engine.Read}, File: g.file.Name(), Off: g.base + int64(l[0].pos) + 8192, Len: 1})
	if _, err := w.s.Read(1, 1, 1, 0, make([]byte, 13192), nil); err != nil {
		t.Fatalf("read around a block that nobody needs: %v", err)
	}
	bad.Lift()
	w.disk.Inject(sim.Fault{Effect: sim.Flip, Kinds: []engine.Kind{engine.Read}, Times: 1})
	if _, err := w.s.Read(1, 1, 1, 0, make([]byte, 13192), nil); err != nil {
		t.Fatalf("a bit flipped on the way: %v", err)
	}
	if n := w.s.stat.again.Get(); n == 0 {
		t.Error("nothing was read twice")
	}
	w.check(w.s, true)
}

// TestSlowDisk: a disk that is too slow again and again is called so, gets better, and is
// given up when an operation never ends.
func TestSlowDisk(t *testing.T) {
	d := sim.New(sim.Config{})
	cfg := smallConfig(d)
	cfg.SlowAfter, cfg.FailAfter = 50*time.Millisecond, time.Hour
	s := mustOpen(t, cfg)
	r := d.Inject(sim.Fault{Effect: sim.Stall, Kinds: []engine.Kind{engine.WriteSync}})
	tk, err := s.Write(Write{Chunk: 1, Version: 1, Create: true, Data: fill(5000, 1)})
	if err != nil {
		t.Fatal(err)
	}
	await := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not in time: %s", what)
			}
		}
	}
	slow := func() bool { _, slow := s.Slow(); return slow }
	await("the disk is slow", slow)
	if why, _ := s.Slow(); why == "" {
		t.Error("nobody says why")
	}
	r.Lift()
	if err := tk.Wait(); err != nil {
		t.Fatal(err)
	}
	await("the disk is good again", func() bool { return !slow() })
	s.mu.Lock()
	s.health.giveUp = 100 * time.Millisecond
	s.unlock()
	r = d.Inject(sim.Fault{Effect: sim.Stall, Kinds: []engine.Kind{engine.WriteSync}})
	if tk, err = s.Write(Write{Chunk: 1, Version: 1, Data: fill(5000, 1)}); err == nil {
		err = tk.Wait()
	}
	if !errors.Is(err, status.DiskFailed) {
		t.Fatalf("a write that never ends: %v", err)
	}
	if e := <-s.Events(); e.Kind != Failed {
		t.Fatalf("event %+v", e)
	}
	r.Lift()
	s.Close()
}
