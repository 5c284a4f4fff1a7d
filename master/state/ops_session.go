package state

import (
	"fmt"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/inode"
)

// SessionOpen makes a session. Result: Session.
type SessionOpen struct {
	Host     string
	Mount    string
	Path     string
	ReadOnly bool
}

// Code is OpSessionOpen.
func (*SessionOpen) Code() OpCode { return OpSessionOpen }

// Fields encodes and decodes.
func (o *SessionOpen) Fields(c *codec.Codec) {
	c.Str(&o.Host, maxText)
	c.Str(&o.Mount, maxText)
	c.Str(&o.Path, maxText)
	c.Bool(&o.ReadOnly)
}

func (o *SessionOpen) String() string {
	return fmt.Sprintf("SESSION(%s,%s,%s,%s)", escape(o.Host), escape(o.Mount), escape(o.Path), flags("r", o.ReadOnly))
}

// SessionClose ends a session and its holds on orphans. Its leases stay, each
// until a LeaseDrop. A session that does not exist is Stale.
type SessionClose struct{ ID uint64 }

// Code is OpSessionClose.
func (*SessionClose) Code() OpCode { return OpSessionClose }

// Fields encodes and decodes.
func (o *SessionClose) Fields(c *codec.Codec) { c.U64(&o.ID) }

func (o *SessionClose) String() string { return fmt.Sprintf("SESDEL(%d)", o.ID) }

// Reserve gives the entry's session Count inode numbers for inodes that it will
// make. Those it does not use go back when it ends. A session cannot have more
// than MaxReserved. Result: Inos.
type Reserve struct{ Count uint32 }

// MaxReserved bounds the inode numbers reserved for one session.
const MaxReserved = 1 << 15

// Code is OpReserve.
func (*Reserve) Code() OpCode { return OpReserve }

// Fields encodes and decodes.
func (o *Reserve) Fields(c *codec.Codec) { c.U32(&o.Count) }

func (o *Reserve) String() string { return fmt.Sprintf("RESERVE(%d)", o.Count) }

// ReleaseHold says that orphans are no longer open in the entry's session.
// Inodes that it does not hold are passed over.
type ReleaseHold struct{ Inos []inode.Ino }

// Code is OpReleaseHold.
func (*ReleaseHold) Code() OpCode { return OpReleaseHold }

// Fields encodes and decodes.
func (o *ReleaseHold) Fields(c *codec.Codec) { inoFields(c, &o.Inos) }

func (o *ReleaseHold) String() string { return fmt.Sprintf("RELEASE(%s)", list(o.Inos)) }

// ServerSeen notes a chunkserver, or its new address or labels.
type ServerSeen struct {
	ID     chunk.Server
	Addr   string
	Labels string
}

// Code is OpServerSeen.
func (*ServerSeen) Code() OpCode { return OpServerSeen }

// Fields encodes and decodes.
func (o *ServerSeen) Fields(c *codec.Codec) {
	codec.Uint(c, &o.ID)
	c.Str(&o.Addr, maxText)
	c.Str(&o.Labels, maxText)
}

func (o *ServerSeen) String() string {
	return fmt.Sprintf("CSADD(%s,%s,%s)", o.ID, escape(o.Addr), escape(o.Labels))
}

// ServerForget removes a chunkserver for good; one that is unknown is NotFound.
type ServerForget struct{ ID chunk.Server }

// Code is OpServerForget.
func (*ServerForget) Code() OpCode { return OpServerForget }

// Fields encodes and decodes.
func (o *ServerForget) Fields(c *codec.Codec) { codec.Uint(c, &o.ID) }

func (o *ServerForget) String() string { return fmt.Sprintf("CSDEL(%s)", o.ID) }

// SetCluster gives the cluster its identity. It can be given once; another one is Exists.
type SetCluster struct{ ID string }

// Code is OpSetCluster.
func (*SetCluster) Code() OpCode { return OpSetCluster }

// Fields encodes and decodes.
func (o *SetCluster) Fields(c *codec.Codec) { c.Str(&o.ID, maxText) }

func (o *SetCluster) String() string { return fmt.Sprintf("CLUSTER(%s)", escape(o.ID)) }

// Nop changes nothing.
type Nop struct{}

// Code is OpNop.
func (*Nop) Code() OpCode { return OpNop }

// Fields encodes and decodes.
func (*Nop) Fields(*codec.Codec) {}

func (*Nop) String() string { return "NOP()" }
