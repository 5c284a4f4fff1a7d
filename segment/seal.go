package segment

import (
	"fmt"

	"github.com/varvefs/varve/chunk"
)

// A sealed segment ends with a body, which repeats the used part of all its headers,
// and a trailer in its last block.

// trailer is the last block of a sealed segment.
type trailer struct {
	head        uint8
	disk        uint64
	seg         uint32
	end         uint32 // bytes of the segment that frames fill
	incarnation uint64 // of the last frame
	first, last uint64 // numbers of the first and the last frame in their head
	lsn         uint64 // of the first entry of the first frame
	frames      uint32
	body        uint32 // bytes from the start of the segment to the body
	bodySize    uint32 // bytes
	bodySum     uint32
	next        uint32 // segment in which the head went on, noSegment: not known
	time        int64  // nanoseconds since 1970
}

func (t *trailer) put(b []byte) {
	clear(b[:blockSize])
	le.PutUint32(b[0:], magicTrailer)
	le.PutUint16(b[4:], formatVersion)
	b[6] = t.head
	le.PutUint64(b[16:], t.disk)
	le.PutUint32(b[24:], t.seg)
	le.PutUint32(b[28:], t.end)
	le.PutUint64(b[32:], t.incarnation)
	le.PutUint64(b[40:], t.first)
	le.PutUint64(b[48:], t.last)
	le.PutUint64(b[56:], t.lsn)
	le.PutUint32(b[64:], t.frames)
	le.PutUint32(b[68:], t.body)
	le.PutUint32(b[72:], t.bodySize)
	le.PutUint32(b[76:], t.bodySum)
	le.PutUint32(b[80:], t.next)
	le.PutUint64(b[88:], uint64(t.time))
	le.PutUint32(b[8:], chunk.Sum(b[:blockSize]))
}

// decodeTrailer reads and checks the last block of a segment of size bytes.
func decodeTrailer(b []byte, size uint32) (trailer, error) {
	var t trailer
	if err := decodeBlock(b, magicTrailer, "trailer"); err != nil {
		return t, err
	}
	t = trailer{
		head: b[6], disk: le.Uint64(b[16:]), seg: le.Uint32(b[24:]), end: le.Uint32(b[28:]),
		incarnation: le.Uint64(b[32:]), first: le.Uint64(b[40:]), last: le.Uint64(b[48:]), lsn: le.Uint64(b[56:]),
		frames: le.Uint32(b[64:]), body: le.Uint32(b[68:]), bodySize: le.Uint32(b[72:]), bodySum: le.Uint32(b[76:]),
		next: le.Uint32(b[80:]), time: int64(le.Uint64(b[88:])),
	}
	if t.head >= heads || t.end > t.body || t.body%blockSize != 0 || uint64(t.body)+uint64(t.bodySize) > uint64(size)-blockSize {
		return t, fmt.Errorf("trailer: head %d, frames to %d, body of %d bytes at %d", t.head, t.end, t.bodySize, t.body)
	}
	return t, nil
}

// decodeBody calls fn for each header in the body of a sealed segment, with the used
// part of its block.
func decodeBody(b []byte, t *trailer, fn func(h *header, used []byte) error) error {
	if sum := chunk.Sum(b); sum != t.bodySum {
		return fmt.Errorf("checksum of the seal is %08x, the trailer says %08x", sum, t.bodySum)
	}
	for i := range t.frames {
		if len(b) < 4 {
			return fmt.Errorf("seal ends before header %d of %d", i, t.frames)
		}
		n := le.Uint32(b)
		if b = b[4:]; n < fixedSize || n > headerSize || uint64(n) > uint64(len(b)) {
			return fmt.Errorf("header %d of %d in the seal has %d bytes", i, t.frames, n)
		}
		var h header
		h.get(b)
		if h.used != n {
			return fmt.Errorf("header %d of %d in the seal has %d bytes and says %d", i, t.frames, n, h.used)
		}
		if err := h.check(); err != nil {
			return fmt.Errorf("header %d of %d in the seal: %w", i, t.frames, err)
		}
		if err := fn(&h, b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	if len(b) != 0 {
		return fmt.Errorf("%d bytes behind the last header of the seal", len(b))
	}
	return nil
}

// free is the first and the last block of a segment that was emptied. What was written
// to the segment before its LSN does not count any more.
type free struct {
	disk uint64
	seg  uint32
	lsn  uint64
}

func (f *free) put(b []byte) {
	clear(b[:blockSize])
	le.PutUint32(b[0:], magicFree)
	le.PutUint16(b[4:], formatVersion)
	le.PutUint64(b[16:], f.disk)
	le.PutUint32(b[24:], f.seg)
	le.PutUint64(b[32:], f.lsn)
	le.PutUint32(b[8:], chunk.Sum(b[:blockSize]))
}

func decodeFree(b []byte) (free, error) {
	if err := decodeBlock(b, magicFree, "free mark"); err != nil {
		return free{}, err
	}
	return free{le.Uint64(b[16:]), le.Uint32(b[24:]), le.Uint64(b[32:])}, nil
}

// decodeBlock checks magic, sum and format of a block whose sum is at byte 8.
func decodeBlock(b []byte, magic uint32, what string) error {
	if len(b) < blockSize {
		return fmt.Errorf("%s of %d bytes", what, len(b))
	}
	b = b[:blockSize]
	if m := le.Uint32(b); m != magic {
		if m == 0 && blank(b) {
			return errBlank
		}
		return fmt.Errorf("magic %#x is not that of a %s", m, what)
	}
	sum := chunk.Sum(b[:8])
	sum = chunk.SumUpdate(sum, make([]byte, 4))
	if sum = chunk.SumUpdate(sum, b[12:]); sum != le.Uint32(b[8:]) {
		return fmt.Errorf("checksum of the %s is %08x, it says %08x", what, sum, le.Uint32(b[8:]))
	}
	if v := le.Uint16(b[4:]); v != formatVersion {
		return fmt.Errorf("format %d of a %s; this program knows %d", v, what, formatVersion)
	}
	return nil
}
