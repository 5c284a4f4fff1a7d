package journal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/codec"
)

// The bytes on disk. FORMAT.md explains them; numbers here and there must agree.
const (
	// page is the unit of writing: every frame starts at a multiple of it and is
	// padded to one, so that a torn write never touches an older frame.
	page = 4096

	headerMagic   = 0x31484a56 // "VJH1"
	frameMagic    = 0x31464a56 // "VJF1"
	formatVersion = 1

	frameHead  = 76 // encoded size of frame, magic and sum included
	recordHead = 30 // encoded size of record without data

	// frameFill is when a frame is closed although more entries wait: larger
	// writes gain nothing and make the ones behind them wait.
	frameFill = 1 << 20
	// maxEntry is the largest entry. maxFrame bounds what a decoder believes.
	maxEntry  = 8 << 20
	maxFrame  = frameFill + maxEntry + frameHead + recordHead
	maxVoters = 64
)

// Kinds of records.
const (
	recordEntry = 1 // one raft entry
	recordMark  = 2 // the log was cut: it goes on behind Index, whose term is Term
)

// hard is raft's hard state; each header and frame carries the newest.
type hard struct{ Term, Vote, Commit uint64 }

func (h *hard) Fields(c *codec.Codec) {
	c.U64(&h.Term)
	c.U64(&h.Vote)
	c.U64(&h.Commit)
}

// position names an entry.
type position struct{ Index, Term uint64 }

func (p *position) Fields(c *codec.Codec) {
	c.U64(&p.Index)
	c.U64(&p.Term)
}

// header is the first page of a file.
type header struct {
	Version   uint32
	Number    uint64 // of the file
	Size      uint64 // bytes of the file, for ever
	Nonce     uint64 // random; its frames repeat it, so that no payload can pass for a frame
	Node      uint64 // Config.ID of the writer
	Created   int64  // ns since 1970, for people
	PrevNonce uint64 // of file Number-1; 0 when there was none
	PrevEnd   uint64 // where file Number-1 ends
	PrevSum   uint32 // sum of its last frame or of its header
	Before    position
	Hard      hard
	Voters    []uint64

	sum uint32 // as read or written
}

func (h *header) Fields(c *codec.Codec) {
	c.U32(&h.Version)
	c.U64(&h.Number)
	c.U64(&h.Size)
	c.U64(&h.Nonce)
	c.U64(&h.Node)
	c.I64(&h.Created)
	c.U64(&h.PrevNonce)
	c.U64(&h.PrevEnd)
	c.U32(&h.PrevSum)
	h.Before.Fields(c)
	h.Hard.Fields(c)
	codec.List(c, &h.Voters, maxVoters, 8, func(c *codec.Codec, v *uint64) { c.U64(v) })
}

// frame is the head of one write: records follow it.
type frame struct {
	Length  uint32 // bytes of head and records; padding up to the next page is not counted
	Records uint32
	Number  uint64 // of the file
	Nonce   uint64 // of the file
	Offset  uint64 // of this frame in the file
	Durable uint64 // everything before this offset was durable when the frame was written
	PrevSum uint32 // sum of the frame or header before it
	Hard    hard

	sum uint32 // as read or written
}

func (f *frame) Fields(c *codec.Codec) {
	c.U32(&f.Length)
	c.U32(&f.Records)
	c.U64(&f.Number)
	c.U64(&f.Nonce)
	c.U64(&f.Offset)
	c.U64(&f.Durable)
	c.U32(&f.PrevSum)
	f.Hard.Fields(c)
}

// record is what a frame is made of.
type record struct {
	Kind     uint8
	Type     uint8 // raftpb.EntryType
	Index    uint64
	Term     uint64
	PrevTerm uint64 // of the entry before
	Data     []byte
}

func (r *record) Fields(c *codec.Codec) {
	c.U8(&r.Kind)
	c.U8(&r.Type)
	c.U64(&r.Index)
	c.U64(&r.Term)
	c.U64(&r.PrevTerm)
	c.Bytes(&r.Data, maxEntry)
}

// Why bytes are not a header or a frame. errBlank is no sign of damage: nothing
// of this file was ever written there.
var (
	errBlank  = errors.New("nothing was written here")
	errHeader = errors.New("the file header is damaged")
	errFrame  = errors.New("the frame's checksum does not match")
	// errPlace is a whole frame in the wrong place: no crash does that.
	errPlace = errors.New("a frame of another place")
)

// seal writes magic and sum before a body: the shape that a header and a frame
// share. The sum covers what follows it.
func seal(b []byte, magic uint32) (sum uint32) {
	binary.LittleEndian.PutUint32(b, magic)
	sum = chunk.Sum(b[8:])
	binary.LittleEndian.PutUint32(b[4:], sum)
	return sum
}

// encodeHeader makes the first page of a file and sets h.sum.
func encodeHeader(dst []byte, h *header) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, 8)...)
	dst = codec.Append(dst, h)
	if n := page - (len(dst) - start); n > 0 {
		dst = append(dst, make([]byte, n)...)
	}
	h.sum = seal(dst[start:], headerMagic)
	return dst
}

// decodeHeader reads the first page of a file.
func decodeHeader(b []byte) (header, error) {
	var h header
	if len(b) < page || binary.LittleEndian.Uint32(b) != headerMagic {
		return h, errBlank
	}
	h.sum = chunk.Sum(b[8:page])
	if h.sum != binary.LittleEndian.Uint32(b[4:]) {
		return h, errHeader
	}
	// The version is checked before anything that a later version may have moved.
	if v := binary.LittleEndian.Uint32(b[8:]); v != formatVersion {
		return h, fmt.Errorf("format version %d; this program reads version %d", v, formatVersion)
	}
	if _, err := codec.DecodePrefix(b[8:page], &h); err != nil {
		return h, fmt.Errorf("%w: %w", errHeader, err)
	}
	return h, nil
}

// appendRecord encodes a record behind b.
func appendRecord(b []byte, r *record) []byte { return codec.Append(b, r) }

// appendFrameHead reserves room for the head of a frame; sealFrame fills it.
func appendFrameHead(dst []byte) []byte { return append(dst, make([]byte, frameHead)...) }

// sealFrame puts the head into b, which holds a whole frame without padding, and
// sets f.Length and f.sum.
func sealFrame(b []byte, f *frame) {
	f.Length = uint32(len(b))
	if n := len(codec.Append(b[:8], f)); n != frameHead {
		panic(fmt.Sprintf("BUG: a frame head has %d bytes, not %d", n, frameHead))
	}
	f.sum = seal(b, frameMagic)
}

// parseFrame reads the head of the frame at the start of b, unchecked but for
// its length, which is at most room.
func parseFrame(b []byte, room int64) (f frame, err error) {
	if len(b) < frameHead || binary.LittleEndian.Uint32(b) != frameMagic {
		return f, errBlank
	}
	if err := codec.Decode(b[8:frameHead], &f); err != nil {
		return f, fmt.Errorf("%w: %w", errFrame, err)
	}
	if f.Length < frameHead || f.Length > maxFrame || int64(f.Length) > room {
		return f, errFrame
	}
	return f, nil
}

// checkFrame verifies a parsed frame's sum and returns its records.
func checkFrame(f *frame, b []byte) (records []byte, err error) {
	f.sum = chunk.Sum(b[8:f.Length])
	if f.sum != binary.LittleEndian.Uint32(b[4:]) {
		return nil, errFrame
	}
	return b[frameHead:f.Length], nil
}

// decodeRecords calls visit for each record of a frame.
func decodeRecords(f *frame, b []byte, visit func(*record) error) error {
	for n := uint32(0); n < f.Records; n++ {
		var r record
		rest, err := codec.DecodePrefix(b, &r)
		if err != nil {
			return err
		}
		if r.Kind != recordEntry && r.Kind != recordMark {
			return fmt.Errorf("record of unknown kind %d", r.Kind)
		}
		if err := visit(&r); err != nil {
			return err
		}
		b = rest
	}
	if len(b) != 0 {
		return fmt.Errorf("%d bytes behind the last record", len(b))
	}
	return nil
}

// padded is n rounded up to whole pages.
func padded(n int) int { return (n + page - 1) &^ (page - 1) }
