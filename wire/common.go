package wire

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/inode"
)

// Empty is the body of replies that say nothing but "done", and of errors.
type Empty struct{}

func (*Empty) Kind() Kind          { return KindEmpty }
func (*Empty) Fields(*codec.Codec) {}

// Detail is the body of a reply whose status is not 0.
type Detail struct{ Text string }

func (*Detail) Kind() Kind              { return KindEmpty }
func (m *Detail) Fields(c *codec.Codec) { c.Str(&m.Text, maxDetail) }

// BytesReply is a symlink's target, an attribute's value or a list of names,
// each ended by a zero byte.
type BytesReply struct {
	Bytes  []byte
	Rights inode.Rights // now held on the inode
}

func (*BytesReply) Kind() Kind { return KindBytesReply }
func (m *BytesReply) Fields(c *codec.Codec) {
	c.Bytes(&m.Bytes, maxXattr)
	codec.Uint(c, &m.Rights)
}

// Attr encodes the attributes of an inode.
func Attr(c *codec.Codec, a *inode.Attr) {
	codec.Uint(c, &a.Ino)
	c.U8((*uint8)(&a.Kind))
	c.U8(&a.Flags)
	c.U32(&a.Mode)
	c.U32(&a.Nlink)
	c.U32(&a.Uid)
	c.U32(&a.Gid)
	c.U32(&a.Rdev)
	c.U8(&a.Goal)
	c.U64(&a.Size)
	c.U64(&a.Blocks)
	c.I64(&a.Atime)
	c.I64(&a.Mtime)
	c.I64(&a.Ctime)
	c.I64(&a.Btime)
	c.U32(&a.Trash)
	c.U64(&a.Gen)
}

// attrSize is the number of bytes of an encoded Attr.
const attrSize = 8 + 1 + 1 + 4*5 + 1 + 8*6 + 4 + 8

// Replica is one place where a copy of a chunk is.
type Replica struct {
	Server chunk.Server
	Addr   string // host:port of the data port
}

func (r *Replica) Fields(c *codec.Codec) {
	codec.Uint(c, &r.Server)
	c.Str(&r.Addr, maxText)
}

// ChunkLoc says where one chunk of a file is and which bytes of it count.
// While a lease is open its copies are at Min (not yet written under the lease)
// or at Version; otherwise Min equals Version.
type ChunkLoc struct {
	Index    uint32 // number of the chunk in the file
	Chunk    chunk.ID
	Version  chunk.Version
	Min      chunk.Version
	Valid    uint32 // bytes from here to the end of the chunk read as zeros
	Fresh    bool   // made under the lease that is open: a write may have to make the copy
	Gone     bool   // no copy is left, and no chunkserver is away that could have one
	Replicas []Replica
	Token    []byte // for the data port, see Token
}

func (l *ChunkLoc) Fields(c *codec.Codec) {
	c.U32(&l.Index)
	codec.Uint(c, &l.Chunk)
	c.U32((*uint32)(&l.Version))
	c.U32((*uint32)(&l.Min))
	c.U32(&l.Valid)
	c.Bool(&l.Fresh)
	c.Bool(&l.Gone)
	codec.List(c, &l.Replicas, maxReplicas, 12, func(c *codec.Codec, r *Replica) { r.Fields(c) })
	c.Bytes(&l.Token, maxToken)
}

const chunkLocSize = 4 + 8 + 4*3 + 2 + 4 + 4
