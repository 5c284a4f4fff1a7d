package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine/sim"
)

// story is all that an index says, as text.
func story(s *Store) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for id := range s.index.table {
		r := s.index.find(id)
		if !r.alive() {
			continue
		}
		lines = append(lines, fmt.Sprintf("chunk %v version %d writes %d length %d base %d attest %d", id, r.version, r.writes, r.length, r.base, r.attest))
		for _, e := range s.index.unpacked(&r.body) {
			if e.zero() {
				continue // the log forgets those whose data is gone
			}
			lines = append(lines, fmt.Sprintf("chunk %v %d+%d in %d at %d edge %x sums %x", id, e.off, e.len, e.seg, e.pos, e.edge, s.index.sumsOf(&e)))
		}
	}
	for _, g := range s.segs {
		if g.state == segSealed {
			lines = append(lines, fmt.Sprintf("segment %d, frames %d..%d to %d", g.n, g.first, g.last, g.end))
		}
	}
	slices.Sort(lines)
	return lines
}

// difference is what of a is not in b.
func difference(a, b []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(a), func(line string) bool { return slices.Contains(b, line) }), "\n")
}

// openClone opens what a crash would leave of a world's disk, without the checkpoints whose
// slots are named. used tells whether one was used.
func (w *world) openClone(ch sim.Chooser, without ...int) (s *Store, used bool) {
	w.t.Helper()
	d := w.disk.CrashClone(ch)
	for _, slot := range without {
		if err := d.Remove(checkpointName(slot)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.t.Fatal(err)
		}
	}
	var log strings.Builder
	cfg := w.config(d.Step)
	cfg.Disk = d
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	s, err := Open(cfg)
	if err != nil {
		w.fatal("open after a crash: %v", err)
	}
	checkBooks(w.t, w.name, s)
	return s, strings.Contains(log.String(), "checkpoint=true")
}

// compare holds that a crash now leads to the same index with each checkpoint and without.
func (w *world) compare() (used int) {
	w.t.Helper()
	seed := w.rnd.Uint64()
	plain, with := w.openClone(sim.Random(seed), 0, 1)
	if with {
		w.fatal("a checkpoint that is not there was used")
	}
	want := story(plain)
	for _, without := range [][]int{nil, {0}, {1}} {
		s, with := w.openClone(sim.Random(seed), without...)
		if with {
			used++
		}
		if got := story(s); !slices.Equal(got, want) {
			w.fatal("with a checkpoint (%v; without those of %v) there is\n%s\nthe log alone says\n%s", with, without, difference(got, want), difference(want, got))
		}
	}
	return used
}

// TestCheckpointIsTheLog takes checkpoints at any time of random histories, while much
// changes under them and power is cut, and holds that recovery comes to the same with them
// as without.
func TestCheckpointIsTheLog(t *testing.T) {
	runs, steps := 12, 250
	if testing.Short() {
		runs = 3
	}
	used, taken := 0, 0
	for run := range runs {
		w := newWorld(t, fmt.Sprintf("seed %d", run), uint64(run), 512)
		inside := false
		w.onStep = func() {
			if s := w.s; s.snap == nil || inside {
				return
			}
			inside = true
			if w.rnd.IntN(2) == 0 {
				w.quick()
			}
			if w.rnd.IntN(60) == 0 {
				used += w.compare()
			}
			inside = false
		}
		for range steps {
			w.random()
			if w.rnd.IntN(12) == 0 {
				if err := w.s.checkpoint(true); err != nil {
					w.fatal("checkpoint: %v", err)
				}
				taken++
			}
			if w.rnd.IntN(10) == 0 {
				used += w.compare()
			}
			if w.rnd.IntN(100) == 0 {
				w.restart(sim.Random(w.rnd.Uint64()))
			}
		}
		w.onStep = nil
		w.check(w.s, true)
	}
	t.Logf("%d checkpoints taken, %d used", taken, used)
	if used < taken {
		t.Error("checkpoints are hardly ever used")
	}
}

// quick changes something without waiting.
func (w *world) quick() {
	id := chunk.ID(1 + w.rnd.IntN(6))
	h := &w.s.heads[headSmall]
	if len(h.flight) >= maxFlight-2 || w.s.freeSegments() <= dataFloor+2 {
		return
	}
	if w.rnd.IntN(4) == 0 {
		w.delete(id)
		return
	}
	off := uint32(w.rnd.IntN(modelSize - 5000))
	v := max(w.history(id).last().version, 1)
	w.must(w.write(Write{Chunk: id, Version: v, Create: true, Off: off, Data: w.fill(1 + w.rnd.IntN(5000))}))
}

// TestCheckpointDamaged damages the newest checkpoint, then both: the older one is used, then
// the log.
func TestCheckpointDamaged(t *testing.T) {
	w := newWorld(t, "damage", 5, blockSize)
	for i := range 40 {
		id := chunk.ID(1 + i%5)
		w.must(w.write(Write{Chunk: id, Version: 1, Create: true, Off: uint32(i%7) * 4096, Data: w.fill(3000 + i*100)}))
		if i%15 == 14 {
			w.must(w.s.Sync([]chunk.ID{1, 2, 3, 4, 5}))
			w.must(w.s.checkpoint(false))
		}
	}
	w.must(w.s.Sync([]chunk.ID{1, 2, 3, 4, 5}))
	newest := w.s.checkpoints.generation
	whole, used := w.openClone(sim.Newest)
	if want := story(whole); !used {
		t.Fatal("no checkpoint was used")
	} else {
		for i, at := range []int64{100, blockSize + 20, blockSize + 100, 2*blockSize + 60} {
			for damaged := 1; damaged <= checkpointSlots; damaged++ {
				was := make(map[string][]byte)
				for k := range damaged {
					name := checkpointName(int((newest - uint64(k)) % checkpointSlots))
					was[name] = w.disk.Peek(name, at, 8)
					w.disk.Poke(name, at, []byte("varve!!!"))
				}
				s, used := w.openClone(sim.Newest)
				if used != (damaged == 1) || !slices.Equal(story(s), want) {
					t.Errorf("damage %d in %d checkpoints: one used: %v; or the index differs", i, damaged, used)
				}
				for name, b := range was {
					w.disk.Poke(name, at, b)
				}
			}
		}
	}
}

// TestCheckpointNoRoom: a file system without room for a checkpoint costs only that.
func TestCheckpointNoRoom(t *testing.T) {
	d := sim.New(sim.Config{Capacity: superFile + 16*256<<10 + 4096})
	cfg := smallConfig(d)
	cfg.Limit = 16 * 256 << 10
	s := mustOpen(t, cfg)
	for id := range chunk.ID(50) {
		tk, err := s.Write(Write{Chunk: id + 1, Version: 1, Create: true, Data: fill(20000, uint64(id))})
		if err == nil {
			err = tk.Wait()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	made := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.segs)
	}
	for deadline := time.Now().Add(time.Minute); made() < 16; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the second container is not made")
		}
	}
	if err := s.checkpoint(false); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("checkpoint without room: %v", err)
	}
	if _, err := s.Write(Write{Chunk: 1, Version: 1, Data: fill(100, 1)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// FuzzCheckpoint gives pages of any bytes to the decoder.
func FuzzCheckpoint(f *testing.F) {
	x := newIndex(func(uint32, int64) {})
	r := x.make(7)
	r.flags, r.attest = recAlive, 1
	x.put(&r.body, extent{off: 8192, len: 5000, seg: 2, pos: 12288}, []uint32{1, 2})
	x.put(&r.body, extent{off: 100, len: 50, seg: 1, pos: 4300, edge: 10 | 5<<12}, []uint32{3})
	x.put(&r.body, extent{off: 20000, len: 9, seg: 1, edge: extentZero}, nil)
	f.Add(uint8(pageChunks), x.appendChunk(nil, r))
	f.Add(uint8(pageSegments), appendSegment(nil, &listed{n: 3, frames: 4, end: 8192, chunks: []chunk.ID{1, 9}}))
	f.Add(uint8(pageImports), x.appendImport(nil, &Import{id: 5, number: 77, version: 2}))
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		x := newIndex(func(uint32, int64) {})
		same := []bool{true, true, false, true}
		s := &Store{index: x}
		again := newPage(kind)[:0]
		d := loader{segs: 4, segSize: minSegment,
			segments: func(l *listed) error { again = appendSegment(again, l); return nil },
			chunk: func(r *record, extents []extent, sums []uint32) error {
				if x.find(r.id) == nil {
					s.adopt(r, extents, sums, same)
				}
				return nil
			},
			imported: func(chunk.ID, uint64, chunk.Version, []extent, []uint32) error { return nil },
		}
		if d.page(kind, b) == nil && kind == pageSegments && string(again) != string(b) {
			t.Errorf("%x is encoded again as %x", b, again)
		}
	})
}
