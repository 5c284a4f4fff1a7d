package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/varvefs/varve/chunk"
)

// Sizes in bytes. FORMAT.md is the text to this file.
const (
	blockSize  = chunk.Block // unit of frames, headers and direct I/O
	headerSize = blockSize
	fixedSize  = 160 // part of a header before its first entry
	entrySize  = 48  // without the sums that follow it

	formatVersion = 1

	magicFrame   = 0x46565256 // "VRVF"
	magicTrailer = 0x54565256 // "VRVT"
	magicFree    = 0x45565256 // "VRVE"
)

// The heads. Numbers are on disk.
const (
	headSmall = iota // small writes, and everything that is not data
	headBulk         // streams
	headClean        // what the cleaner keeps
	heads
)

// Kinds of entries. Numbers are on disk.
const (
	kindData   = 1 // bytes of a chunk
	kindZero   = 2 // bytes of a chunk that read as zeros
	kindState  = 3 // a chunk exists, has this version; what of its past counts
	kindDelete = 4 // a chunk is gone
)

// flagMoved marks an entry that repeats what was there before: it changes the place
// of bytes, not the chunk.
const flagMoved = 1

// noSegment stands for "none" where a segment number is wanted.
const noSegment = ^uint32(0)

var errBlank = errors.New("nothing was ever written here")

// mark is how far a head is durable.
type mark struct {
	seq uint64 // number of its last durable frame, 0: none
	seg uint32 // segment of that frame
	end uint32 // bytes of that segment up to the end of that frame
}

// header is the fixed part of a frame's header.
type header struct {
	head        uint8
	sum         uint32 // CRC32C of the header block with this field as zero
	used        uint32 // bytes of the header block up to the end of entries and sums
	inline      uint32 // first byte of inline payload in the header block
	size        uint32 // bytes of the frame
	entries     uint32
	disk        uint64
	seg         uint32
	off         uint32 // bytes from the start of the segment
	incarnation uint64
	seq         uint64 // number of the frame in its head
	lsn         uint64 // of the first entry
	previous    uint32 // sum of the header before this one in the segment
	durable     [heads]mark
	time        int64  // nanoseconds since 1970
	repeated    uint16 // names at the end of the header block: chunks of the head's frame before
}

// nameOf is how a header repeats a chunk of the frame before it.
func nameOf(id chunk.ID) uint32 {
	sum := ^uint32(0) // by hand: what is given to package crc32 goes to the heap
	for range 8 {
		sum = nameTable[byte(sum)^byte(id)] ^ sum>>8
		id >>= 8
	}
	return ^sum
}

var nameTable = crc32.MakeTable(crc32.Castagnoli)

// putNames writes names to the end of a header block.
func putNames(b []byte, names []uint32) {
	for i, n := range names {
		le.PutUint32(b[headerSize-4*len(names)+4*i:], n)
	}
}

// names reads them.
func (h *header) names(b []byte) []uint32 {
	list := make([]uint32, h.repeated)
	for i := range list {
		list[i] = le.Uint32(b[headerSize-4*len(list)+4*i:])
	}
	return list
}

// entry is one change of one chunk.
type entry struct {
	chunk     chunk.ID
	lsn       uint64
	imp       uint64 // data, zero: the import it belongs to, 0: none
	hide      uint64 // state: older entries do not count
	base      uint64 // state: except those of this import
	version   chunk.Version
	writes    uint32
	off, len  uint32 // data, zero: bytes of the chunk
	pos       uint32 // data: bytes from the start of the frame to the first byte
	kind      uint8
	flags     uint8
	pre, post uint16 // data: stored bytes of the outer pieces before and behind
}

// pieces is the number of sums that follow the entry.
func (e *entry) pieces() int {
	if e.kind != kindData {
		return 0
	}
	return chunk.Pieces(e.off-uint32(e.pre), uint32(e.pre)+e.len+uint32(e.post))
}

var le = binary.LittleEndian

// put fills in the fixed part of a header block and its sum, which it returns. All
// behind it must be complete.
func (h *header) put(b []byte) uint32 {
	clear(b[:fixedSize])
	le.PutUint32(b[0:], magicFrame)
	le.PutUint16(b[4:], formatVersion)
	b[6] = h.head
	le.PutUint32(b[12:], h.used)
	le.PutUint32(b[16:], h.inline)
	le.PutUint32(b[20:], h.size)
	le.PutUint32(b[24:], h.entries)
	le.PutUint64(b[32:], h.disk)
	le.PutUint32(b[40:], h.seg)
	le.PutUint32(b[44:], h.off)
	le.PutUint64(b[48:], h.incarnation)
	le.PutUint64(b[56:], h.seq)
	le.PutUint64(b[64:], h.lsn)
	le.PutUint32(b[72:], h.previous)
	for i, d := range h.durable {
		le.PutUint64(b[80+16*i:], d.seq)
		le.PutUint32(b[88+16*i:], d.seg)
		le.PutUint32(b[92+16*i:], d.end)
	}
	le.PutUint64(b[128:], uint64(h.time))
	le.PutUint16(b[136:], h.repeated)
	h.sum = chunk.Sum(b[:headerSize])
	le.PutUint32(b[8:], h.sum)
	return h.sum
}

// get reads the fixed part of a header without looking at its sum.
func (h *header) get(b []byte) {
	h.head = b[6]
	h.sum = le.Uint32(b[8:])
	h.used = le.Uint32(b[12:])
	h.inline = le.Uint32(b[16:])
	h.size = le.Uint32(b[20:])
	h.entries = le.Uint32(b[24:])
	h.disk = le.Uint64(b[32:])
	h.seg = le.Uint32(b[40:])
	h.off = le.Uint32(b[44:])
	h.incarnation = le.Uint64(b[48:])
	h.seq = le.Uint64(b[56:])
	h.lsn = le.Uint64(b[64:])
	h.previous = le.Uint32(b[72:])
	for i := range h.durable {
		h.durable[i] = mark{le.Uint64(b[80+16*i:]), le.Uint32(b[88+16*i:]), le.Uint32(b[92+16*i:])}
	}
	h.time = int64(le.Uint64(b[128:]))
	h.repeated = le.Uint16(b[136:])
}

// decodeHeader reads and checks a header block by itself: whether it belongs to this
// disk, segment and offset is for the caller to compare.
func decodeHeader(b []byte) (header, error) {
	var h header
	if len(b) < headerSize {
		return h, fmt.Errorf("header of %d bytes", len(b))
	}
	b = b[:headerSize]
	if m := le.Uint32(b); m != magicFrame {
		if m == 0 && blank(b) {
			return h, errBlank
		}
		return h, fmt.Errorf("magic %#x is not that of a frame", m)
	}
	sum := chunk.Sum(b[:8])
	sum = chunk.SumUpdate(sum, make([]byte, 4))
	if sum = chunk.SumUpdate(sum, b[12:]); sum != le.Uint32(b[8:]) {
		return h, fmt.Errorf("checksum of the header is %08x, it says %08x", sum, le.Uint32(b[8:]))
	}
	if v := le.Uint16(b[4:]); v != formatVersion {
		return h, fmt.Errorf("format %d of a frame; this program knows %d", v, formatVersion)
	}
	h.get(b)
	return h, h.check()
}

// check refuses fields that cannot be, so that nobody behind it need think of them.
func (h *header) check() error {
	switch {
	case h.head >= heads:
		return fmt.Errorf("head %d", h.head)
	case h.used < fixedSize || h.used > h.inline || uint64(h.inline)+4*uint64(h.repeated) > headerSize:
		return fmt.Errorf("entries end at %d, inline data starts at %d, %d names are behind it", h.used, h.inline, h.repeated)
	case h.size < headerSize || h.size%blockSize != 0 || h.off%blockSize != 0:
		return fmt.Errorf("%d bytes at %d", h.size, h.off)
	case uint64(h.entries)*entrySize > uint64(h.used-fixedSize):
		return fmt.Errorf("%d entries in %d bytes", h.entries, h.used)
	}
	return nil
}

// append encodes the entry and its sums behind b. lsn is that of the frame.
func (e *entry) append(b []byte, lsn uint64, sums []uint32) []byte {
	off, size, aux := e.off, e.len, e.imp
	if e.kind == kindState {
		off, size, aux = uint32(e.base), uint32(e.base>>32), e.hide
	}
	b = le.AppendUint64(b, uint64(e.chunk))
	b = le.AppendUint64(b, aux)
	b = le.AppendUint32(b, uint32(e.version))
	b = le.AppendUint32(b, e.writes)
	b = le.AppendUint32(b, off)
	b = le.AppendUint32(b, size)
	b = le.AppendUint32(b, e.pos)
	b = le.AppendUint32(b, uint32(e.lsn-lsn))
	b = append(b, e.kind, e.flags)
	b = le.AppendUint16(b, e.pre)
	b = le.AppendUint16(b, e.post)
	b = le.AppendUint16(b, uint16(len(sums)))
	for _, s := range sums {
		b = le.AppendUint32(b, s)
	}
	return b
}

// parse decodes the entry at the start of b. It returns what is left of b, which begins with
// the entry's sums, and how many those are; all of them are there. h is for checks.
func (e *entry) parse(b []byte, h *header) (rest []byte, n int, err error) {
	if len(b) < entrySize {
		return nil, 0, fmt.Errorf("entry cut off after %d bytes", len(b))
	}
	*e = entry{
		chunk:   chunk.ID(le.Uint64(b)),
		version: chunk.Version(le.Uint32(b[16:])),
		writes:  le.Uint32(b[20:]),
		pos:     le.Uint32(b[32:]),
		lsn:     h.lsn + uint64(le.Uint32(b[36:])),
		kind:    b[40],
		flags:   b[41],
	}
	aux, off, size := le.Uint64(b[8:]), le.Uint32(b[24:]), le.Uint32(b[28:])
	switch e.kind {
	case kindData, kindZero:
		e.imp, e.off, e.len = aux, off, size
		e.pre, e.post = le.Uint16(b[42:]), le.Uint16(b[44:])
	case kindState:
		e.hide, e.base = aux, uint64(off)|uint64(size)<<32
	case kindDelete:
	default:
		return nil, 0, fmt.Errorf("entry of kind %d", e.kind)
	}
	if err := e.check(h); err != nil {
		return nil, 0, err
	}
	n = int(le.Uint16(b[46:]))
	b = b[entrySize:]
	if n != e.pieces() || n*4 > len(b) {
		return nil, 0, fmt.Errorf("%d sums for %d pieces, %d bytes are left", n, e.pieces(), len(b))
	}
	return b, n, nil
}

// appendStored appends the n sums at the start of b to sums.
func appendStored(sums []uint32, b []byte, n int) []uint32 {
	sums = slices.Grow(sums, n)
	for b = b[:4*n]; len(b) >= 4; b = b[4:] {
		sums = append(sums, le.Uint32(b))
	}
	return sums
}

// next is parse, and appends the sums to sums. It returns what of b is behind them.
func (e *entry) next(b []byte, h *header, sums []uint32) ([]byte, []uint32, error) {
	b, n, err := e.parse(b, h)
	if err != nil {
		return nil, sums, err
	}
	return b[4*n:], appendStored(sums, b, n), nil
}

// check refuses an entry that reaches out of its chunk or out of its frame.
func (e *entry) check(h *header) error {
	if e.kind != kindData && e.kind != kindZero {
		return nil
	}
	start, end := uint64(e.off)-uint64(e.pre), uint64(e.off)+uint64(e.len)+uint64(e.post)
	if e.len == 0 || uint32(e.pre) > e.off || end > chunk.Size || e.pre >= blockSize || e.post >= blockSize ||
		start/blockSize != uint64(e.off)/blockSize || (end-1)/blockSize != uint64(e.off+e.len-1)/blockSize {
		return fmt.Errorf("entry of %d-%d+%d bytes at %d of a chunk", e.pre, e.len, e.post, e.off)
	}
	if e.kind == kindZero {
		return nil
	}
	first, last := int64(e.pos)-int64(e.pre), int64(e.pos)+int64(e.len)+int64(e.post)
	if first < int64(h.inline) || last > int64(h.size) {
		return fmt.Errorf("payload %d..%d outside of a frame of %d bytes", first, last, h.size)
	}
	return nil
}

// decodeEntries calls fn for each entry in the used part of a header block. The sums
// are valid during the call.
func decodeEntries(b []byte, h *header, fn func(e *entry, sums []uint32) error) error {
	rest := b[fixedSize:h.used]
	var sums []uint32
	for i := range h.entries {
		var e entry
		var err error
		if rest, sums, err = e.next(rest, h, sums[:0]); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if err := fn(&e, sums); err != nil {
			return err
		}
	}
	if len(rest) != 0 {
		return fmt.Errorf("%d bytes behind the last entry", len(rest))
	}
	return nil
}

// checkEntries checks the entries in the used part of a header block. It says whether one
// of them tells what of a chunk's past counts.
func checkEntries(b []byte, h *header) (tells bool, err error) {
	rest := b[fixedSize:h.used]
	var e entry
	for i := range h.entries {
		var n int
		if rest, n, err = e.parse(rest, h); err != nil {
			return false, fmt.Errorf("entry %d: %w", i, err)
		}
		tells = tells || e.tells()
		rest = rest[4*n:]
	}
	if len(rest) != 0 {
		return false, fmt.Errorf("%d bytes behind the last entry", len(rest))
	}
	return tells, nil
}

// tells says whether the entry says what of its chunk's past counts.
func (e *entry) tells() bool {
	return e.kind == kindDelete || e.kind == kindState && (e.hide != 0 || e.base != 0)
}

// blank says whether b holds zeros only.
func blank(b []byte) bool {
	for len(b) >= 8 {
		if le.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
