package segment

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/sim"
	"github.com/varvefs/varve/status"
)

// A storm is a long random run on a disk with faults. What can go wrong, and how often,
// is drawn from the seed of the run; a run is repeated with its seed alone:
//
//	VARVE_SEED=17 go test -run TestStorm ./segment

// tally counts what storms have done.
type tally struct {
	runs, crashes, faults, noticed, cleaned, merged int
}

func (a *tally) add(b tally) {
	a.runs += b.runs
	a.crashes += b.crashes
	a.faults += b.faults
	a.noticed += b.noticed
	a.cleaned += b.cleaned
	a.merged += b.merged
}

func (a *tally) log(t *testing.T, took time.Duration) {
	t.Logf("%d runs, %d crash states (%.0f a minute), %d faults, damage noticed in %d runs, %d segments cleaned, %d extents merged",
		a.runs, a.crashes, float64(a.crashes)/took.Minutes(), a.faults, a.noticed, a.cleaned, a.merged)
}

// TestStorm runs storms: the same few in every usual run, other ones for as long as
// VARVE_TORTURE says, the one that VARVE_SEED names.
func TestStorm(t *testing.T) {
	var sum tally
	began := time.Now()
	defer func() { sum.log(t, time.Since(began)) }()
	if v := os.Getenv("VARVE_SEED"); v != "" {
		seed, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("VARVE_SEED: %v", err)
		}
		sum.add(storm(t, seed))
		return
	}
	first, runs := uint64(1), 120
	if testing.Short() {
		runs = 20
	}
	limit := tortureTime()
	if limit > 0 {
		first = uint64(time.Now().UnixNano()) >> 10
		t.Logf("the first seed is %d", first)
	}
	for seed := first; limit > 0 && time.Since(began) < limit || limit == 0 && seed < first+uint64(runs); seed++ {
		sum.add(storm(t, seed))
	}
}

// storm does one run.
func storm(t *testing.T, seed uint64) tally {
	rnd := rand.New(rand.NewPCG(seed, 0x73746f726d))
	grain := 512 << (3 * rnd.IntN(2))
	w := newWorldOn(t, fmt.Sprintf("replay with VARVE_SEED=%d go test -run TestStorm ./segment", seed), seed,
		sim.New(sim.Config{Seed: seed, Mode: sim.Manual, Grain: grain}))
	w.rnd = rnd
	if rnd.IntN(3) > 0 {
		return w.honestStorm()
	}
	return w.foulStorm()
}

// honestStorm is a run on a disk that fails but does not lie: writes and reads end with
// errors, the host has no room, the power fails, also while the store recovers.
func (w *world) honestStorm() (sum tally) {
	rnd := w.rnd
	crashes, restarts := 4+rnd.IntN(200), 50+rnd.IntN(300)
	writeErrors, fullHost := 0, rnd.IntN(4) == 0
	if rnd.IntN(2) == 0 {
		writeErrors = 20 + rnd.IntN(100)
	}
	w.onStep = func() {
		if w.rnd.IntN(crashes) == 0 {
			w.crash(sim.Random(w.rnd.Uint64()), 1)
		}
	}
	count := func() {
		sum.faults += int(w.s.stat.failures.Get())
		sum.cleaned += int(w.s.stat.cleaned.Get())
		sum.merged += int(w.s.stat.merged.Get())
	}
	left := maxFaults
	for range 200 + rnd.IntN(600) {
		if writeErrors > 0 && left > 0 && rnd.IntN(writeErrors) == 0 {
			left--
			w.disk.Inject(sim.Fault{Effect: sim.Fail, Kinds: []engine.Kind{engine.WriteSync}, File: containerName(uint32(rnd.IntN(4))), Skip: rnd.IntN(4), Times: 1})
		}
		if fullHost && rnd.IntN(50) == 0 {
			w.disk.SetCapacity(int64(1+rnd.IntN(24)) * minSegment)
		}
		w.random()
		if rnd.IntN(crashes) == 0 {
			w.crash(sim.Random(rnd.Uint64()), 2)
		}
		if rnd.IntN(restarts) == 0 {
			count()
			w.disk.SetCapacity(1 << 40)
			w.restart(sim.Random(rnd.Uint64()))
			left = maxFaults
		}
	}
	w.check(w.s, true)
	count()
	if n := w.s.Scrub(); n > 0 && sum.faults == 0 {
		w.fatal("the scrubber found %d damages on an honest disk", n)
	}
	sum.runs, sum.crashes = 1, w.checks
	return sum
}

// foulStorm is a run on a disk that loses, misplaces or spoils some writes and says that
// they are done, or spoils what it holds. What the store then reads must be right, or
// known to be wrong; after a restart it may also be older if nothing that came later tells,
// for a disk that loses the last thing it was given looks as if it had never been.
func (w *world) foulStorm() (sum tally) {
	rnd := w.rnd
	w.keepAll, w.damaged = true, true
	var rules []*sim.Rule
	for range 1 + rnd.IntN(3) {
		f := sim.Fault{
			Effect: []sim.Effect{sim.Lose, sim.Misdirect, sim.Flip, sim.Lie, sim.Fail}[rnd.IntN(5)],
			Kinds:  []engine.Kind{engine.WriteSync}, File: containerName(uint32(rnd.IntN(3))), Skip: rnd.IntN(300), Times: 1 + rnd.IntN(2)*rnd.IntN(3),
		}
		if f.Effect == sim.Fail {
			f.Kinds, f.Off, f.Len, f.Times = []engine.Kind{engine.Read}, int64(rnd.IntN(4*minSegment))&^(blockSize-1), blockSize, 0
		}
		f.Shift = int64(rnd.IntN(40)-20) * blockSize
		if f.Effect == sim.Misdirect && f.Shift == 0 {
			f.Shift = blockSize
		}
		rules = append(rules, w.disk.Inject(f))
	}
	for range 100 + rnd.IntN(400) {
		if !w.foulAct() {
			break
		}
	}
	for _, r := range rules {
		sum.faults += r.Hits()
	}
	closed := rnd.IntN(2) == 0
	if closed {
		if err := w.s.Close(); errors.Is(err, status.DiskFailed) {
			closed = false
		} else if err != nil {
			w.fatal("close: %v", err)
		}
	}
	d := w.disk.CrashClone(sim.Random(rnd.Uint64()))
	if rnd.IntN(2) == 0 {
		names, _ := d.List()
		name := names[rnd.IntN(len(names))]
		for range 1 + rnd.IntN(3) {
			d.Flip(name, int64(rnd.IntN(4*minSegment)), uint(rnd.IntN(8)))
			sum.faults++
		}
	}
	if w.judge(d, closed && sum.faults == 1) {
		sum.noticed++
	}
	sum.runs, sum.crashes = 1, 1
	return sum
}

// foulAct does one random thing and reads a chunk. false: the store has given up.
func (w *world) foulAct() bool {
	id := chunk.ID(1 + w.rnd.IntN(6))
	last := w.history(id).last()
	v := max(last.version, 1)
	off := uint32(w.rnd.IntN(modelSize - 9000))
	var err error
	switch w.rnd.IntN(14) {
	case 0:
		err = w.tryDelete(id)
	case 1:
		err = w.write(Write{Chunk: id, Version: v, Create: true, What: WriteZero, Off: off, Len: 5000})
	case 2:
		w.s.keepOnce()
		w.s.tick(0)
	case 3:
		w.cleanOne()
	case 4:
		w.s.mu.Lock()
		n := uint32(w.rnd.IntN(len(w.s.segs)))
		w.s.unlock()
		w.s.scrubSegment(n, func(int) bool { return w.rnd.IntN(20) > 0 })
	case 5:
		if n := w.find(w.s, id, true); n < 0 {
			w.fatal("chunk %v reads wrong", id)
		}
	case 6:
		err = w.replace(id, v+1, true, Write{Off: off, Data: w.fill(9000)}, Write{Off: 0, Data: w.fill(100)})
	case 7: // a frame of its own
		err = w.write(Write{Chunk: id, Version: v, Create: true, Off: min(off, modelSize-w.s.partMax) &^ (blockSize - 1), Data: w.fill(int(w.s.partMax))})
	default:
		err = w.write(Write{Chunk: id, Version: v, Create: true, Off: off, Data: w.fill(1 + w.rnd.IntN(9000))})
	}
	for w.rnd.IntN(3) > 0 && w.disk.Step() {
	}
	switch {
	case err == nil, errors.Is(err, status.StaleVersion):
		return true
	case errors.Is(err, status.NoSpace), errors.Is(err, status.DiskFailed):
		return false
	}
	w.fatal("%v", err)
	return false
}

// tryDelete deletes a chunk, if the store still takes that.
func (w *world) tryDelete(id chunk.ID) error {
	w.s.mu.Lock()
	err := w.s.usable()
	w.s.unlock()
	if err == nil {
		w.delete(id)
	}
	return err
}

// judge opens what a foul disk holds after a cut of the power and tells whether any damage
// was noticed. Every chunk must be in a state that it once had (exact: the newest), or be
// announced. A chunk that is missing is noticed by the master.
func (w *world) judge(d *sim.Disk, exact bool) (noticed bool) {
	cfg := w.config(d.Step)
	cfg.Disk = d
	s, err := Open(cfg)
	if err != nil {
		w.fatal("open: %v", err)
	}
	suspect, anything := make(map[chunk.ID]bool), false
	drain := func() {
		for {
			select {
			case e := <-s.Events():
				suspect[e.Chunk] = true
				anything = anything || e.Kind == Lost
				noticed = true
				continue
			default:
			}
			return
		}
	}
	s.Scrub() // finds what reads would
	drain()
	for id := range w.chunks {
		h := w.history(id)
		if _, err := s.Read(id, 0, 1<<31, 0, make([]byte, modelSize), nil); errors.Is(err, status.Corrupt) && !suspect[id] {
			w.fatal("the scrubber has missed the damage of chunk %v: %v", id, err)
		}
		n := w.find(s, id, exact)
		if _, ok := s.Stat(id); exact && noticed && !ok {
			continue
		}
		if n < 0 && !suspect[id] && !anything {
			w.fatal("chunk %v is in a state that it never had, and nobody notices; the last of %d was %+v", id, len(h.states), h.last().version)
		}
	}
	return noticed
}
