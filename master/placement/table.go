package placement

import (
	"fmt"

	"github.com/varvefs/varve/chunk"
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
)

const inlineCopies = 4

// slot is one chunk. 24 bytes, no pointers.
type slot struct {
	id     chunk.ID // 0: free
	copies [inlineCopies]copyRef
	more   uint32 // overflow block + 1, 0: none
	n      uint8  // copies in all
	flags  uint8
	packed uint8 // goal (high four bits) and valid copies (low four), as in the matrix
	place  uint8 // the queue it waits in
}

func (s *slot) goal() uint8  { return s.packed >> 4 }
func (s *slot) valid() uint8 { return s.packed & 15 }

// Slots live in pages, so that growth copies nothing and references stay good.
const (
	pageBits  = 14
	pageSlots = 1 << pageBits
)

// blockCopies is how many more copies an overflow block holds: together there
// is room for goal 9, a copy on its way and some of servers that are away.
const blockCopies = 12

const maxCopies = inlineCopies + blockCopies

// table is all slots and the way from a chunk's number to its slot.
type table struct {
	pages  []*[pageSlots]slot
	used   uint32 // slots ever used
	free   []uint32
	live   int
	shards [shardCount]shard
	blocks [][blockCopies]copyRef
	spare  []uint32 // free blocks
}

// shardCount small hash tables instead of one large: each grows alone, so that no
// growth holds up the master for long.
const (
	shardBits  = 10
	shardCount = 1 << shardBits
)

// shard is a hash table with linear probing; an entry is a slot number + 1.
type shard struct {
	refs []uint32
	n    int
}

// mix spreads chunk numbers, which are given in sequence, over 64 bits
// (the finalizer of splitmix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

func (t *table) at(ref uint32) *slot { return &t.pages[ref>>pageBits][ref&(pageSlots-1)] }

// find returns the slot of a chunk.
func (t *table) find(id chunk.ID) (uint32, bool) {
	h := mix(uint64(id))
	sh := &t.shards[h>>(64-shardBits)]
	if len(sh.refs) == 0 {
		return 0, false
	}
	for mask, i := len(sh.refs)-1, int(h); ; i++ {
		ref := sh.refs[i&mask]
		if ref == 0 {
			return 0, false
		}
		if t.at(ref-1).id == id {
			return ref - 1, true
		}
	}
}

// add makes a slot for a chunk that has none.
func (t *table) add(id chunk.ID) uint32 {
	if id == 0 {
		panic("BUG: chunk 0 has copies")
	}
	var ref uint32
	if n := len(t.free); n > 0 {
		ref = t.free[n-1]
		t.free = t.free[:n-1]
	} else {
		ref = t.used
		t.used++
		if int(ref>>pageBits) == len(t.pages) {
			t.pages = append(t.pages, new([pageSlots]slot))
		}
	}
	*t.at(ref) = slot{id: id}
	t.live++
	h := mix(uint64(id))
	sh := &t.shards[h>>(64-shardBits)]
	if sh.n*4 >= len(sh.refs)*3 {
		t.grow(sh)
	}
	sh.put(h, ref)
	return ref
}

func (sh *shard) put(h uint64, ref uint32) {
	mask := len(sh.refs) - 1
	i := int(h)
	for sh.refs[i&mask] != 0 {
		i++
	}
	sh.refs[i&mask] = ref + 1
	sh.n++
}

func (t *table) grow(sh *shard) {
	old := sh.refs
	sh.refs = make([]uint32, max(8, 2*len(old)))
	sh.n = 0
	for _, ref := range old {
		if ref != 0 {
			sh.put(mix(uint64(t.at(ref-1).id)), ref-1)
		}
	}
}

// remove frees a slot.
func (t *table) remove(ref uint32) {
	s := t.at(ref)
	h := mix(uint64(s.id))
	sh := &t.shards[h>>(64-shardBits)]
	mask := len(sh.refs) - 1
	i := int(h) & mask
	for sh.refs[i] != ref+1 {
		if sh.refs[i] == 0 {
			panic(fmt.Sprintf("BUG: chunk %v is in no shard", s.id))
		}
		i = (i + 1) & mask
	}
	// Close the gap: entries behind it that would no longer be found move up.
	for j := (i + 1) & mask; sh.refs[j] != 0; j = (j + 1) & mask {
		home := int(mix(uint64(t.at(sh.refs[j]-1).id))) & mask
		if (j-home)&mask >= (j-i)&mask {
			sh.refs[i] = sh.refs[j]
			i = j
		}
	}
	sh.refs[i] = 0
	sh.n--
	if s.more != 0 {
		t.spare = append(t.spare, s.more-1)
	}
	*s = slot{}
	t.free = append(t.free, ref)
	t.live--
}

// copyAt returns copy i of a slot, to be read or changed in place.
func (t *table) copyAt(s *slot, i int) *copyRef {
	if i < inlineCopies {
		return &s.copies[i]
	}
	return &t.blocks[s.more-1][i-inlineCopies]
}

// push adds a copy to a slot. It fails when there is no room.
func (t *table) push(s *slot, c copyRef) bool {
	if int(s.n) >= maxCopies {
		return false
	}
	if s.n == inlineCopies && s.more == 0 {
		if n := len(t.spare); n > 0 {
			s.more = t.spare[n-1] + 1
			t.spare = t.spare[:n-1]
		} else {
			t.blocks = append(t.blocks, [blockCopies]copyRef{})
			s.more = uint32(len(t.blocks))
		}
	}
	s.n++
	*t.copyAt(s, int(s.n)-1) = c
	return true
}

// drop removes copy i of a slot; the last one takes its place.
func (t *table) drop(s *slot, i int) {
	last := int(s.n) - 1
	*t.copyAt(s, i) = *t.copyAt(s, last)
	s.n--
	if int(s.n) == inlineCopies && s.more != 0 {
		t.spare = append(t.spare, s.more-1)
		s.more = 0
	}
}
