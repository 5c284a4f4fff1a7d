package segment

import (
	"errors"
	"fmt"
	"testing"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine/sim"
	"github.com/varvefs/varve/status"
)

// TestCrashAtRandom runs long random histories, cleaner included, with cuts of the power
// at any moment, tears at any sector, and cuts during recovery.
func TestCrashAtRandom(t *testing.T) {
	runs, steps := 30, 500
	if testing.Short() {
		runs, steps = 5, 300
	}
	total, cleaned, merged := 0, 0, 0
	for run := range runs {
		w := newWorld(t, fmt.Sprintf("seed %d", run), uint64(run), 512)
		w.onStep = func() {
			if w.rnd.IntN(40) == 0 {
				w.crash(sim.Random(w.rnd.Uint64()), 1)
			}
		}
		for range steps {
			w.random()
			if w.rnd.IntN(4) == 0 {
				w.crash(sim.Random(w.rnd.Uint64()), 1)
			}
			if w.rnd.IntN(200) == 0 {
				cleaned += int(w.s.stat.cleaned.Get())
				w.restart(sim.Random(w.rnd.Uint64()))
			}
		}
		w.check(w.s, true)
		total += w.checks
		cleaned += int(w.s.stat.cleaned.Get())
		merged += int(w.s.stat.merged.Get())
	}
	t.Logf("%d crash states, %d segments cleaned, %d extents merged", total, cleaned, merged)
	if cleaned == 0 || merged == 0 {
		t.Error("the cleaner never ran, or never merged")
	}
}

// TestCrashOnDevice is the same for a store on a device: files that come and go take part.
func TestCrashOnDevice(t *testing.T) {
	runs := 8
	if testing.Short() {
		runs = 2
	}
	total := 0
	for run := range runs {
		w := newDeviceWorld(t, fmt.Sprintf("device, seed %d", run), uint64(run))
		w.onStep = func() {
			if w.rnd.IntN(40) == 0 {
				w.crash(sim.Random(w.rnd.Uint64()), 1)
			}
		}
		for range 300 {
			w.random()
			if w.rnd.IntN(20) == 0 {
				w.crash(sim.Random(w.rnd.Uint64()), 1)
			}
			if w.rnd.IntN(100) == 0 {
				w.restart(sim.Random(w.rnd.Uint64()))
			}
		}
		w.check(w.s, true)
		total += w.checks
	}
	t.Logf("%d crash states", total)
	if total < 20*runs {
		t.Error("there were too few")
	}
}

// random does one random thing.
func (w *world) random() {
	id := chunk.ID(1 + w.rnd.IntN(6))
	last := w.history(id).last()
	v := max(last.version, 1)
	off := uint32(w.rnd.IntN(modelSize))
	if w.rnd.IntN(2) == 0 {
		off &^= blockSize - 1
	}
	n := 1 + w.rnd.IntN(min(1<<w.rnd.IntN(16), modelSize-int(off)))
	select {
	case <-w.s.keeper:
		for w.s.keepOnce() {
		}
	default:
	}
	var err error
	switch w.rnd.IntN(24) {
	case 0:
		w.delete(id)
	case 1:
		w.setVersion(id, v+1)
	case 2:
		err = w.replace(id, v+1, w.rnd.IntN(3) > 0, Write{Off: off, Data: w.fill(n)}, Write{Off: 0, Data: w.fill(1 + w.rnd.IntN(9000))})
	case 3:
		err = w.write(Write{Chunk: id, Version: v, Create: true, What: WriteZero, Off: off, Len: uint32(n)})
	case 4:
		err = w.write(Write{Chunk: id, Version: v, Create: true, What: WriteTrim, Off: off})
	case 5:
		err = w.s.Sync([]chunk.ID{id})
	case 6, 7, 8, 9:
		for range 1 + w.rnd.IntN(5) {
			if w.onStep != nil {
				w.onStep()
			}
			w.disk.Step()
		}
	case 10:
		w.s.keepOnce()
		w.s.tick(0)
		if n := w.s.Scrubbed(); !w.damaged && n.Segments > 0 {
			w.s.scrubSegment(uint32(w.rnd.IntN(int(n.Segments))), func(int) bool { return true })
		}
	case 11:
		w.find(w.s, id, true)
		if w.find(w.s, id, true) < 0 {
			w.fatal("chunk %v reads wrong", id)
		}
	case 13: // many small ones behind each other, to be merged
		n := uint32(1 + w.rnd.IntN(200))
		for i := range uint32(40 + w.rnd.IntN(60)) {
			if off+i*n+n > modelSize || err != nil {
				break
			}
			err = w.write(Write{Chunk: id, Version: v, Create: true, Off: off + i*n, Data: w.fill(int(n))})
		}
	case 14: // a frame of its own
		off = min(off, modelSize-w.s.partMax) &^ (blockSize - 1)
		err = w.write(Write{Chunk: id, Version: v, Create: true, Off: off, Data: w.fill(int(w.s.partMax))})
	case 12:
		err = w.write(Write{Chunk: id, Version: v + 1, Create: true, Off: off, Data: w.fill(n)})
	default:
		err = w.write(Write{Chunk: id, Version: v, Create: true, Off: off, Data: w.fill(n)})
	}
	if err != nil && !errors.Is(err, status.NoSpace) {
		w.fatal("%v", err)
	}
}
