package segment

import (
	"testing"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
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

// tiny writes a few bytes to chunk 1, in a frame of one block.
func (w *world) tiny(off uint32) {
	w.must(w.write(Write{Chunk: 1, Version: 1, Create: true, Off: off, Data: w.fill(50)}))
}

// lose lets the next write to a segment be lost.
func (w *world) lose() {
	w.disk.Inject(sim.Fault{Effect: sim.Lose, Kinds: []engine.Kind{engine.WriteSync}, File: containerName(0), Times: 1})
}

// TestCutFramesStayCut: a frame that was cut does not take the place of a later one that
// was durable and is lost.
func TestCutFramesStayCut(t *testing.T) {
	w := newWorld(t, "cut frames", 1, 512)
	w.keepAll, w.damaged = true, true
	w.tiny(0)
	w.disk.Drain()
	w.tiny(100)
	w.tiny(200)
	if n := len(w.disk.Pending()); n != 2 {
		t.Fatalf("%d writes are under way, want 2", n)
	}
	sector := 0
	w.restart(sim.ChooseFunc(func(n int) int { // of the first frame one sector arrives, the second is whole
		sector++
		if sector == 1 || sector > headerSize/512 {
			return n - 1
		}
		return 0
	}))
	w.lose()
	w.tiny(300)
	w.disk.Drain()
	w.tiny(400)
	w.disk.Drain()
	if !w.judge(w.disk.CrashClone(sim.Oldest), true) {
		t.Error("a lost frame was not noticed")
	}
}

// TestLostBeforeDurable: a frame that is missing before one that knew it to be durable is
// no torn end of the log.
func TestLostBeforeDurable(t *testing.T) {
	w := newWorld(t, "lost frame", 1, 512)
	w.keepAll, w.damaged = true, true
	w.tiny(0)
	w.disk.Drain()
	w.lose()
	for off := uint32(100); off <= 300; off += 100 {
		w.tiny(off)
		w.disk.Drain()
	}
	if !w.judge(w.disk.CrashClone(sim.Oldest), true) {
		t.Error("a lost frame was not noticed")
	}
}

// TestCleanerAwaitsImport: what an import brought is not moved while its commit may yet be
// lost: moved bytes would end up in the old content.
func TestCleanerAwaitsImport(t *testing.T) {
	w := newWorld(t, "cleaner and import", 1, 512)
	w.tiny(0)
	w.disk.Drain()
	imp, err := w.s.Begin(1, 2)
	if err != nil {
		t.Fatal(err)
	}
	next := state{exists: true, version: 2, data: make([]byte, modelSize)}
	part := w.fill(8192)
	copy(next.data[8192:], part)
	if err := imp.Write(8192, part, nil); err != nil {
		t.Fatal(err)
	}
	g := w.s.heads[headBulk].seg
	for g.state == segOpen {
		w.must(w.write(Write{Chunk: 2, Version: 1, Create: true, Data: w.fill(8192)}))
	}
	w.must(w.s.Sync([]chunk.ID{1, 2}))
	w.disk.Drain()
	small := w.s.heads[headSmall].seg
	held := w.disk.Inject(sim.Fault{Effect: sim.Stall, Kinds: []engine.Kind{engine.WriteSync}, File: small.file.Name(), Off: small.base + int64(small.end), Len: blockSize})
	h := w.history(1)
	n := h.add(next)
	tk, err := imp.commit()
	if err != nil {
		t.Fatal(err)
	}
	tk.Then(func(err error) {
		if err == nil {
			h.ack(n)
		}
	})
	w.onStep = func() {
		for _, ch := range []sim.Chooser{sim.Oldest, sim.Newest, sim.Random(w.rnd.Uint64())} {
			w.crash(ch, 0)
		}
		for _, p := range w.disk.Pending() {
			if !p.Stalled {
				return
			}
		}
		held.Lift() // nothing goes on without the commit
	}
	w.s.mu.Lock()
	g.evict = true
	w.s.unlock()
	for g.state != segFree && w.s.clean() {
	}
	if g.state != segFree {
		t.Errorf("the segment is %v", g.state)
	}
	w.disk.Drain()
	w.check(w.s, true)
}

// TestPins: a segment is not freed as long as somebody reads it.
func TestPins(t *testing.T) {
	w := newWorld(t, "pins", 1, 512)
	w.must(w.write(Write{Chunk: 1, Version: 1, Create: true, Data: w.fill(9000)}))
	g := w.s.heads[headSmall].seg
	if b := w.s.heads[headBulk].seg; g == nil || g.frames == 0 {
		g = b
	}
	for g.state == segOpen {
		w.must(w.write(Write{Chunk: 1, Version: 1, Create: true, Off: 12288, Data: w.fill(9000)}))
	}
	w.must(w.s.Sync([]chunk.ID{1}))
	w.disk.Drain()
	r := readers.Get().(*reader)
	defer r.recycle()
	r.alone, r.buf = true, make([]byte, 9000)
	w.s.mu.Lock()
	w.s.gather(&w.s.index.find(1).body, 0, 9000, r)
	g.evict = true
	w.s.unlock()
	if g.pins == 0 {
		t.Fatal("the read is of another segment")
	}
	read := false
	w.onStep = func() {
		if !read && g.state == segCleaning && len(w.disk.Pending()) == 0 { // the cleaner waits
			read = true
			if err := r.run(); err != nil {
				t.Errorf("the bytes are gone before they are read: %v", err)
			}
			w.s.letGo(r)
			w.tiny(30000) // something for the disk to do
		}
	}
	for g.state != segFree && w.s.clean() {
	}
	if !read || g.state != segFree {
		t.Errorf("segment is %v, its reader was waited for: %v", g.state, read)
	}
	w.disk.Drain()
	w.check(w.s, true)
}

// TestCleanerSeesOverwrite: what is overwritten while the cleaner waits for room to move it
// is not moved.
func TestCleanerSeesOverwrite(t *testing.T) {
	w := newWorld(t, "overwrite", 1, 512)
	w.must(w.write(Write{Chunk: 1, Version: 1, Create: true, Data: w.fill(3000)}))
	g := w.s.heads[headSmall].seg
	for g.state == segOpen {
		w.must(w.write(Write{Chunk: 2, Version: 1, Create: true, Data: w.fill(4096)}))
	}
	w.must(w.s.Sync([]chunk.ID{1, 2}))
	w.disk.Drain()
	clean := &w.s.heads[headClean]
	clean.broken = &segment{n: noSegment} // nothing enters the head
	overwritten := false
	w.onStep = func() {
		if g.state == segCleaning && !overwritten {
			overwritten = true
			w.must(w.write(Write{Chunk: 1, Version: 1, Off: 500, Data: w.fill(3000)}))
			clean.broken = nil
		}
	}
	g.evict = true
	for g.state != segFree && w.s.clean() {
	}
	if !overwritten || g.state != segFree {
		t.Errorf("segment is %v, overwritten meanwhile: %v", g.state, overwritten)
	}
	w.disk.Drain()
	w.check(w.s, true)
	w.restart(sim.Oldest)
}

// TestFrameElsewhere: a frame that lies where it was not written to is none.
func TestFrameElsewhere(t *testing.T) {
	w := newWorld(t, "elsewhere", 1, 512)
	w.tiny(0)
	w.disk.Drain()
	g := w.s.heads[headSmall].seg
	b := w.disk.Peek(g.file.Name(), g.base, headerSize)
	var other *segment
	for _, o := range w.s.segs {
		if o.state == segBlank {
			other = o
			break
		}
	}
	w.disk.Poke(other.file.Name(), other.base, b)
	if fd := look(other, w.s.segSize, w.s.diskID); len(fd.frames) > 0 || fd.stop == nil {
		t.Errorf("a frame of segment %d counts in segment %d", g.n, other.n)
	}
	w.disk.Poke(g.file.Name(), g.base+headerSize, b)
	if fd := look(g, w.s.segSize, w.s.diskID); len(fd.frames)+len(fd.late) != 1 {
		t.Errorf("a frame counts %d times in its segment", len(fd.frames)+len(fd.late))
	}
}
