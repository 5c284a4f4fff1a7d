package segment

// packed is an extent as the index keeps it, in 16 bytes. Most extents are data in whole
// blocks of the chunk: how many, fits in where they begin, and a single one has its sum at
// hand. Others, the odd ones, have what else there is to say before their sums.
type packed struct {
	at       uint32 // first byte in the chunk; of whole blocks its low bits are their number less one
	seg, pos uint32 // as in extent
	sums     uint32 // the sum of a single whole block, else the low bits of the number of a run in index.sums
}

const (
	packedOff = 1<<26 - 1 // in at: the first byte
	packedRun = 26        // in at, from this bit on: five high bits of the run's number
	packedOdd = 1 << 31   // in at: not data in whole blocks; the run begins with len and edge
	oddWords  = 2
)

// whole tells whether e is data in whole blocks, of a number that packed.at takes.
func (e *extent) whole() bool {
	return e.edge == 0 && (e.off|e.len)%blockSize == 0 && e.len <= blockSize*blockSize
}

// off is the first byte in the chunk, which is all that a search needs.
func (p *packed) off() uint32 {
	if p.at&packedOdd != 0 {
		return p.at & packedOff
	}
	return p.at & (packedOff &^ edgeMask)
}

// blocks is how many it has if it is not odd.
func (p *packed) blocks() uint32 { return p.at&edgeMask + 1 }

// run is the number of the run of sums.
func (p *packed) run() uint64 { return uint64(p.at>>packedRun&31)<<32 | uint64(p.sums) }

// pack returns e as the index keeps it, with sums of its own.
func (x *index) pack(e *extent, sums []uint32) packed {
	p := packed{at: e.off, seg: e.seg, pos: e.pos}
	n, extra := uint32(len(sums)), uint32(0)
	if e.whole() {
		p.at |= n - 1
		if n == 1 {
			p.sums = sums[0]
			return p
		}
	} else {
		p.at |= packedOdd
		extra = oddWords
	}
	ref, _ := x.sums.alloc(extra + n)
	p.at, p.sums = p.at|uint32(ref>>32)<<packedRun, uint32(ref)
	run := x.sums.at(ref, extra+n)
	if extra > 0 {
		run[0], run[1] = e.len, e.edge
	}
	copy(run[extra:], sums)
	return p
}

// unpack returns the extent that was packed.
func (x *index) unpack(p *packed) extent {
	if p.at&packedOdd != 0 {
		return x.unpackOdd(p)
	}
	return extent{off: p.at & (packedOff &^ edgeMask), len: p.blocks() * blockSize, seg: p.seg, pos: p.pos, sums: p.run()}
}

func (x *index) unpackOdd(p *packed) extent {
	run := x.sums.at(p.run(), oddWords)
	return extent{off: p.at & packedOff, len: run[0], seg: p.seg, pos: p.pos, edge: run[1], sums: p.run() + oddWords}
}

// end is the byte of the chunk behind the last one.
func (x *index) end(p *packed) uint32 {
	if p.at&packedOdd != 0 {
		return p.at&packedOff + x.sums.at(p.run(), 1)[0]
	}
	return p.at&(packedOff&^edgeMask) + p.blocks()*blockSize
}

// release gives back the run of an extent of n pieces.
func (x *index) release(p *packed, n uint32) {
	if p.at&packedOdd != 0 {
		x.sums.release(p.run(), oddWords+n)
	} else if n > 1 {
		x.sums.release(p.run(), n)
	}
}

// sumsOf returns the sums of e, which was unpacked. The slice is good until the index
// changes.
func (x *index) sumsOf(e *extent) []uint32 {
	if e.len == blockSize && e.whole() {
		x.one[0] = uint32(e.sums)
		return x.one[:]
	}
	return x.sums.at(e.sums, e.pieces())
}

// search returns the number of the first extent of l that ends behind off.
func (x *index) search(l []packed, off uint32) int {
	lo, hi := 0, len(l)
	for lo < hi { // the first that begins behind off
		if m := int(uint(lo+hi) / 2); l[m].off() > off {
			hi = m
		} else {
			lo = m + 1
		}
	}
	if lo > 0 && x.end(&l[lo-1]) > off {
		return lo - 1
	}
	return lo
}

// unpacked returns all extents of b, in order.
func (x *index) unpacked(b *body) []extent {
	var list []extent
	for i := range x.all(b) {
		list = append(list, x.unpack(&x.all(b)[i]))
	}
	return list
}
