package wire

import "github.com/varvefs/varve/codec"

// Admin is an operator's question or order; What names it and Args are JSON.
// Questions are rare and grow often, so they are JSON inside the frame; the
// structs are in package admin. Reply: AdminReply.
type Admin struct {
	What string
	Args []byte
}

func (*Admin) Kind() Kind { return KindAdmin }
func (m *Admin) Fields(c *codec.Codec) {
	c.Str(&m.What, maxText)
	c.Bytes(&m.Args, maxJSON)
}

// AdminReply is the answer in JSON.
type AdminReply struct{ JSON []byte }

func (*AdminReply) Kind() Kind              { return KindAdminReply }
func (m *AdminReply) Fields(c *codec.Codec) { c.Bytes(&m.JSON, maxJSON) }

// StatFS asks for the space and inodes of the whole file system. Reply: StatFSReply.
type StatFS struct{}

func (*StatFS) Kind() Kind          { return KindStatFS }
func (*StatFS) Fields(*codec.Codec) {}

// StatFSReply is in bytes, of raw space divided by the root's goal.
type StatFSReply struct {
	Total  uint64
	Free   uint64
	Inodes uint64 // in use
}

func (*StatFSReply) Kind() Kind { return KindStatFSReply }
func (m *StatFSReply) Fields(c *codec.Codec) {
	c.U64(&m.Total)
	c.U64(&m.Free)
	c.U64(&m.Inodes)
}
