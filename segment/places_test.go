package segment

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/status"
)

// lookAt reads a chunk's bytes from off on in the places that a store has told, as somebody
// else would. bad: some of what is there does not match its sum.
func lookAt(t testing.TB, list []Place, sums []uint32, off uint32, buf []byte) (bad bool) {
	t.Helper()
	clear(buf)
	for _, p := range list {
		first := p.Off - uint32(p.Pre)
		stored := uint32(p.Pre) + p.Len + uint32(p.Post)
		block := p.At &^ edgeMask
		b := engine.Alloc(int(p.At-block) + int(stored))
		if err := p.File.ReadAt(b, block); err != nil {
			t.Fatal(err)
		}
		k := chunk.Pieces(first, stored)
		bytes := b[p.At-block:][:stored]
		if chunk.Verify(sums[:k], first, bytes) >= 0 {
			bad = true
		}
		sums = sums[k:]
		copy(buf[p.Off-off:], bytes[p.Pre:][:p.Len])
		engine.Free(b)
	}
	if len(sums) != 0 {
		t.Fatalf("%d sums too many", len(sums))
	}
	return bad
}

// checkPlaces compares what lies in a chunk's places with what Read brings. All frames are
// on the disk, or it is Busy. Bytes that do not match their sums are allowed only where the
// cleaner has moved them meanwhile: the chunk must have other places then.
func checkPlaces(t testing.TB, s *Store, id chunk.ID, off uint32, want []byte) {
	t.Helper()
	places := func() ([]Place, []uint32, error) {
		return s.Places(id, 0, 1<<31, off, uint32(len(want)), 1<<20, nil, nil)
	}
	got := make([]byte, len(want))
	list, sums, err := places()
	for err == nil && lookAt(t, list, sums, off, got) {
		before := list
		if list, sums, err = places(); err == nil && slices.Equal(list, before) {
			t.Fatalf("chunk %v: what lies in its %d places does not match its sums", id, len(list))
		}
	}
	switch {
	case errors.Is(err, status.Busy):
	case err != nil:
		t.Fatalf("chunk %v: places: %v", id, err)
	case !bytes.Equal(got, want):
		t.Fatalf("chunk %v: what lies in its %d places is not what is read", id, len(list))
	}
}

// TestPlaces: the places of random writes, overwrites and holes hold what a read brings, for
// any part of the chunk, also after the cleaner has moved the bytes; and what then lies in the
// old places is either what was there or does not match its sums.
func TestPlaces(t *testing.T) { onDisks(t, testPlaces) }

func testPlaces(t *testing.T, d engine.Disk) {
	s := mustOpen(t, smallConfig(d))
	defer s.Close()
	put := func(w Write) {
		t.Helper()
		_, err := s.Write(w)
		if err == nil {
			err = s.Sync([]chunk.ID{w.Chunk})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(11, 12))
	const size = 256 << 10
	model := make([]byte, size)
	change := func(round int) {
		n := 1 + rng.IntN(20000)
		off := rng.IntN(size - n)
		w := Write{Chunk: 1, Version: 1, Create: true, Off: uint32(off)}
		if round%7 == 3 {
			w.What, w.Len = WriteZero, uint32(n)
			clear(model[off : off+n])
		} else {
			w.Data = fill(n, rng.Uint64())
			copy(model[off:], w.Data)
		}
		put(w)
	}
	var olds []old
	for round := range 60 {
		change(round)
		off := rng.IntN(size)
		n := 1 + rng.IntN(size-off)
		checkPlaces(t, s, 1, uint32(off), model[off:off+n])
		list, sums, err := s.Places(1, 1, 1, 0, size, 1<<20, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		olds = append(olds, old{list, sums, bytes.Clone(model)})
	}
	if _, _, err := s.Places(1, 1, 1, 0, size, 3, nil, nil); !errors.Is(err, status.TooBig) {
		t.Errorf("in 3 places: %v", err)
	}
	if _, _, err := s.Places(1, 2, 3, 0, size, 10, nil, nil); !errors.Is(err, status.StaleVersion) {
		t.Errorf("at another version: %v", err)
	}
	if _, _, err := s.Places(2, 1, 1, 0, size, 10, nil, nil); !errors.Is(err, status.NoChunk) {
		t.Errorf("of a chunk that is not there: %v", err)
	}
	reused := 0
	for deadline := time.Now().Add(time.Minute); reused == 0; {
		if time.Now().After(deadline) {
			t.Fatal("no place was used again: the test shows nothing")
		}
		others := fillToBrim(t, s, size)
		checkPlaces(t, s, 1, 0, model)
		for _, o := range olds {
			got := make([]byte, size)
			if lookAt(t, o.list, o.sums, 0, got) {
				reused++
			} else if !bytes.Equal(got, o.data) {
				t.Fatal("bytes that match their sums are not those that were there")
			}
		}
		if err := s.Delete(others); err != nil {
			t.Fatal(err)
		}
	}
}

// fillToBrim writes chunks of so many bytes while the cleaner empties whatever there is, until
// the store is full: everything is moved, and all segments are used again, if the cleaner
// gets to it. It returns the chunks.
func fillToBrim(t testing.TB, s *Store, size int) (ids []chunk.ID) {
	for round := range 100 {
		if round%10 == 0 {
			s.mu.Lock()
			for _, g := range s.segs {
				g.evict = g.emptiable()
			}
			s.unlock()
			s.wakeKeeper()
		}
		id := chunk.ID(3 + round)
		if _, err := s.Write(Write{Chunk: id, Version: 1, Create: true, Data: fill(size, uint64(round))}); errors.Is(err, status.NoSpace) {
			return append(ids, id) // some of it may be there
		} else if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

type old struct {
	list []Place
	sums []uint32
	data []byte
}
