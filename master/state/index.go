package state

import "math/bits"

// index is a hash table by linear hashing: buckets are lists through the
// records themselves, and the table grows by splitting one bucket at an insert,
// so that no insert ever stops to rehash everything. Removal leaves nothing behind.
type index struct {
	heads   pages[[pageLen]uint32]
	buckets uint32
	count   uint32
}

// chained is how an index reaches the records it links.
type chained interface {
	hash(slot uint32) uint64
	next(slot uint32) uint32
	setNext(slot, next uint32)
}

// indexLoad is the number of records per bucket above which the table grows: two
// bytes of table a record against one more record to look at in a lookup.
const indexLoad = 2

// bucket gives the bucket of a hash.
func (x *index) bucket(h uint64) uint32 {
	// The buckets of the round that is being split are addressed by one bit more.
	high := uint32(1)<<bits.Len32(x.buckets-1) - 1
	b := uint32(h) & high
	if b >= x.buckets {
		b = uint32(h) & (high >> 1)
	}
	return b
}

// first gives the first record of the bucket of h, 0: none.
func (x *index) first(h uint64) uint32 {
	if x.buckets == 0 {
		return 0
	}
	b := x.bucket(h)
	return x.heads.read(b >> pageShift)[b&pageMask]
}

func (x *index) head(b uint32) *uint32 { return &x.heads.write(b >> pageShift)[b&pageMask] }

func (x *index) addBucket() {
	if x.buckets>>pageShift == uint32(len(x.heads.list)) {
		x.heads.grow()
	}
	x.buckets++
}

func (x *index) insert(c chained, slot uint32, h uint64) {
	if x.buckets == 0 {
		x.addBucket()
	}
	if x.count >= x.buckets*indexLoad && x.buckets < 1<<31 {
		x.split(c)
	}
	x.count++
	head := x.head(x.bucket(h))
	c.setNext(slot, *head)
	*head = slot
}

// split moves about half of the oldest unsplit bucket into a new one.
func (x *index) split(c chained) {
	old := x.buckets &^ (1 << (bits.Len32(x.buckets) - 1))
	fresh := x.buckets
	x.addBucket()
	oldHead, freshHead := x.head(old), x.head(fresh)
	slot := *oldHead
	*oldHead, *freshHead = 0, 0
	for slot != 0 {
		next := c.next(slot)
		to := oldHead
		if x.bucket(c.hash(slot)) == fresh {
			to = freshHead
		}
		c.setNext(slot, *to)
		*to = slot
		slot = next
	}
}

func (x *index) remove(c chained, slot uint32, h uint64) {
	x.count--
	head := x.head(x.bucket(h))
	if *head == slot {
		*head = c.next(slot)
		return
	}
	for i := *head; i != 0; {
		next := c.next(i)
		if next == slot {
			c.setNext(i, c.next(slot))
			return
		}
		i = next
	}
	panic("BUG: record is not in its bucket")
}

// mix spreads the bits of x.
func mix(x uint64) uint64 {
	hi, lo := bits.Mul64(x^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	return hi ^ lo
}

// hashBytes is a hash of b under seed. It is part of the image format: the
// tables are stored as they are.
func hashBytes[B string | []byte](seed uint64, b B) uint64 {
	h := mix(seed ^ uint64(len(b)))
	i := 0
	for ; i+8 <= len(b); i += 8 {
		w := uint64(b[i]) | uint64(b[i+1])<<8 | uint64(b[i+2])<<16 | uint64(b[i+3])<<24 |
			uint64(b[i+4])<<32 | uint64(b[i+5])<<40 | uint64(b[i+6])<<48 | uint64(b[i+7])<<56
		h = mix(h ^ w)
	}
	w := uint64(0)
	for ; i < len(b); i++ {
		w = w<<8 | uint64(b[i])
	}
	return mix(h ^ w)
}
