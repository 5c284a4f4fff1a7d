package segment

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine/sim"
	"github.com/varvefs/varve/status"
)

// act is one thing that can be done to a store.
type act struct {
	name string
	do   func(w *world)
}

var acts = []act{
	{"tiny", func(w *world) { w.must(w.write(Write{Chunk: 1, Version: 1, Create: true, Off: 10, Data: w.fill(100)})) }},
	{"block", func(w *world) {
		w.must(w.write(Write{Chunk: 1, Version: 2, Create: true, Off: 0, Data: w.fill(blockSize)}))
	}},
	{"odd", func(w *world) {
		w.must(w.write(Write{Chunk: 1, Version: 2, Create: true, Off: 3000, Data: w.fill(6000)}))
	}},
	{"other", func(w *world) {
		w.must(w.write(Write{Chunk: 2, Version: 1, Create: true, Off: 4096, Data: w.fill(3500)}))
	}},
	{"bulk", func(w *world) {
		w.must(w.write(Write{Chunk: 1, Version: 2, Create: true, Off: 8192, Data: w.fill(12000)}))
	}},
	{"zero", func(w *world) {
		w.must(w.write(Write{Chunk: 1, Version: 2, Create: true, What: WriteZero, Off: 50, Len: 5000}))
	}},
	{"trim", func(w *world) {
		w.must(w.write(Write{Chunk: 1, Version: 2, Create: true, What: WriteTrim, Off: 4000}))
	}},
	{"delete", func(w *world) { w.delete(1) }},
	{"version", func(w *world) { w.setVersion(1, 3) }},
	{"import", func(w *world) {
		w.must(w.replace(1, 4, true, Write{Off: 0, Data: w.fill(4096)}, Write{Off: 8192, Data: w.fill(50)}))
	}},
	{"abandon", func(w *world) { w.must(w.replace(2, 4, false, Write{Off: 0, Data: w.fill(5000)})) }},
	{"sync", func(w *world) { w.must(w.s.Sync([]chunk.ID{1, 2})) }},
	{"clean", func(w *world) { w.cleanOne() }},
	{"mark", func(w *world) { w.s.tick(0) }},
	{"checkpoint", func(w *world) { w.must(w.s.checkpoint(false)) }},
}

// must accepts what the model does not follow: a version that went back.
func (w *world) must(err error) {
	w.t.Helper()
	if err != nil && !errors.Is(err, status.StaleVersion) {
		w.fatal("%v", err)
	}
}

// cleanOne empties the sealed segment with the fewest live bytes, needed or not.
func (w *world) cleanOne() {
	w.s.mu.Lock()
	var best *segment
	for _, g := range w.s.segs {
		if g.emptiable() && (best == nil || g.live < best.live) {
			best = g
		}
	}
	if best != nil {
		best.evict = true
	}
	w.s.unlock()
	w.s.clean()
}

// sectors is how many sectors of the disk have a choice at a cut of the power.
func (w *world) sectors() int {
	n := 0
	w.disk.CrashClone(sim.ChooseFunc(func(int) int { n++; return 0 }))
	return n
}

// blocks makes one choice for the sectors of a block together.
func blocks(ch sim.Chooser) sim.Chooser {
	i, last := 0, 0
	return sim.ChooseFunc(func(n int) int {
		if i%(blockSize/512) == 0 {
			last = ch.Choose(n)
		}
		i++
		return min(last, n-1)
	})
}

// tear is one of the tears of n sectors that disks are known to leave: the first k, the
// last k, all but one, or one alone.
func tear(n, number int) sim.Chooser {
	i, k := -1, number%n
	return sim.ChooseFunc(func(of int) int {
		i++
		if [...]bool{i <= k, i > k, i != k, i == k}[number/n] {
			return of - 1
		}
		return 0
	})
}

// moment is what a cut of the power depends on.
type moment struct {
	writes uint64
	flying int
	states int
}

// explore cuts the power where the world is, unless nothing has changed since the last
// time: with every subset of the sectors in flight if these are no more than most, else
// with every subset of their blocks or some of them, and the same number of tears and
// of random subsets of sectors.
func (w *world) explore(most int) {
	m := moment{w.disk.Stats().Writes, len(w.disk.Pending()), 0}
	for _, h := range w.chunks {
		m.states += h.base<<16 + len(h.states)
	}
	if m == w.explored {
		return
	}
	w.explored = m
	n := w.sectors()
	if n == 0 {
		w.crash(sim.Oldest, 0)
		return
	}
	if n < 30 && 1<<n <= most {
		for e := new(sim.Every); e.Next(); {
			w.crash(e, 0)
		}
		return
	}
	if b := n * 512 / blockSize; b < 30 && 1<<b <= most {
		for e := new(sim.Every); e.Next(); {
			w.crash(blocks(e), 0)
		}
	} else {
		for range most {
			w.crash(blocks(sim.Random(w.rnd.Uint64())), 0)
		}
	}
	if 4*n <= most {
		for k := range 4 * n {
			w.crash(tear(n, k), 0)
		}
	} else {
		for range most {
			w.crash(tear(n, w.rnd.IntN(4*n)), 0)
		}
	}
	for range most {
		w.crash(sim.Random(w.rnd.Uint64()), 0)
	}
}

// past is a world whose store is half full, has been cleaned, and is about to go on to
// other segments. Others begin where it is, each on a copy of its disk.
func past(t testing.TB) *world {
	w := newWorld(t, "half full", 77, 512)
	for i := 0; ; i++ {
		id := chunk.ID(1 + w.rnd.IntN(5))
		off := uint32(w.rnd.IntN(modelSize/2-9000)) &^ (blockSize/8 - 1)
		w.must(w.write(Write{Chunk: id, Version: 1, Create: true, Off: off, Data: w.fill(1 + w.rnd.IntN(9000))}))
		if i%7 == 0 {
			w.delete(chunk.ID(6))
		} else if i%7 == 3 {
			w.must(w.write(Write{Chunk: 6, Version: 1, Create: true, Off: 0, Data: w.fill(3000)}))
		}
		w.disk.Drain()
		if i%10 == 9 {
			w.cleanOne()
		}
		small, bulk, live := w.s.heads[headSmall].seg, w.s.heads[headBulk].seg, w.s.index.live
		if i > 400 && bulk != nil && w.s.room(small) < 3*blockSize && w.s.room(bulk) < 4*blockSize && live > w.s.capacity()*2/5 {
			break
		}
		if i > 100000 {
			t.Fatal("the store never gets there")
		}
	}
	w.disk.Drain()
	return w
}

// after is a world that begins where w is.
func (w *world) after(t testing.TB, name string, seed uint64) *world {
	n := newWorldOn(t, name, seed, w.disk.CrashClone(sim.Newest))
	for id, h := range w.chunks {
		n.chunks[id] = &history{states: slices.Clone(h.states[len(h.states)-1:])}
	}
	n.seed = w.seed
	return n
}

// TestCrashEverywhere does every sequence of few acts, on an empty store and on one that
// is half full, and cuts the power before and after everything the disk does. Each
// sequence is done twice: with a disk that ends nothing before it must, so that much is
// in flight, and with one that ends everything at once.
//
// In the usual run the longest sequences take turns with the variants, the empty store more
// often, and most moments see a choice of the subsets only; with VARVE_TORTURE set all of
// them do all, as far as they come in its time. VARVE_PIECE=2/12 does the third of 12 parts of
// the longest sequences, with all variants and some subsets of each kind, however long it takes.
func TestCrashEverywhere(t *testing.T) {
	most := []int{64, 1, 1} // subsets of each kind, by length
	turns := [...]int{0, 2, 0, 2, 0, 2, 1, 3}
	switch {
	case testing.Short():
		most = []int{8, 1}
	case tortureTime() > 0:
		most = []int{1 << 9, 1 << 7, 1 << 5}
	}
	piece, pieces := 0, 0
	if v := os.Getenv("VARVE_PIECE"); v != "" {
		if n, err := fmt.Sscanf(v, "%d/%d", &piece, &pieces); n != 2 || piece < 0 || piece >= pieces {
			t.Fatalf("VARVE_PIECE=%q: want a number and how many, like 0/12: %v", v, err)
		}
		most = []int{0, 0, 8}
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // stores are made and dropped by the thousand
	half := past(t)
	began := time.Now()
	var total, sequences atomic.Int64
	t.Run("all", func(t *testing.T) {
		shards := runtime.GOMAXPROCS(0)
		for shard := range shards {
			t.Run(fmt.Sprint(shard), func(t *testing.T) {
				t.Parallel()
				for i, budget := range most {
					for n := shard; n < power(len(acts), i+1); n += shards {
						if limit := tortureTime(); limit > 0 && time.Since(began) > limit {
							return
						}
						if pieces > 0 && (i < len(most)-1 || n/shards%pieces != piece) {
							continue
						}
						for variant := range 4 {
							if i == len(most)-1 && tortureTime()+time.Duration(pieces) == 0 && variant != turns[n/shards%len(turns)] {
								continue
							}
							some := budget
							if variant&1 == 0 {
								some *= 2 // cheap
							}
							total.Add(int64(sequence(t, half, n, i+1, variant, some)))
							sequences.Add(1)
						}
					}
				}
			})
		}
	})
	took := time.Since(began)
	t.Logf("%d crash states of %d sequences, %.0f a minute", total.Load(), sequences.Load(), float64(total.Load())/took.Minutes())
}

func power(n, k int) int {
	p := 1
	for range k {
		p *= n
	}
	return p
}

// sequence does sequence n of length acts and returns the number of crash states.
func sequence(t *testing.T, half *world, n, length, variant, most int) int {
	full, eager := variant&1 != 0, variant&2 != 0
	name := fmt.Sprintf("half full %v, eager %v:", full, eager)
	var seq []act
	for k := n; len(seq) < length; k /= len(acts) {
		seq = append(seq, acts[k%len(acts)])
		name += " " + seq[len(seq)-1].name
	}
	seed := uint64(n*4 + variant)
	var w *world
	if full {
		w = half.after(t, name, seed)
	} else {
		w = newWorld(t, name, seed, 512)
	}
	w.onStep = func() { w.explore(most) }
	w.explore(most)
	for _, a := range seq {
		a.do(w)
		w.explore(most)
		for eager && w.disk.Step() {
			w.explore(most)
		}
	}
	for w.disk.Step() {
		w.explore(most)
	}
	w.check(w.s, true)
	return w.checks
}
