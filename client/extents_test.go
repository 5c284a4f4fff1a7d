package client

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// extentsModel is what extents must be equal to: a plain array, and which of its
// bytes were written.
type extentsModel struct {
	x     extents
	sent  []*extent
	bud   *budget
	bytes []byte
	have  []bool
}

// step does one random thing to both.
func (m *extentsModel) step(rnd *rand.Rand, stamp uint64) {
	off := uint32(rnd.IntN(len(m.bytes)))
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
		m.x.cut(off, end)
		for i := off; i < end; i++ { // what was sent shows through
			m.bytes[i], m.have[i] = sentByte(m.sent, i)
		}
		return
	case 1:
		m.x.cut(off, end)
		m.x.insert(&extent{off: off, n: end - off, zero: true})
		clear(m.bytes[off:end])
	case 2:
		if len(m.x) > 0 {
			i := rnd.IntN(len(m.x))
			m.sent = append(m.sent, m.x[i])
			m.x = append(m.x[:i:i], m.x[i+1:]...)
		}
		return
	default:
		p := make([]byte, end-off)
		for i := range p {
			p[i] = byte(rnd.Uint32())
		}
		m.x.put(m.bud, off, p, stamp, 0)
		copy(m.bytes[off:end], p)
	}
	for i := off; i < end; i++ {
		m.have[i] = true
	}
}

// check reads a random range from both.
func (m *extentsModel) check(t *testing.T, rnd *rand.Rand) {
	t.Helper()
	off := uint32(rnd.IntN(len(m.bytes) - 1))
	n := uint32(rnd.IntN(len(m.bytes)-int(off))) + 1
	w := &leased{dirty: m.x, sent: m.sent}
	got := bytes.Repeat([]byte{0xEE}, int(n))
	for _, g := range w.overlay(off, got) {
		for i := g.off; i < g.end; i++ {
			if m.have[i] {
				t.Fatalf("byte %d is written but a gap", i)
			}
			got[i-off] = m.bytes[i]
		}
	}
	if !bytes.Equal(got, m.bytes[off:off+n]) {
		t.Fatalf("bytes %d..%d differ", off, off+n)
	}
	if w.covers(off, off+n) != anyOf(m.have[off:off+n]) {
		t.Fatalf("covers(%d,%d) is wrong", off, off+n)
	}
}

// TestExtentsModel compares random writes, cuts, zeros and reads with a plain array.
func TestExtentsModel(t *testing.T) {
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		const size = 3 * blockSize
		m := &extentsModel{bud: newBudget(1 << 40), bytes: make([]byte, size), have: make([]bool, size)}
		t.Logf("seed %d", seed)
		for stamp := range uint64(200) {
			m.step(rnd, stamp)
			checkSorted(t, m.x)
		}
		for range 50 {
			m.check(t, rnd)
		}
		for _, e := range append(m.x, m.sent...) {
			e.release()
		}
		if m.bud.inUse() != 0 {
			t.Fatalf("%d bytes of buffers are not given back", m.bud.inUse())
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
