package state

import (
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/varvefs/varve/master/offheap"
)

// pageLen is the number of records in a page. It is small because a page is
// copied as a whole when it is first changed under a View.
const (
	pageShift = 6
	pageLen   = 1 << pageShift
	pageMask  = pageLen - 1
)

// heapPages is how many pages a table has in the Go heap before it takes memory
// outside: small trees, of which tests make many, need none of that.
const heapPages = 64

// clock tells which pages a View may still be reading. All tables of a State
// share one, and the memory that their pages are in.
type clock struct {
	now   uint32       // raised by Freeze; owned by the loop
	views atomic.Int32 // not yet released
	mem   *offheap.Memory
}

func newClock() *clock { return &clock{mem: &offheap.Memory{}} }

// pages is a growing array of pages of type P, an array without pointers.
type pages[P any] struct {
	list []*P
	born []uint32 // clock.now when the page was made or copied: if older, a View may have it
	clk  *clock
	rest []P  // of the block that new pages are cut from
	past []*P // pages that copies have replaced, while a View may be reading them
	idle []*P // such pages that nobody reads any more
}

// read gives a page to look at. The pointer is good until the next write.
func (p *pages[P]) read(i uint32) *P { return p.list[i] }

// write gives a page to change. The pointer is good until the next Freeze.
func (p *pages[P]) write(i uint32) *P {
	if p.born[i] != p.clk.now {
		p.own(i)
	}
	return p.list[i]
}

func (p *pages[P]) own(i uint32) {
	if p.clk.views.Load() > 0 {
		c := p.take()
		*c = *p.list[i]
		p.past = append(p.past, p.list[i])
		p.list[i] = c
	}
	p.born[i] = p.clk.now
}

// take gives a page with anything in it.
func (p *pages[P]) take() *P {
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return c
	}
	if len(p.list) < heapPages {
		return new(P)
	}
	if len(p.rest) == 0 {
		p.rest = offheap.Cut[P](p.clk.mem.Get())
	}
	c := &p.rest[0]
	p.rest = p.rest[1:]
	return c
}

func (p *pages[P]) grow() {
	var zero P
	c := p.take()
	*c = zero
	p.list = append(p.list, c)
	p.born = append(p.born, p.clk.now)
}

// unread tells that no View is left: what copies have replaced can be used again.
func (p *pages[P]) unread() {
	p.idle = append(p.idle, p.past...)
	p.past = nil
}

// bytes is what p takes.
func (p *pages[P]) bytes() uint64 {
	var page P
	return uint64(len(p.list)+len(p.past)+len(p.idle))*uint64(unsafe.Sizeof(page)) +
		uint64(cap(p.list))*uint64(unsafe.Sizeof(&page)) + uint64(cap(p.born))*4
}

// freeze makes p, which is a copy of the living one, independent of it.
func (p *pages[P]) freeze() {
	p.list = slices.Clone(p.list)
	p.born, p.rest, p.past, p.idle = nil, nil, nil, nil
}

// stack is a list of numbers, last in first out.
type stack struct {
	pages[[pageLen]uint32]
	n uint32
}

func (s *stack) push(v uint32) {
	if s.n>>pageShift == uint32(len(s.list)) {
		s.grow()
	}
	s.write(s.n >> pageShift)[s.n&pageMask] = v
	s.n++
}

func (s *stack) pop() (uint32, bool) {
	if s.n == 0 {
		return 0, false
	}
	s.n--
	return s.read(s.n >> pageShift)[s.n&pageMask], true
}

// slab is an array of records. Slot 0 is never given out: it means "none".
// INVARIANT: a slot below n is either live or on free; free records are zero but
// for what must outlive them (the use counts of inodes and chunks).
type slab[T any] struct {
	pages[[pageLen]T]
	n    uint32 // slots ever used, slot 0 included
	free stack
}

// at gives a record to look at. The pointer is good until the next mut.
func (s *slab[T]) at(slot uint32) *T { return &s.read(slot >> pageShift)[slot&pageMask] }

// mut gives a record to change. The pointer is good until the next Freeze.
func (s *slab[T]) mut(slot uint32) *T { return &s.write(slot >> pageShift)[slot&pageMask] }

// alloc finds a slot. The record is as release left it.
func (s *slab[T]) alloc() uint32 {
	if slot, ok := s.free.pop(); ok {
		return slot
	}
	if s.n == 0 {
		s.n = 1
	}
	for s.n>>pageShift >= uint32(len(s.list)) {
		s.grow()
	}
	s.n++
	if s.n == 0 {
		panic("BUG: more than 2^32-2 records in a table")
	}
	return s.n - 1
}

// release gives a slot back. The record becomes empty.
func (s *slab[T]) release(slot uint32, empty T) {
	*s.mut(slot) = empty
	s.free.push(slot)
}

// live is the number of slots in use, retired ones included.
func (s *slab[T]) live() uint32 {
	if s.n == 0 {
		return 0
	}
	return s.n - 1 - s.free.n
}
