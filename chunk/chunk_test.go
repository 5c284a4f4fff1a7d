package chunk

import (
	"math/rand/v2"
	"testing"
)

// TestSum holds the polynomial: the check value of CRC-32C.
func TestSum(t *testing.T) {
	if got := Sum([]byte("123456789")); got != 0xe3069283 {
		t.Errorf("got %08x, want e3069283", got)
	}
	if got := SumUpdate(Sum([]byte("1234")), []byte("56789")); got != 0xe3069283 {
		t.Errorf("in two parts: %08x", got)
	}
}

// TestPieces cuts random ranges and flips a bit in each piece.
func TestPieces(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		off := uint32(rng.IntN(3 * Block))
		b := make([]byte, rng.IntN(4*Block))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		sums := AppendSums(nil, off, b)
		if len(sums) != Pieces(off, uint32(len(b))) {
			t.Fatalf("%d bytes at %d: %d sums, %d pieces", len(b), off, len(sums), Pieces(off, uint32(len(b))))
		}
		if i := Verify(sums, off, b); i != -1 {
			t.Fatalf("%d bytes at %d: piece %d is wrong", len(b), off, i)
		}
		if len(b) == 0 {
			continue
		}
		at := rng.IntN(len(b))
		b[at] ^= 1 << rng.IntN(8)
		if want := int((off+uint32(at))/Block - off/Block); Verify(sums, off, b) != want {
			t.Fatalf("%d bytes at %d, byte %d flipped: piece %d, want %d", len(b), off, at, Verify(sums, off, b), want)
		}
		if Verify(sums[1:], off, b) != 0 {
			t.Fatal("a missing sum was not seen")
		}
	}
}
