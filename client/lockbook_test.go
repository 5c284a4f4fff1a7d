package client

import (
	"math/rand/v2"
	"testing"

	"github.com/varvefs/varve/wire"
)

// The book agrees, byte by byte, with a table that has one entry a byte.
func TestLockBook(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var b lockBook
	const size = 40
	model := [size]uint8{}
	for i := range model {
		model[i] = wire.LockFree
	}
	for range 5000 {
		start := rnd.Uint64N(size)
		l := wire.Lock{Ino: 7, Owner: 3, Type: uint8(rnd.IntN(3)), Start: start, End: start + rnd.Uint64N(size-start)}
		b.note(&l)
		for i := l.Start; i <= l.End; i++ {
			model[i] = l.Type
		}
		have := [size]uint8{}
		for i := range have {
			have[i] = wire.LockFree
		}
		for _, h := range b.list() {
			for i := h.Start; i <= h.End; i++ {
				if have[i] != wire.LockFree {
					t.Fatalf("byte %d is in two locks", i)
				}
				have[i] = h.Type
			}
		}
		if have != model {
			t.Fatalf("after %+v: %v, want %v", l, have, model)
		}
	}
	b.note(&wire.Lock{Ino: 7, Owner: 3, Type: wire.LockFree, End: ^uint64(0)})
	b.note(&wire.Lock{Ino: 7, Owner: 4, Flock: true, Type: wire.LockWrite})
	if l := b.list(); len(l) != 1 || !l[0].Flock || l[0].End != ^uint64(0) {
		t.Fatalf("left: %+v", l)
	}
}
