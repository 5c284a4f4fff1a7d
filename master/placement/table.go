package placement

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/master/offheap"
)

// copyRef is one copy in a slot: the seat of its server (bits 5..15), two flags
// and the state (bits 0..2). 0 is a valid value; a slot knows how many it has.
type copyRef uint16

const (
	refState  copyRef = 7
	refLease  copyRef = 1 << 3 // in the set of the open lease
	refGoing  copyRef = 1 << 4 // a delete is waiting or in flight
	seatShift         = 5
	maxSeats          = 1 << (16 - seatShift)
)

func newRef(seat uint16, st CopyState) copyRef { return copyRef(seat)<<seatShift | copyRef(st) }

func (c copyRef) seat() uint16             { return uint16(c >> seatShift) }
func (c copyRef) state() CopyState         { return CopyState(c & refState) }
func (c copyRef) has(f copyRef) bool       { return c&f != 0 }
func (c copyRef) with(s CopyState) copyRef { return c&^refState | copyRef(s) }
func (c *copyRef) set(f copyRef, on bool) {
	*c &^= f
	if on {
		*c |= f
	}
}

// Flags of a slot.
const (
	slotLeased  uint8 = 1 << iota // a lease is open
	slotSet                       // the refLease flags of its copies say who is in its set
	slotBusy                      // a Replicate or Verify order is in flight
	slotOrphan                    // no file has it; goal is 0
	slotCounted                   // goal and valid are in the matrix
	slotRiddle                    // an orphan with a number that was never given
	slotLive                      // the slot is in use
)

const (
	inlineCopies = 4
	// maxCopies leaves room for goal 9, a copy on its way and some of servers that
	// are away.
	maxCopies = 16
)

// slot is one chunk. 16 bytes, no pointers.
type slot struct {
	uses   uint32                // high half of the chunk's number; a stray's is in strayIDs
	copies [inlineCopies]copyRef // with more copies: the number of their block, in the first two
	n      uint8                 // copies in all
	flags  uint8
	packed uint8 // goal (high four bits) and valid copies (low four), as in the matrix
	place  uint8 // the queue it waits in
}

func (s *slot) goal() uint8  { return s.packed >> 4 }
func (s *slot) valid() uint8 { return s.packed & 15 }
func (s *slot) live() bool   { return s.flags&slotLive != 0 }

func (s *slot) block() uint32 { return uint32(s.copies[0]) | uint32(s.copies[1])<<16 }

// Slots live in pages, so that growth copies nothing and references stay good.
const (
	pageBits  = 14
	pageSlots = 1 << pageBits
)

// table is all slots. A chunk of the changelog has the slot that the low half of
// its number says: the changelog counts uses of its own slots in the high half, so
// that two living chunks never share one, and all slots lie close together. What
// chunkservers tell beside it, of chunks that are gone or never were, are strays.
type table struct {
	mem   offheap.Memory
	rest  []slot // of the block that pages are cut from
	pages []*[pageSlots]slot
	used  uint32 // slots below have been used

	strays   []slot
	strayIDs []chunk.ID
	where    map[chunk.ID]uint32 // strays
	free     []uint32            // of them

	live   int
	blocks [][maxCopies]copyRef
	spare  []uint32 // free blocks
}

// strayBase is where references to strays begin.
const strayBase = 1 << 31

// mix spreads chunk numbers, which are given in sequence, over 64 bits
// (the finalizer of splitmix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

func (t *table) at(ref uint32) *slot {
	if ref >= strayBase {
		return &t.strays[ref-strayBase]
	}
	return &t.pages[ref>>pageBits][ref&(pageSlots-1)]
}

// id is the number of the chunk in a slot that is live.
func (t *table) id(ref uint32) chunk.ID {
	if ref >= strayBase {
		return t.strayIDs[ref-strayBase]
	}
	return chunk.ID(uint64(t.at(ref).uses)<<32 | uint64(ref))
}

// find returns the slot of a chunk.
func (t *table) find(id chunk.ID) (uint32, bool) {
	if ref := uint32(id); ref < t.used {
		if s := t.at(ref); s.live() && s.uses == uint32(id>>32) {
			return ref, true
		}
	}
	ref, ok := t.where[id]
	return ref, ok
}

// add makes a slot for a chunk of the changelog that has none.
func (t *table) add(id chunk.ID) uint32 {
	ref := uint32(id)
	if ref >= strayBase || ref < t.used && t.at(ref).live() {
		return t.addStray(id)
	}
	if id == 0 {
		panic("BUG: chunk 0 has copies")
	}
	for int(ref>>pageBits) >= len(t.pages) {
		t.pages = append(t.pages, t.page())
	}
	t.used = max(t.used, ref+1)
	*t.at(ref) = slot{uses: uint32(id >> 32), flags: slotLive}
	t.live++
	return ref
}

// page makes a page of empty slots, the first one in the heap: small tables need
// no more.
func (t *table) page() *[pageSlots]slot {
	if len(t.pages) == 0 {
		return new([pageSlots]slot)
	}
	if len(t.rest) < pageSlots {
		t.rest = offheap.Cut[slot](t.mem.Get())
	}
	p := (*[pageSlots]slot)(t.rest)
	t.rest = t.rest[pageSlots:]
	return p
}

// addStray makes a slot for a chunk that the changelog does not have.
func (t *table) addStray(id chunk.ID) uint32 {
	if t.where == nil {
		t.where = map[chunk.ID]uint32{}
	}
	var i uint32
	if n := len(t.free); n > 0 {
		i = t.free[n-1]
		t.free = t.free[:n-1]
	} else {
		i = uint32(len(t.strays))
		t.strays, t.strayIDs = append(t.strays, slot{}), append(t.strayIDs, 0)
	}
	t.strays[i], t.strayIDs[i] = slot{flags: slotLive}, id
	t.where[id] = strayBase + i
	t.live++
	return strayBase + i
}

// remove frees a slot.
func (t *table) remove(ref uint32) {
	s := t.at(ref)
	if s.n > inlineCopies {
		t.spare = append(t.spare, s.block())
	}
	*s = slot{}
	t.live--
	if ref >= strayBase {
		delete(t.where, t.strayIDs[ref-strayBase])
		t.free = append(t.free, ref-strayBase)
	}
}

// copyAt returns copy i of a slot, to be read or changed in place. The pointer is
// good until a copy of any slot comes or goes.
func (t *table) copyAt(s *slot, i int) *copyRef {
	if s.n <= inlineCopies {
		return &s.copies[i]
	}
	return &t.blocks[s.block()][i]
}

// push adds a copy to a slot. It fails when there is no room.
func (t *table) push(s *slot, c copyRef) bool {
	if int(s.n) >= maxCopies {
		return false
	}
	if s.n == inlineCopies {
		var b uint32
		if n := len(t.spare); n > 0 {
			b = t.spare[n-1]
			t.spare = t.spare[:n-1]
		} else {
			b = uint32(len(t.blocks))
			t.blocks = append(t.blocks, [maxCopies]copyRef{})
		}
		copy(t.blocks[b][:], s.copies[:])
		s.copies = [inlineCopies]copyRef{copyRef(b), copyRef(b >> 16)}
	}
	s.n++
	*t.copyAt(s, int(s.n)-1) = c
	return true
}

// drop removes copy i of a slot; the last one takes its place.
func (t *table) drop(s *slot, i int) {
	last := int(s.n) - 1
	*t.copyAt(s, i) = *t.copyAt(s, last)
	if last == inlineCopies {
		b := s.block()
		copy(s.copies[:], t.blocks[b][:])
		t.spare = append(t.spare, b)
	}
	s.n--
}
