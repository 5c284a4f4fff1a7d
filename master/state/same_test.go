package state

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/master/offheap"
)

// TestSame: what Save copies from memory is what the fields would give, for
// records that are copied.
func TestSame(t *testing.T) {
	s := New(0)
	same(t, slabOf(&s.inodes, (*inodeRec).fields))
	same(t, slabOf(&s.edges, (*edgeRec).fields))
	same(t, slabOf(&s.links, (*linkRec).fields))
	same(t, slabOf(&s.nodes, (*node).fields))
	same(t, slabOf(&s.chunks, (*chunkRec).fields))
	same(t, slabOf(&s.details, (*detailRec).fields))
	same(t, slabOf(&s.traits, (*traitsRec).fields))
}

func same[T any](t *testing.T, table *slabTable[T]) {
	t.Helper()
	rec := make([]T, 1)
	b := offheap.Bytes(rec)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	want := codec.Append(nil, fieldsFunc(func(c *codec.Codec) { table.fields(&rec[0], c) }))
	if !table.same() && offheap.LittleEndian || len(b) != int(unsafe.Sizeof(rec[0])) {
		t.Fatalf("%T of %d bytes is encoded in %d", rec[0], len(b), table.width())
	}
	if table.same() && !bytes.Equal(b, want) {
		t.Fatalf("%T is %x in memory and %x encoded", rec[0], b, want)
	}
}

// TestOffHeap makes a tree that has pages outside the Go heap, and changes it
// while views read: what they see stays, and their pages are used again.
func TestOffHeap(t *testing.T) {
	s := New(0)
	grown := func() int { return len(s.edges.list) }
	add := func(n int) {
		for range n {
			must(t, s, 0, &Make{Parent: 1, Name: benchName(int(s.inodes.n)), What: 1})
		}
	}
	add(3 * heapPages * pageLen)
	if grown() <= heapPages {
		t.Fatalf("%d pages are all in the heap", grown())
	}
	var past, idle int
	for range 3 {
		v := s.Freeze()
		before := images(t, v)
		for i := 1; i < 2*heapPages*pageLen; i += 7 {
			s.touch(uint32(i))
		}
		add(pageLen)
		past = len(s.inodes.past)
		if !bytes.Equal(before, images(t, v)) {
			t.Fatal("a view has changed")
		}
		v.Release()
		s.Freeze().Release()
		idle = len(s.inodes.idle)
	}
	if past == 0 || idle < past || len(s.inodes.past) != 0 {
		t.Fatalf("of %d pages that were replaced %d are idle and %d still kept", past, idle, len(s.inodes.past))
	}
	checked(t, s)
}

// images is all that a view saves.
func images(t *testing.T, v *View) (all []byte) {
	t.Helper()
	if err := v.Save(func(_ string, block []byte) error { all = append(all, block...); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}
