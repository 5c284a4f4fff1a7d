package wire

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/codec"
)

// Limits of short-circuit reads.
const (
	MaxPlaces     = 4096    // places in one reply
	MaxPlacesSpan = 4 << 20 // bytes that one Places may ask about
	MaxLend       = 64      // files in one Lend
)

// Places asks where bytes of a chunk lie in the chunkserver's files, for a mount on the
// same host that reads there itself. The version must be in Min..Version, as in Read.
// Reply: PlacesReply; status Busy while some of the bytes are not on disk, TooBig
// when they lie in more than MaxPlaces places.
type Places struct {
	Chunk   chunk.ID
	Min     chunk.Version
	Version chunk.Version
	Off     uint32
	Len     uint32 // at most MaxPlacesSpan
	Token   []byte
}

func (*Places) Kind() Kind { return KindPlaces }
func (m *Places) Fields(c *codec.Codec) {
	codec.Uint(c, &m.Chunk)
	c.U32((*uint32)(&m.Min))
	c.U32((*uint32)(&m.Version))
	c.U32(&m.Off)
	c.U32(&m.Len)
	c.Bytes(&m.Token, maxToken)
}

// Place is a run of stored bytes of a chunk. They were stored in pieces, cut at the
// multiples of 4096 of the chunk, of which the first and the last may be short; Pre stored
// bytes lie in the first piece before Off, Post in the last one behind Off+Len.
type Place struct {
	Off  uint32
	Len  uint32
	Pre  uint16
	Post uint16
	File uint32 // number for Lend; as long as the chunkserver runs it means the same file
	At   uint64 // byte of the file where the first piece starts
}

const placeSize = 4 + 4 + 2 + 2 + 4 + 8

// PlacesReply lists the places in order; what they leave out reads as zeros. Sums are those
// of all pieces of all places.
type PlacesReply struct {
	Places []Place
	Sums   []uint32
}

func (*PlacesReply) Kind() Kind { return KindPlacesReply }
func (m *PlacesReply) Fields(c *codec.Codec) {
	codec.List(c, &m.Places, MaxPlaces, placeSize, func(c *codec.Codec, p *Place) {
		c.U32(&p.Off)
		c.U32(&p.Len)
		c.U16(&p.Pre)
		c.U16(&p.Post)
		c.U32(&p.File)
		c.U64(&p.At)
	})
	c.U32s(&m.Sums, MaxPlacesSpan/4096+2*MaxPlaces)
}

// Lend asks for descriptors of the files that places name. They cannot travel on this
// connection. Reply: LendReply.
type Lend struct{ Files []uint32 }

func (*Lend) Kind() Kind              { return KindLend }
func (m *Lend) Fields(c *codec.Codec) { c.U32s(&m.Files, MaxLend) }

// LendReply says where the descriptors are handed out: on the unix socket Socket, an
// abstract name, once, to a process of the same user or of root that shows Ticket first.
// Who hands them out shows Proof.
type LendReply struct {
	Socket string
	Ticket [32]byte
	Proof  [32]byte
}

func (*LendReply) Kind() Kind { return KindLendReply }
func (m *LendReply) Fields(c *codec.Codec) {
	c.Str(&m.Socket, maxText)
	fixed(c, m.Ticket[:])
	fixed(c, m.Proof[:])
}
