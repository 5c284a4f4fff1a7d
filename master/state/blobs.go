package state

import "slices"

// Names, link targets and attribute values are blobs: bytes in records of a few
// sizes. Who holds a blob keeps its reference and its length. What is longer than
// the largest record is a chain of largest records, each with the slot of the
// next in its first four bytes.

// blobPage is the size of a page of blob records, bytes.
const blobPage = 4096

// blobSizes are the record sizes, bytes; all are multiples of 4.
var blobSizes = [...]uint32{8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 56, 64, 80, 96, 128, 256}

const (
	blobClasses = len(blobSizes)
	blobMax     = 256
	blobLink    = 4
	blobPart    = blobMax - blobLink
)

// blobClass gives the class for (length+3)/4.
var blobClass = func() (table [blobMax/4 + 1]uint8) {
	class := 0
	for i := range table {
		for uint32(i)*4 > blobSizes[class] {
			class++
		}
		table[i] = uint8(class)
	}
	return table
}()

// shelf holds the records of one size. Slot 0 is never given out.
type shelf struct {
	pages[[blobPage]byte]
	size uint32
	n    uint32 // slots ever used, slot 0 included
	free stack
}

func (h *shelf) perPage() uint32 { return blobPage / h.size }

func (h *shelf) at(slot uint32) []byte {
	per := h.perPage()
	off := slot % per * h.size
	return h.read(slot / per)[off : off+h.size : off+h.size]
}

func (h *shelf) mut(slot uint32) []byte {
	per := h.perPage()
	off := slot % per * h.size
	return h.write(slot / per)[off : off+h.size : off+h.size]
}

func (h *shelf) alloc() uint32 {
	if slot, ok := h.free.pop(); ok {
		return slot
	}
	if h.n == 0 {
		h.n = 1
	}
	for h.n/h.perPage() >= uint32(len(h.list)) {
		h.grow()
	}
	h.n++
	if h.n == 0 {
		panic("BUG: more than 2^32-2 blobs of a size")
	}
	return h.n - 1
}

func (h *shelf) release(slot uint32) {
	clear(h.mut(slot))
	h.free.push(slot)
}

type blobs struct{ shelves [blobClasses]shelf }

func (b *blobs) shelf(n int) *shelf { return &b.shelves[blobClass[(n+3)/4]] }

// parts is the number of records that n bytes take when they must be chained.
func parts(n int) int { return (n + blobPart - 1) / blobPart }

// put stores p and returns its reference, 0 for no bytes.
func put[B string | []byte](b *blobs, p B) uint32 {
	if len(p) == 0 {
		return 0
	}
	if len(p) <= blobMax {
		h := b.shelf(len(p))
		slot := h.alloc()
		copy(h.mut(slot), p)
		return slot
	}
	// From the end to the start, as each part must know the next one.
	h, next := &b.shelves[blobClasses-1], uint32(0)
	for i := parts(len(p)) - 1; i >= 0; i-- {
		slot := h.alloc()
		rec := h.mut(slot)
		putUint32(rec, next)
		copy(rec[blobLink:], p[i*blobPart:])
		next = slot
	}
	return next
}

// get gives the n bytes of a blob. They must not be changed, and short ones are
// good only until the next change of the state.
func (b *blobs) get(ref uint32, n int) []byte {
	if n == 0 {
		return nil
	}
	if n <= blobMax {
		return b.shelf(n).at(ref)[:n]
	}
	h := &b.shelves[blobClasses-1]
	out := slices.Grow([]byte(nil), n)
	for len(out) < n {
		rec := h.at(ref)
		out = append(out, rec[blobLink:blobLink+min(blobPart, n-len(out))]...)
		ref = getUint32(rec)
	}
	return out
}

// drop frees a blob of n bytes.
func (b *blobs) drop(ref uint32, n int) {
	if n == 0 {
		return
	}
	if n <= blobMax {
		b.shelf(n).release(ref)
		return
	}
	h := &b.shelves[blobClasses-1]
	for range parts(n) {
		next := getUint32(h.at(ref))
		h.release(ref)
		ref = next
	}
}

func putUint32(b []byte, v uint32) {
	b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
}

func getUint32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}
