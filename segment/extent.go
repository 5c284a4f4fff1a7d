package segment

import "github.com/varvefs/varve/chunk"

// extent is a run of bytes of a chunk and where they lie. The index keeps it packed.
//
// Data was stored in pieces, cut at the blocks of the chunk, each with its own sum.
// When a later write hides a part of an extent, what is left may begin or end within a
// piece; pre and post then say how many stored bytes of the outer pieces lie before
// and behind it, so that the whole piece can be read and checked.
type extent struct {
	off, len uint32 // bytes of the chunk
	seg, pos uint32 // segment, and byte of the segment where off lies; zeros: where the entry lies
	edge     uint32 // pre, post<<12, extentZero
	sums     uint64 // if it was unpacked: the sum of a single whole block, else a run in index.sums
}

const (
	edgeMask   = blockSize - 1
	extentZero = 1 << 31
	entryCost  = 2*entrySize + 8 // bytes that an entry takes in header and seal, with its share of the rest
)

func (e *extent) end() uint32  { return e.off + e.len }
func (e *extent) pre() uint32  { return e.edge & edgeMask }
func (e *extent) post() uint32 { return e.edge >> 12 & edgeMask }
func (e *extent) zero() bool   { return e.edge&extentZero != 0 }

// pieces is the number of sums.
func (e *extent) pieces() uint32 {
	if e.zero() {
		return 0
	}
	return uint32(chunk.Pieces(e.off-e.pre(), e.pre()+e.len+e.post()))
}

// cost is what the extent takes in a well filled segment, in bytes: its stored bytes
// as a frame would place them, its entry and its sums, both once more in the seal.
func (e *extent) cost() int64 {
	if e.zero() {
		return entryCost
	}
	if e.whole() {
		return wholeCost(e.len / blockSize)
	}
	n := int64(e.pre() + e.len + e.post())
	if n >= blockSize {
		n = (n + int64(e.off-e.pre())%blockSize + blockSize - 1) &^ (blockSize - 1)
	} else {
		n = (n + 7) &^ 7
	}
	return n + entryCost + 2*4*int64(e.pieces())
}

// wholeCost is the cost of data in so many whole blocks.
func wholeCost(blocks uint32) int64 { return entryCost + int64(blocks)*(blockSize+2*4) }

// cut is the part [from, to) of e, which must lie within e, without its sums, and the
// number of the first piece of e that is in it.
func (e *extent) cut(from, to uint32) (part extent, first uint32) {
	part = *e
	part.off, part.len = from, to-from
	part.pos += from - e.off
	if e.zero() {
		part.pos = e.pos
		return part, 0
	}
	start, end := e.off-e.pre(), e.end()+e.post()
	pieceStart := max(start, from&^edgeMask)
	pieceEnd := min(end, (to+edgeMask)&^edgeMask)
	part.edge = (from - pieceStart) | (pieceEnd-to)<<12
	return part, pieceStart/blockSize - start/blockSize
}

// body is the content of a chunk: its extents in order, packed, in a run of index.extents.
type body struct {
	ref, n, room uint32
}

// index knows what chunks there are and where their bytes lie. It is guarded by
// Store.mu and knows nothing of frames in flight: those are found by their place.
type index struct {
	table   map[chunk.ID]uint32 // number of the record
	recs    slab[uint32, record]
	extents slab[uint32, packed]
	sums    slab[uint64, uint32] // 2^32 sums are those of 16 TiB
	live    int64                // cost of all extents in bytes
	count   uint64
	snap    uint16                       // number of the last snapshot
	touched func(seg uint32, cost int64) // the live bytes of a segment change by cost
	scratch []packed
	one     [1]uint32
}

// record is what is known of a chunk. It holds no pointers.
type record struct {
	id      chunk.ID
	hide    uint64 // entries of the log with lower numbers do not count...
	base    uint64 // ...except those of this import
	seq     uint64 // last frame of head that has an entry of this chunk
	version chunk.Version
	writes  uint32
	body    body
	length  uint32 // end of the last data
	attest  uint32 // segment of the newest entry that tells the version
	state   uint32 // segment of the entry that tells hide and base, noSegment: both are 0
	refs    uint32 // segments that have entries of this chunk
	head    uint8
	flags   uint8
	snap    uint16 // the last snapshot that has the record, or that it is younger than
}

const (
	recAlive   = 1 << iota // the chunk exists
	recDead                // it was deleted, and older entries may be in the log
	recDamaged             // damage was announced
	recSwitch              // an import took its place, and that is not durable yet
)

func (r *record) alive() bool { return r.flags&recAlive != 0 }

func newIndex(touched func(seg uint32, cost int64)) *index {
	return &index{table: make(map[chunk.ID]uint32), touched: touched}
}

// find returns the record of a chunk, nil if there is none. The pointer is good until
// the record is dropped.
func (x *index) find(id chunk.ID) *record {
	n, ok := x.table[id]
	if !ok {
		return nil
	}
	return &x.recs.at(n, 1)[0]
}

// make returns the record of a chunk and makes one that does not exist as a chunk.
func (x *index) make(id chunk.ID) *record {
	if r := x.find(id); r != nil {
		return r
	}
	n, _ := x.recs.alloc(1)
	x.table[id] = n
	r := &x.recs.at(n, 1)[0]
	*r = record{id: id, attest: noSegment, state: noSegment, snap: x.snap}
	return r
}

// forget drops a record that nothing in the log refers to any more.
func (x *index) forget(r *record) {
	if r.refs != 0 || r.alive() || r.body.n != 0 {
		panic("BUG: record in use forgotten")
	}
	x.point(&r.attest, noSegment)
	x.point(&r.state, noSegment)
	n := x.table[r.id]
	delete(x.table, r.id)
	x.recs.release(n, 1)
}

// all returns the extents of b; seg and pos may be changed in place.
func (x *index) all(b *body) []packed { return x.extents.at(b.ref, b.n) }

// point makes one of a record's references to segments name seg, and accounts for the
// entry that it stands for.
func (x *index) point(ref *uint32, seg uint32) {
	if *ref == seg {
		return
	}
	if *ref != noSegment {
		x.live -= entryCost
		x.touched(*ref, -entryCost)
	}
	if *ref = seg; seg != noSegment {
		x.live += entryCost
		x.touched(seg, entryCost)
	}
}

// hold packs e, with sums of its own, and accounts for it.
func (x *index) hold(e *extent, sums []uint32) packed {
	x.account(e.seg, e.cost())
	return x.pack(e, sums)
}

// drop gives back what was held.
func (x *index) drop(p *packed) {
	if p.at&packedOdd == 0 { // nearly all are, and need not be unpacked
		n := p.blocks()
		x.account(p.seg, -wholeCost(n))
		x.release(p, n)
		return
	}
	e := x.unpack(p)
	x.account(e.seg, -e.cost())
	x.release(p, e.pieces())
}

func (x *index) account(seg uint32, cost int64) {
	x.live += cost
	x.touched(seg, cost)
}

// put lays e over what b has in its range. sums are those of e; they are copied.
func (x *index) put(b *body, e extent, sums []uint32) {
	l := x.all(b)
	i := x.search(l, e.off)
	j := i
	for j < len(l) && l[j].off() < e.end() {
		j++
	}
	fresh := x.scratch[:0]
	if i < j && l[i].off() < e.off {
		old := x.unpack(&l[i])
		fresh = append(fresh, x.part(&old, old.off, e.off))
	}
	fresh = append(fresh, x.hold(&e, sums))
	if i < j && x.end(&l[j-1]) > e.end() {
		old := x.unpack(&l[j-1])
		fresh = append(fresh, x.part(&old, e.end(), old.end()))
	}
	for k := i; k < j; k++ {
		x.drop(&l[k])
	}
	x.splice(b, i, j, fresh)
	x.scratch = fresh[:0]
}

// part makes an extent of its own from the part [from, to) of e.
func (x *index) part(e *extent, from, to uint32) packed {
	p, first := e.cut(from, to)
	return x.hold(&p, x.sumsOf(e)[first:][:p.pieces()])
}

// splice replaces the extents i..j-1 of b by fresh.
func (x *index) splice(b *body, i, j int, fresh []packed) {
	n := b.n - uint32(j-i) + uint32(len(fresh))
	l := x.all(b)
	if n > b.room || (n < b.room/4 && b.room > 16) {
		x.resize(b, n, i, j, fresh)
		return
	}
	tail := l[j:]
	b.n = n
	grown := x.all(b)
	copy(grown[i+len(fresh):], tail)
	copy(grown[i:], fresh)
}

// resize does what splice does into another run.
func (x *index) resize(b *body, n uint32, i, j int, fresh []packed) {
	old := *b
	*b = body{n: n}
	if n > 0 {
		want := n
		if n > 2 {
			want += n / 8 // each extent is moved about eight times while a chunk fills, and a sixteenth is idle
		}
		b.ref, b.room = x.extents.alloc(want)
	}
	from, to := x.all(&old), x.all(b)
	copy(to, from[:i])
	copy(to[i:], fresh)
	copy(to[i+len(fresh):], from[j:])
	x.extents.release(old.ref, old.room)
}

// zero hides what b has in [off, end): it lays zeros, which seg tells of, over data
// and leaves holes alone.
func (x *index) zero(b *body, off, end, seg, pos uint32) {
	for off < end {
		l := x.all(b)
		i := x.search(l, off)
		if i == len(l) || l[i].off() >= end {
			return
		}
		from := max(off, l[i].off())
		to := min(end, x.end(&l[i]))
		for i++; i < len(l) && l[i].off() == to && to < end; i++ { // neighbours at once
			to = min(end, x.end(&l[i]))
		}
		x.put(b, extent{off: from, len: to - from, seg: seg, pos: pos, edge: extentZero}, nil)
		off = to
	}
}

// clear empties b.
func (x *index) clear(b *body) {
	l := x.all(b)
	for i := range l {
		x.drop(&l[i])
	}
	x.extents.release(b.ref, b.room)
	*b = body{}
}

// length is the end of the last data of b.
func (x *index) length(b *body) uint32 {
	l := x.all(b)
	for i := len(l) - 1; i >= 0; i-- {
		if e := x.unpack(&l[i]); !e.zero() {
			return e.end()
		}
	}
	return 0
}
