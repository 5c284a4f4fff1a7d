package client

import (
	"slices"
	"sort"
)

// extent is a run of bytes of one chunk that is not yet known to be durable.
// While it is in leased.dirty its bytes may change; from sending on they don't.
type extent struct {
	off  uint32 // in the chunk
	n    uint32
	zero bool   // the bytes are zeros; data and buf are nil
	trim bool   // with zero: a WriteTrim, n reaches to the end of the chunk
	data []byte // n bytes in buf
	buf  *sharedBuffer

	stamp uint64 // order of writing, in the node
	born  int64  // monotonic nanoseconds of the first byte
	ready bool   // may be sent
	sync  bool   // ask for a durable acknowledgement

	// From sending on:
	chained bool
	acked   bool // all replicas have it
	durable bool // all replicas have it on disk
	waiting int  // answers that have not come
	bad     bool // an answer was a failure
	dropped bool // nobody wants it any more; released with the last answer
}

// cost is what an extent counts for while it is under way, in bytes.
func (e *extent) cost() int64 { return int64(len(e.data)) + 512 }

func (e *extent) end() uint32 { return e.off + e.n }

func (e *extent) overlaps(off, end uint32) bool { return e.off < end && off < e.end() }

func (e *extent) release() {
	if e.buf != nil {
		e.buf.release()
		e.buf, e.data = nil, nil
	}
}

// extents is sorted by offset; its elements don't overlap.
type extents []*extent

// find returns the index of the first extent that ends behind off.
func (x extents) find(off uint32) int {
	return sort.Search(len(x), func(i int) bool { return x[i].end() > off })
}

// cut takes the bytes off..end out.
func (x *extents) cut(off, end uint32) {
	first := x.find(off)
	last := first
	var keep [2]*extent
	k := 0
	for ; last < len(*x) && (*x)[last].off < end; last++ {
		e := (*x)[last]
		left, right := e.off < off, e.end() > end
		switch {
		case left && right:
			keep[0], keep[1], k = e, e.split(off, end), 2
		case left:
			e.shorten(off)
			keep[k], k = e, k+1
		case right:
			e.behead(end)
			keep[k], k = e, k+1
		default:
			e.release()
		}
	}
	if first < last {
		*x = slices.Replace(*x, first, last, keep[:k]...)
	}
}

// split removes off..end from the middle of e and returns what is behind it.
func (e *extent) split(off, end uint32) *extent {
	r := *e
	r.off, r.n = end, e.end()-end
	if e.buf != nil {
		e.buf.users++
		r.data = e.data[end-e.off:]
		// What lies behind the left part now belongs to the right one.
		e.data = e.data[: off-e.off : off-e.off]
	}
	e.n = off - e.off
	return &r
}

// shorten removes all from off on.
func (e *extent) shorten(off uint32) {
	e.n = off - e.off
	if e.buf != nil {
		e.data = e.data[:e.n]
	}
}

// behead removes all before end.
func (e *extent) behead(end uint32) {
	if e.buf != nil {
		e.data = e.data[end-e.off:]
	}
	e.n = e.end() - end
	e.off = end
}

// insert puts a new extent where nothing is.
func (x *extents) insert(e *extent) {
	*x = slices.Insert(*x, x.find(e.off), e)
}

// put writes p at off. p must not cross a multiple of blockSize. It returns
// the extent that now holds the bytes.
func (x *extents) put(b *budget, off uint32, p []byte, stamp uint64, now int64) *extent {
	end := off + uint32(len(p))
	i := x.find(off)
	if i < len(*x) {
		if e := (*x)[i]; !e.zero && e.off <= off && end <= e.end() {
			copy(e.data[off-e.off:], p)
			return e
		}
	}
	x.cut(off, end)
	i = x.find(off)
	if i > 0 {
		if e := (*x)[i-1]; !e.zero && e.end() == off && e.off/blockSize == off/blockSize {
			e.grow(b, p)
			return e
		}
	}
	buf := b.newBuffer(len(p))
	e := &extent{off: off, n: uint32(len(p)), buf: buf, data: buf.b[:len(p)], stamp: stamp, born: now}
	copy(e.data, p)
	*x = slices.Insert(*x, i, e)
	return e
}

// grow appends p, into a larger buffer if need be.
func (e *extent) grow(b *budget, p []byte) {
	need := len(e.data) + len(p)
	if need > cap(e.data) {
		buf := b.newBuffer(min(max(need, 4*len(e.data)), blockSize))
		data := buf.b[:len(e.data)]
		copy(data, e.data)
		e.buf.release()
		e.buf, e.data = buf, data
	}
	e.data = append(e.data, p...)
	e.n = uint32(len(e.data))
}

// gap is a run of bytes that no extent covers.
type gap struct{ off, end uint32 }

// fill copies what e holds of the gaps into p, which begins at chunk offset
// base, and returns the gaps that are left.
func (e *extent) fill(gaps []gap, base uint32, p []byte) []gap {
	for i := 0; i < len(gaps); i++ {
		g := gaps[i]
		if !e.overlaps(g.off, g.end) {
			continue
		}
		lo, hi := max(g.off, e.off), min(g.end, e.end())
		if e.zero {
			clear(p[lo-base : hi-base])
		} else {
			copy(p[lo-base:hi-base], e.data[lo-e.off:])
		}
		var left [2]gap
		k := 0
		if g.off < lo {
			left[k], k = gap{g.off, lo}, k+1
		}
		if hi < g.end {
			left[k], k = gap{hi, g.end}, k+1
		}
		gaps = slices.Replace(gaps, i, i+1, left[:k]...)
		i += k - 1
	}
	return gaps
}
