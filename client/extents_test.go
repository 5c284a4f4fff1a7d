package client

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestExtentsModel compares random writes, cuts, zeros and reads with a plain array.
func TestExtentsModel(t *testing.T) {
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		const size = 3 * blockSize
		model := make([]byte, size)
		have := make([]bool, size)
		bud := newBudget(1 << 40)
		var x extents
		var sent []*extent
		for step := range 200 {
			off := uint32(rnd.IntN(size))
			if rnd.IntN(2) == 0 {
				off = off / 4096 * 4096
			}
			n := uint32(rnd.IntN(40000) + 1)
			if rnd.IntN(10) == 0 {
				n = uint32(rnd.IntN(blockSize) + 1)
			}
			end := min(off+n, off/blockSize*blockSize+blockSize)
			switch rnd.IntN(8) {
			case 0:
				x.cut(off, end)
				if len(sent) == 0 {
					clear(model[off:end])
					clear(have[off:end])
				} else {
					for i := off; i < end; i++ { // what was sent shows through
						model[i], have[i] = sentByte(sent, i)
					}
				}
			case 1:
				x.cut(off, end)
				x.insert(&extent{off: off, n: end - off, zero: true})
				clear(model[off:end])
				for i := off; i < end; i++ {
					have[i] = true
				}
			case 2:
				if len(x) > 0 {
					i := rnd.IntN(len(x))
					sent = append(sent, x[i])
					x = append(x[:i:i], x[i+1:]...)
				}
			default:
				p := make([]byte, end-off)
				for i := range p {
					p[i] = byte(rnd.Uint32())
				}
				x.put(bud, off, p, uint64(step), 0)
				copy(model[off:end], p)
				for i := off; i < end; i++ {
					have[i] = true
				}
			}
			checkSorted(t, x)
		}
		w := &leased{dirty: x, sent: sent}
		for range 50 {
			off := uint32(rnd.IntN(size - 1))
			n := uint32(rnd.IntN(size-int(off))) + 1
			got := bytes.Repeat([]byte{0xEE}, int(n))
			gaps := w.overlay(off, got)
			for _, g := range gaps {
				for i := g.off; i < g.end; i++ {
					if have[i] {
						t.Fatalf("seed %d: byte %d is written but a gap", seed, i)
					}
					got[i-off] = model[i]
				}
			}
			for i := range got {
				if at := off + uint32(i); have[at] && got[i] != model[at] {
					t.Fatalf("seed %d: byte %d is %#x, want %#x", seed, at, got[i], model[at])
				} else if !have[at] && got[i] != model[at] {
					t.Fatalf("seed %d: byte %d came from nowhere", seed, at)
				}
			}
			if w.covers(off, off+n) != anyOf(have[off:off+n]) {
				t.Fatalf("seed %d: covers(%d,%d) is wrong", seed, off, n)
			}
		}
		for _, e := range x {
			e.release()
		}
		for _, e := range sent {
			e.release()
		}
		if bud.inUse() != 0 {
			t.Fatalf("seed %d: %d bytes of buffers are not given back", seed, bud.inUse())
		}
	}
}

func sentByte(sent []*extent, at uint32) (byte, bool) {
	for i := len(sent) - 1; i >= 0; i-- {
		if e := sent[i]; e.overlaps(at, at+1) {
			if e.zero {
				return 0, true
			}
			return e.data[at-e.off], true
		}
	}
	return 0, false
}

func anyOf(list []bool) bool {
	for _, b := range list {
		if b {
			return true
		}
	}
	return false
}

func checkSorted(t *testing.T, x extents) {
	t.Helper()
	for i, e := range x {
		if e.n == 0 || !e.zero && int(e.n) != len(e.data) {
			t.Fatalf("extent %d has %d bytes of data for %d", i, len(e.data), e.n)
		}
		if i > 0 && x[i-1].end() > e.off {
			t.Fatalf("extents %d and %d overlap", i-1, i)
		}
		if !e.zero && e.off/blockSize != (e.end()-1)/blockSize {
			t.Fatalf("extent %d..%d crosses a block", e.off, e.end())
		}
	}
}

func TestReadAheadSequence(t *testing.T) {
	var r readAhead
	const size, most = 64 << 20, 16 << 20
	var upto int64
	for off := int64(0); off < 32<<20; off += 128 << 10 {
		blocks, from, to := r.see(off, 128<<10, size, most)
		if off > 0 && !blocks {
			t.Fatalf("a stream at %d is not noticed", off)
		}
		if to > from {
			if from < upto {
				t.Fatalf("%d..%d is asked for twice", from, upto)
			}
			upto = to
		}
	}
	if upto < 32<<20 || upto > 32<<20+most {
		t.Fatalf("read ahead up to %d", upto)
	}
	var rnd readAhead
	for _, off := range []int64{50 << 20, 3 << 20, 20 << 20, 40 << 20, 10 << 20} {
		if blocks, from, to := rnd.see(off, 4096, size, most); blocks || to > from {
			t.Fatalf("a random read at %d is taken for a stream", off)
		}
	}
}

func TestBufferClasses(t *testing.T) {
	b := newBudget(1 << 30)
	for _, n := range []int{1, 4096, 4097, 16384, 16385, 65536, 65537, 262144, 262145, blockSize} {
		buf := b.newBuffer(n)
		if len(buf.b) < n || n > smallestBuffer && len(buf.b) >= 4*n {
			t.Errorf("a buffer of %d bytes for %d", len(buf.b), n)
		}
		buf.release()
	}
	if b.inUse() != 0 {
		t.Errorf("%d bytes in use", b.inUse())
	}
}
