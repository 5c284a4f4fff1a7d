package segment

import (
	"testing"

	"github.com/varvefs/varve/chunk"
)

// TestRebirthWhileFreed writes to a deleted chunk while the cleaner frees the only segment
// that tells of it. The deletion is not moved then, because nothing that it hides is
// left elsewhere; and the chunk's new life must not go on naming the segment.
func TestRebirthWhileFreed(t *testing.T) {
	for _, rebirth := range []struct {
		name string
		do   func(w *world) error
	}{
		{"write", func(w *world) error {
			return w.write(Write{Chunk: 1, Version: 1, Create: true, Off: 4096, Data: w.fill(4096)})
		}},
		{"zero", func(w *world) error {
			return w.write(Write{Chunk: 1, Version: 1, Create: true, What: WriteZero, Off: 0, Len: 4096})
		}},
		{"import", func(w *world) error {
			imp, err := w.s.Begin(1, 1)
			if err != nil {
				return err
			}
			return imp.Write(0, w.fill(4096), nil)
		}},
	} {
		t.Run(rebirth.name, func(t *testing.T) {
			w := newWorld(t, "rebirth by "+rebirth.name, 1, blockSize)
			w.must(w.write(Write{Chunk: 1, Version: 1, Create: true, Data: w.fill(4096)}))
			w.delete(1)
			w.disk.Drain()
			g := w.s.heads[headSmall].seg
			for g.state == segOpen { // so that it is sealed, and all but the last write is dead
				w.must(w.write(Write{Chunk: 2, Version: 1, Create: true, Data: w.fill(4096)}))
			}
			w.must(w.s.Sync([]chunk.ID{2}))
			w.disk.Drain()
			if r := w.s.index.find(1); g.state != segSealed || r == nil || r.refs != 1 || r.state != g.n {
				t.Fatalf("segment %d is %v, chunk 1 is %+v", g.n, g.state, r)
			}
			born := false
			w.onStep = func() {
				if g.state == segCleaning && !born {
					born = true
					w.must(rebirth.do(w))
				}
			}
			for g.state != segFree && w.s.clean() {
			}
			w.onStep = nil
			if !born || g.state != segFree {
				t.Fatalf("segment %d is %v, chunk written meanwhile: %v", g.n, g.state, born)
			}
			if g.live != 0 {
				t.Errorf("a free segment has %d live bytes", g.live)
			}
			checkBooks(t, w.name, w.s)
			w.restart(nil)
		})
	}
}
