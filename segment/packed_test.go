package segment

import (
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/varvefs/varve/chunk"
)

// A packed extent takes what memory is planned with; this does not compile if it takes more.
const _ uint = 16 - uint(unsafe.Sizeof(packed{}))

// TestPacked: what is unpacked is what was packed, with its sums, and a run is given back
// as it was taken.
func TestPacked(t *testing.T) {
	x := newIndex(func(uint32, int64) {})
	testPacked(t, x)
	x.sums = slab[uint64, uint32]{pages: make([][]uint32, 5<<16)} // those of 80 TiB
	testPacked(t, x)
}

func testPacked(t *testing.T, x *index) {
	for _, e := range []extent{
		{off: 0, len: blockSize},
		{off: chunk.Size - blockSize, len: blockSize, seg: 1<<32 - 2, pos: 1<<32 - 1},
		{off: blockSize, len: 2 * blockSize, seg: 7, pos: 4096},
		{off: 0, len: 4096 * blockSize},
		{off: blockSize, len: 4097 * blockSize, pos: 4096}, // more blocks than fit
		{off: 0, len: chunk.Size, seg: 3},
		{off: chunk.Size - 1, len: 1, pos: 9},
		{off: blockSize, len: blockSize - 1},
		{off: blockSize + 1, len: blockSize - 1},
		{off: 100, len: 2 * blockSize, pos: 77},
		{off: 4100, len: 50, seg: 5, pos: 4300, edge: 4 | 30<<12},
		{off: blockSize, len: blockSize, edge: 8 << 12},
		{off: 0, len: chunk.Size, seg: 2, edge: extentZero},
		{off: blockSize, len: blockSize, seg: 2, pos: 3, edge: extentZero},
		{off: chunk.Size - 1, len: 1, edge: extentZero},
	} {
		sums := make([]uint32, e.pieces())
		for i := range sums {
			sums[i] = rand.Uint32()
		}
		p := x.pack(&e, sums)
		got := x.unpack(&p)
		if !slices.Equal(x.sumsOf(&got), sums) {
			t.Errorf("%+v has other sums than it was packed with", e)
		}
		if p.off() != e.off {
			t.Errorf("%+v is found at %d", e, p.off())
		}
		if got.sums = 0; got != e {
			t.Errorf("%+v comes back as %+v", e, got)
		}
		if e.pieces() > 1 && len(x.sums.pages) > 1<<16 && p.run() < 5<<32 {
			t.Errorf("%+v has run %d, which is not the last", e, p.run())
		}
		x.release(&p, e.pieces())
		if x.sums.live != 0 {
			t.Fatalf("%+v leaves %d words of its run behind", e, x.sums.live)
		}
	}
}

// TestSearch holds the search for an extent against looking at all of them.
func TestSearch(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	x := newIndex(func(uint32, int64) {})
	var b body
	for range 300 {
		off, n := rnd.Uint32N(1<<19), 1+rnd.Uint32N(1<<13)
		if rnd.IntN(2) == 0 {
			off, n = off&^edgeMask, (n+edgeMask)&^edgeMask
		}
		x.put(&b, extent{off: off, len: n}, make([]uint32, chunk.Pieces(off, n)))
		if rnd.IntN(3) == 0 {
			off = rnd.Uint32N(1 << 19)
			x.zero(&b, off, off+n, 0, 0)
		}
		all := x.unpacked(&b)
		for range 20 {
			at := rnd.Uint32N(1 << 20)
			want := slices.IndexFunc(all, func(e extent) bool { return e.end() > at })
			if want < 0 {
				want = len(all)
			}
			if got := x.search(x.all(&b), at); got != want {
				t.Fatalf("seed %d: byte %d is looked for in extent %d, not %d", seed, at, got, want)
			}
		}
	}
	x.clear(&b)
	if x.sums.live != 0 || x.extents.live != 0 || x.live != 0 {
		t.Fatalf("seed %d: %d words, %d extents and %d bytes are left of nothing", seed, x.sums.live, x.extents.live, x.live)
	}
}
