package segment

import (
	"errors"
	"fmt"
	"testing"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine/sim"
	"github.com/varvefs/varve/status"
)

// TestDecay flips single bits of a closed store, one at a time, everywhere. Whatever
// comes back must be right, or be known to be wrong: no read returns other bytes.
func TestDecay(t *testing.T) {
	w := newWorld(t, "decay", 5, blockSize)
	for range 120 {
		w.random()
	}
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := w.disk.List()
	if err != nil {
		t.Fatal(err)
	}
	seen, harmless, step := 0, 0, 499
	if testing.Short() {
		step *= 10
	}
	for _, name := range names {
		for off := int64(0); w.disk.Peek(name, off, 1) != nil; off += int64(step) {
			block := w.disk.Peek(name, off&^(blockSize-1), blockSize)
			if blank(block) && off%7 != 0 {
				continue // mostly space that was never used
			}
			d := w.disk.CrashClone(sim.Newest)
			d.Flip(name, off, uint(off)%8)
			if w.decayed(d, fmt.Sprintf("%s: bit %d of byte %d", name, off%8, off)) {
				seen++
			} else {
				harmless++
			}
		}
	}
	t.Logf("%d flips were noticed, %d did not matter", seen, harmless)
	if seen == 0 {
		t.Error("no flip was noticed")
	}
}

// decayed opens a damaged disk and tells whether the damage was noticed.
func (w *world) decayed(d *sim.Disk, what string) bool {
	cfg := w.config(d.Step)
	cfg.Disk = d
	s, err := Open(cfg)
	if err != nil {
		w.fatal("%s: open: %v", what, err)
	}
	suspect, anything := make(map[chunk.ID]bool), false
	drain := func() {
		for {
			select {
			case e := <-s.Events():
				suspect[e.Chunk] = true
				anything = anything || e.Kind == Lost
				continue
			default:
			}
			return
		}
	}
	drain()
	noticed := s.stat.lost.Get() > 0
	for id, h := range w.chunks {
		want := h.last()
		info, ok := s.Stat(id)
		if ok != want.exists {
			if noticed && (!ok || suspect[id]) {
				continue // a chunk that is missing is seen by the master
			}
			w.fatal("%s: chunk %v exists: %v", what, id, ok)
		}
		if !ok {
			continue
		}
		data := make([]byte, modelSize)
		_, err := s.Read(id, 0, 1<<31, 0, data, nil)
		drain()
		switch {
		case errors.Is(err, status.Corrupt) && suspect[id]:
			noticed = true
		case err != nil:
			w.fatal("%s: chunk %v: %v, announced %v", what, id, err, suspect[id])
		case suspect[id]:
		case anything:
		case info.Version != want.version || info.Writes != want.writes || !same(want.data, data):
			w.fatal("%s: chunk %v reads wrong and nobody notices", what, id)
		}
	}
	return noticed
}
