package wire

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/codec"
)

// What a Write does to a chunk.
const (
	WriteData = iota // store the data at Off
	WriteZero        // bytes Off..Off+Len read as zeros
	WriteTrim        // bytes from Off to the end of the chunk read as zeros
)

// Write changes one chunk under a lease. A server that has the chunk at Min or
// at Version takes it and is at Version from then on; one that does not have it
// makes it when Create is set (a chunk made under this lease). The reply comes
// when this server and all of Chain have the write in memory, in order; with
// Sync when all have it on disk. Writes on one connection to one chunk take
// effect in the order in which they were sent. Reply: WriteReply.
type Write struct {
	Chunk   chunk.ID
	Min     chunk.Version
	Version chunk.Version
	Epoch   uint64 // highest that the writer knows; OldEpoch when it is old and the write would make or raise a copy
	What    uint8
	Create  bool
	Sync    bool
	Off     uint32
	Len     uint32 // bytes; for WriteData the data's length
	Token   []byte
	Sums    []uint32 // chunk.AppendSums of the data
	Chain   []Replica
}

func (*Write) Kind() Kind { return KindWrite }
func (m *Write) Fields(c *codec.Codec) {
	codec.Uint(c, &m.Chunk)
	c.U32((*uint32)(&m.Min))
	c.U32((*uint32)(&m.Version))
	c.U64(&m.Epoch)
	c.U8(&m.What)
	c.Bool(&m.Create)
	c.Bool(&m.Sync)
	c.U32(&m.Off)
	c.U32(&m.Len)
	c.Bytes(&m.Token, maxToken)
	c.U32s(&m.Sums, maxPieces)
	codec.List(c, &m.Chain, maxReplicas, 12, func(c *codec.Codec, r *Replica) { r.Fields(c) })
}

// WriteReply of a failed write names the hop that failed (0: this server). It
// is sent with status OK and Failed not 0, or with an error status for this
// server's own failure.
type WriteReply struct {
	Failed chunk.Server
	Code   uint16
	Detail string
}

func (*WriteReply) Kind() Kind { return KindWriteReply }
func (m *WriteReply) Fields(c *codec.Codec) {
	codec.Uint(c, &m.Failed)
	c.U16(&m.Code)
	c.Str(&m.Detail, maxDetail)
}

// Sync is answered (Empty) when all writes to these chunks that this server has
// accepted so far are on disk.
type Sync struct{ Chunks []chunk.ID }

func (*Sync) Kind() Kind { return KindSync }
func (m *Sync) Fields(c *codec.Codec) {
	codec.List(c, &m.Chunks, maxItems, 8, func(c *codec.Codec, id *chunk.ID) { codec.Uint(c, id) })
}

// Read asks for bytes of a chunk whose version must be in Min..Version. Holes
// read as zeros. Len is at most MaxData. Reply: ReadReply and the data.
type Read struct {
	Chunk   chunk.ID
	Min     chunk.Version
	Version chunk.Version
	Off     uint32
	Len     uint32
	Token   []byte
}

func (*Read) Kind() Kind { return KindRead }
func (m *Read) Fields(c *codec.Codec) {
	codec.Uint(c, &m.Chunk)
	c.U32((*uint32)(&m.Min))
	c.U32((*uint32)(&m.Version))
	c.U32(&m.Off)
	c.U32(&m.Len)
	c.Bytes(&m.Token, maxToken)
}

// ReadReply carries the checksums of the data, cut as chunk.AppendSums does.
type ReadReply struct{ Sums []uint32 }

func (*ReadReply) Kind() Kind              { return KindReadReply }
func (m *ReadReply) Fields(c *codec.Codec) { c.U32s(&m.Sums, maxPieces) }

// Map asks which bytes of a chunk hold data. Reply: MapReply.
type Map struct {
	Chunk   chunk.ID
	Min     chunk.Version
	Version chunk.Version
	Token   []byte
}

func (*Map) Kind() Kind { return KindMap }
func (m *Map) Fields(c *codec.Codec) {
	codec.Uint(c, &m.Chunk)
	c.U32((*uint32)(&m.Min))
	c.U32((*uint32)(&m.Version))
	c.Bytes(&m.Token, maxToken)
}

// Range is a run of bytes of a chunk.
type Range struct{ Off, Len uint32 }

// MapReply lists the runs of data in ascending order, neighbours joined.
type MapReply struct {
	Version chunk.Version
	Ranges  []Range
}

func (*MapReply) Kind() Kind { return KindMapReply }
func (m *MapReply) Fields(c *codec.Codec) {
	c.U32((*uint32)(&m.Version))
	codec.List(c, &m.Ranges, maxItems, 8, func(c *codec.Codec, r *Range) {
		c.U32(&r.Off)
		c.U32(&r.Len)
	})
}
