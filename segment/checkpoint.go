package segment

import (
	"errors"
	"fmt"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
)

// A checkpoint is the index as it was at one moment, in one of two files that take turns.
// Recovery begins with it and replays only what the log has since. It is a help, never
// needed: when it is damaged the other one does, or the log alone.
//
// The file begins with a block that says what it is; pages of records follow. The block
// is written when all pages are durable, and so is all of the log that they tell of.

const (
	checkpointSlots = 2
	magicCheckpoint = 0x43565256 // "VRVC"
	magicPage       = 0x50565256 // "VRVP"
	pageHeader      = 32
	pageFull        = 1 << 20 // bytes from which on a page takes no more records
)

// The kinds of pages.
const (
	pageSegments = iota + 1 // sealed segments and the chunks they have entries of
	pageChunks
	pageImports // copies in the making
	pageKinds
)

// checkpoint is the first block of the file.
type checkpoint struct {
	generation uint64
	disk       uint64
	lsn        uint64 // entries up to this one are in it
	at         uint64 // last LSN drawn when it was completed; durable is as of then
	bytes      uint64 // of all pages, with their padding
	pages      uint32
	segments   uint32 // in the store
	durable    [heads]mark
}

func checkpointName(slot int) string { return fmt.Sprintf("checkpoint-%d", slot) }

// checkpointSlot is the slot of a checkpoint's file.
func checkpointSlot(name string) (int, bool) {
	for i := range checkpointSlots {
		if name == checkpointName(i) {
			return i, true
		}
	}
	return 0, false
}

func (c *checkpoint) put(b []byte) {
	clear(b[:blockSize])
	le.PutUint32(b[0:], magicCheckpoint)
	le.PutUint16(b[4:], formatVersion)
	le.PutUint64(b[16:], c.disk)
	le.PutUint64(b[24:], c.generation)
	le.PutUint64(b[32:], c.lsn)
	le.PutUint64(b[40:], c.at)
	le.PutUint64(b[48:], c.bytes)
	le.PutUint32(b[56:], c.pages)
	le.PutUint32(b[60:], c.segments)
	for i, m := range c.durable {
		le.PutUint64(b[64+16*i:], m.seq)
		le.PutUint32(b[72+16*i:], m.seg)
		le.PutUint32(b[76+16*i:], m.end)
	}
	le.PutUint32(b[8:], chunk.Sum(b[:blockSize]))
}

func decodeCheckpoint(b []byte) (checkpoint, error) {
	if err := decodeBlock(b, magicCheckpoint, "checkpoint"); err != nil {
		return checkpoint{}, err
	}
	c := checkpoint{disk: le.Uint64(b[16:]), generation: le.Uint64(b[24:]), lsn: le.Uint64(b[32:]), at: le.Uint64(b[40:]),
		bytes: le.Uint64(b[48:]), pages: le.Uint32(b[56:]), segments: le.Uint32(b[60:])}
	for i := range c.durable {
		c.durable[i] = mark{le.Uint64(b[64+16*i:]), le.Uint32(b[72+16*i:]), le.Uint32(b[76+16*i:])}
	}
	if c.generation == 0 || c.at < c.lsn || c.bytes%blockSize != 0 || uint64(c.pages) > c.bytes/blockSize {
		return c, fmt.Errorf("checkpoint %d: %d pages in %d bytes, of %d and %d", c.generation, c.pages, c.bytes, c.lsn, c.at)
	}
	return c, nil
}

// newPage begins a page.
func newPage(kind uint8) []byte {
	b := make([]byte, pageHeader, blockSize)
	le.PutUint32(b[0:], magicPage)
	b[4] = kind
	return b
}

// sealPage completes the header of a page.
func sealPage(b []byte, generation uint64, number uint32) {
	le.PutUint32(b[12:], uint32(len(b)))
	le.PutUint64(b[16:], generation)
	le.PutUint32(b[24:], number)
	le.PutUint32(b[8:], 0)
	le.PutUint32(b[8:], chunk.Sum(b))
}

// pageSize checks the start of a page and returns its bytes, without padding.
func pageSize(b []byte, generation uint64, number uint32) (uint32, error) {
	if le.Uint32(b) != magicPage || le.Uint64(b[16:]) != generation || le.Uint32(b[24:]) != number || le.Uint32(b[12:]) < pageHeader {
		return 0, fmt.Errorf("page %d is not of checkpoint %d", number, generation)
	}
	return le.Uint32(b[12:]), nil
}

// checkPage checks a whole page and returns its kind and its records.
func checkPage(b []byte, number uint32) (uint8, []byte, error) {
	sum := chunk.Sum(b[:8])
	sum = chunk.SumUpdate(sum, make([]byte, 4))
	if sum = chunk.SumUpdate(sum, b[12:]); sum != le.Uint32(b[8:]) {
		return 0, nil, fmt.Errorf("checksum of page %d is %08x, it says %08x", number, sum, le.Uint32(b[8:]))
	}
	return b[4], b[pageHeader:], nil
}

// Records of pages. A chunk, and an import, is followed by its extents, an extent by its
// sums; a segment by the IDs of its chunks.
const (
	savedChunk   = 48
	savedImport  = 24
	savedSegment = 16
	savedExtent  = 20
)

// appendChunk saves a record and what it is made of.
func (x *index) appendChunk(b []byte, r *record) []byte {
	b = le.AppendUint64(b, uint64(r.id))
	b = le.AppendUint64(b, r.hide)
	b = le.AppendUint64(b, r.base)
	b = le.AppendUint32(b, uint32(r.version))
	b = le.AppendUint32(b, r.writes)
	b = le.AppendUint32(b, r.attest)
	b = le.AppendUint32(b, r.state)
	b = le.AppendUint32(b, uint32(r.flags&(recAlive|recDead)))
	b = le.AppendUint32(b, r.body.n)
	return x.appendExtents(b, &r.body)
}

// appendImport saves a copy in the making.
func (x *index) appendImport(b []byte, imp *Import) []byte {
	b = le.AppendUint64(b, uint64(imp.id))
	b = le.AppendUint64(b, imp.number)
	b = le.AppendUint32(b, uint32(imp.version))
	b = le.AppendUint32(b, imp.body.n)
	return x.appendExtents(b, &imp.body)
}

func (x *index) appendExtents(b []byte, of *body) []byte {
	l := x.all(of)
	for i := range l {
		e := x.unpack(&l[i])
		b = le.AppendUint32(b, e.off)
		b = le.AppendUint32(b, e.len)
		b = le.AppendUint32(b, e.seg)
		b = le.AppendUint32(b, e.pos)
		b = le.AppendUint32(b, e.edge)
		for _, sum := range x.sumsOf(&e) {
			b = le.AppendUint32(b, sum)
		}
	}
	return b
}

// appendSegment saves what is needed of a sealed segment.
func appendSegment(b []byte, l *listed) []byte {
	b = le.AppendUint32(b, l.n)
	b = le.AppendUint32(b, l.frames)
	b = le.AppendUint32(b, l.end)
	b = le.AppendUint32(b, uint32(len(l.chunks)))
	for _, id := range l.chunks {
		b = le.AppendUint64(b, uint64(id))
	}
	return b
}

// listed is what a checkpoint knows of a segment that was sealed.
type listed struct {
	n, frames, end uint32
	chunks         []chunk.ID // sorted
}

var errShort = errors.New("page ends within a record")

// loader takes the records of pages apart.
type loader struct {
	segments func(l *listed) error
	chunk    func(r *record, extents []extent, sums []uint32) error // sums of all extents, one after the other
	imported func(id chunk.ID, number uint64, version chunk.Version, extents []extent, sums []uint32) error
	segs     uint32 // segments of the store
	segSize  uint32

	extents []extent
	sums    []uint32
}

// page calls the loader's functions for the records of a page.
func (d *loader) page(kind uint8, b []byte) error {
	var err error
	for len(b) > 0 && err == nil {
		switch kind {
		case pageSegments:
			b, err = d.takeSegment(b)
		case pageChunks:
			b, err = d.takeChunk(b)
		case pageImports:
			b, err = d.takeImport(b)
		default:
			err = fmt.Errorf("page of kind %d", kind)
		}
	}
	return err
}

func (d *loader) takeSegment(b []byte) ([]byte, error) {
	if len(b) < savedSegment {
		return nil, errShort
	}
	l := listed{n: le.Uint32(b), frames: le.Uint32(b[4:]), end: le.Uint32(b[8:])}
	n := uint64(le.Uint32(b[12:]))
	if b = b[savedSegment:]; l.n >= d.segs || n > uint64(len(b))/8 {
		return nil, fmt.Errorf("segment %d of %d chunks: %w", l.n, n, errShort)
	}
	l.chunks = make([]chunk.ID, n)
	for i := range l.chunks {
		l.chunks[i] = chunk.ID(le.Uint64(b[8*i:]))
		if i > 0 && l.chunks[i] <= l.chunks[i-1] {
			return nil, fmt.Errorf("segment %d: chunks are not in order", l.n)
		}
	}
	return b[8*n:], d.segments(&l)
}

func (d *loader) takeChunk(b []byte) ([]byte, error) {
	if len(b) < savedChunk {
		return nil, errShort
	}
	r := record{id: chunk.ID(le.Uint64(b)), hide: le.Uint64(b[8:]), base: le.Uint64(b[16:]), version: chunk.Version(le.Uint32(b[24:])),
		writes: le.Uint32(b[28:]), attest: le.Uint32(b[32:]), state: le.Uint32(b[36:]), flags: b[40] & (recAlive | recDead)}
	for _, seg := range []uint32{r.attest, r.state} {
		if seg >= d.segs && seg != noSegment {
			return nil, fmt.Errorf("chunk %v: told by segment %d", r.id, seg)
		}
	}
	b, err := d.takeExtents(b[savedChunk:], le.Uint32(b[44:]))
	if err != nil {
		return nil, fmt.Errorf("chunk %v: %w", r.id, err)
	}
	return b, d.chunk(&r, d.extents, d.sums)
}

func (d *loader) takeImport(b []byte) ([]byte, error) {
	if len(b) < savedImport {
		return nil, errShort
	}
	id, number, version := chunk.ID(le.Uint64(b)), le.Uint64(b[8:]), chunk.Version(le.Uint32(b[16:]))
	b, err := d.takeExtents(b[savedImport:], le.Uint32(b[20:]))
	if err != nil {
		return nil, fmt.Errorf("import of chunk %v: %w", id, err)
	}
	return b, d.imported(id, number, version, d.extents, d.sums)
}

// takeExtents decodes n extents and their sums, and checks that they can be.
func (d *loader) takeExtents(b []byte, n uint32) ([]byte, error) {
	if uint64(n)*savedExtent > uint64(len(b)) {
		return nil, errShort
	}
	d.extents, d.sums = d.extents[:0], d.sums[:0]
	end := uint64(0)
	for range n {
		if len(b) < savedExtent {
			return nil, errShort
		}
		e := extent{off: le.Uint32(b), len: le.Uint32(b[4:]), seg: le.Uint32(b[8:]), pos: le.Uint32(b[12:]), edge: le.Uint32(b[16:])}
		b = b[savedExtent:]
		pre, post := uint64(e.pre()), uint64(e.post())
		next := uint64(e.off) + uint64(e.len)
		if e.len == 0 || uint64(e.off) < end || next > chunk.Size || e.seg >= d.segs || pre > uint64(e.off) || pre > uint64(e.pos) ||
			e.edge&^(extentZero|1<<24-1) != 0 || !e.zero() && uint64(e.pos)+uint64(e.len)+post > uint64(d.segSize) || next+post > chunk.Size {
			return nil, fmt.Errorf("extent of %d bytes at %d in segment %d at %d", e.len, e.off, e.seg, e.pos)
		}
		k := int(e.pieces())
		if 4*k > len(b) {
			return nil, errShort
		}
		for i := range k {
			d.sums = append(d.sums, le.Uint32(b[4*i:]))
		}
		d.extents, b, end = append(d.extents, e), b[4*k:], next
	}
	return b, nil
}

// openCheckpoint opens a slot's file and reads its first block.
func openCheckpoint(d engine.Disk, slot int) (engine.File, checkpoint, error) {
	f, err := d.Open(checkpointName(slot))
	if err != nil {
		return nil, checkpoint{}, err
	}
	b := engine.Alloc(blockSize)
	defer engine.Free(b)
	var c checkpoint
	if f.Size() < blockSize {
		err = fmt.Errorf("%s: %d bytes", f.Name(), f.Size())
	} else if err = f.ReadAt(b, 0); err == nil {
		c, err = decodeCheckpoint(b)
	}
	if err == nil && c.bytes > uint64(f.Size())-blockSize {
		err = fmt.Errorf("checkpoint %d: %d bytes in a file of %d", c.generation, c.bytes, f.Size())
	}
	if err == nil && int(c.generation%checkpointSlots) != slot {
		err = fmt.Errorf("checkpoint %d in slot %d", c.generation, slot)
	}
	if err != nil {
		return nil, c, errors.Join(err, f.Close())
	}
	return f, c, nil
}
