package segment

import (
	"testing"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine/sim"
)

// These tests hold rules that only rare crashes need; random runs found each of them.

// TestFirstFrameAlone: nothing else is written to a segment before its first frame is
// durable.
func TestFirstFrameAlone(t *testing.T) {
	w := newWorld(t, "first frame", 1, blockSize)
	for range 3 {
		w.must(w.write(Write{Chunk: 1, Version: 1, Create: true, Off: 4096, Data: w.fill(5000)}))
	}
	if n := len(w.disk.Pending()); n != 1 {
		t.Fatalf("%d writes are under way in a new segment", n)
	}
	w.disk.Step()
	if n := len(w.disk.Pending()); n < 1 {
		t.Fatal("nothing follows the first frame")
	}
	w.disk.Drain()
	w.check(w.s, true)
}

// TestTornFrameIsCovered: where recovery has cut a torn frame it writes a mark, so that
// the frame can never become whole.
func TestTornFrameIsCovered(t *testing.T) {
	w := newWorld(t, "torn frame", 1, 512)
	w.must(w.write(Write{Chunk: 1, Version: 1, Create: true, Data: w.fill(100)}))
	w.disk.Drain()
	g := w.s.heads[headSmall].seg
	end := g.end
	at := g.base + int64(end)
	w.disk.Poke(containerName(0), at+2048, []byte("left from an earlier life"))
	w.must(w.write(Write{Chunk: 1, Version: 1, Data: w.fill(100)}))
	grain := 0
	w.restart(sim.ChooseFunc(func(n int) int { // only the start of the header arrives
		grain++
		if grain == 1 {
			return n - 1
		}
		return 0
	}))
	hd, err := decodeHeader(w.disk.Peek(containerName(0), at, headerSize))
	if err != nil || hd.entries != 0 || hd.off != end {
		t.Fatalf("behind the cut there is %+v, %v", hd, err)
	}
	w.must(w.write(Write{Chunk: 1, Version: 1, Data: w.fill(100)}))
	w.disk.Drain()
	w.restart(sim.Oldest)
}

// TestWitness: when a segment is freed, the frames that stay tell how far all heads are
// durable.
func TestWitness(t *testing.T) {
	w := newWorld(t, "witness", 1, blockSize)
	for i := range 30 {
		w.must(w.write(Write{Chunk: chunk.ID(1 + i%3), Version: 1, Create: true, Off: uint32(i%4) * 8192, Data: w.fill(8192)}))
	}
	w.must(w.s.Sync([]chunk.ID{1, 2, 3}))
	for w.s.clean() {
		r := &recovery{s: w.s}
		r.lookAll()
		if err := r.mark(); err != nil {
			t.Fatal(err)
		}
		for i, m := range r.marks {
			// The last frame of a head may be the witness itself.
			h := &w.s.heads[i]
			if last := h.durable.seq; m.seq+1 < last || m.seq < last && len(h.names) > 0 {
				t.Errorf("head %s is durable up to frame %d, after a crash %d would be known", headNames[i], last, m.seq)
			}
		}
	}
	if w.s.stat.cleaned.Get() == 0 {
		t.Error("nothing was cleaned")
	}
	w.check(w.s, true)
}
