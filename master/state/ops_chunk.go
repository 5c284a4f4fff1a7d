package state

import (
	"fmt"
	"strings"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/inode"
)

// Lease gives the session write leases on chunks First..First+Count-1 of a
// file. A chunk that exists goes up by one version, a missing one is made at
// version 1, one that the session has leased already stays as it is. A lease of
// another session is Busy. Result: Ino, Chunks.
type Lease struct {
	Ino   inode.Ino
	First uint32
	Count uint32
}

// Code is OpLease.
func (*Lease) Code() OpCode { return OpLease }

// Fields encodes and decodes.
func (o *Lease) Fields(c *codec.Codec) {
	codec.Uint(c, &o.Ino)
	c.U32(&o.First)
	c.U32(&o.Count)
}

func (o *Lease) String() string { return fmt.Sprintf("WRITE(%d,%d,%d)", o.Ino, o.First, o.Count) }

// LeaseFail notes that the surviving copies of a leased chunk were raised to
// Version. Result: Ino, Chunks.
type LeaseFail struct {
	Ino     inode.Ino
	Index   uint32
	Chunk   chunk.ID
	Version chunk.Version // the new one, above the chunk's
}

// Code is OpLeaseFail.
func (*LeaseFail) Code() OpCode { return OpLeaseFail }

// Fields encodes and decodes.
func (o *LeaseFail) Fields(c *codec.Codec) {
	codec.Uint(c, &o.Ino)
	c.U32(&o.Index)
	codec.Uint(c, &o.Chunk)
	c.U32((*uint32)(&o.Version))
}

func (o *LeaseFail) String() string {
	return fmt.Sprintf("INCVERSION(%d,%d,%s,%d)", o.Ino, o.Index, o.Chunk, o.Version)
}

// Commit tells what a mount did under right W, for many files at once. Each file
// is a change of its own: one that fails leaves the others alone. Result: Codes.
type Commit struct{ Files []CommitFile }

// CommitFile is the new size and mtime of one file, the chunks whose trim to
// Valid was carried out, and the leases that end.
type CommitFile struct {
	Ino     inode.Ino
	Size    uint64
	Mtime   int64
	Trimmed []uint32 // indexes
	Ended   []LeaseEnd
	Kill    bool // as SetKill

	// Of attributes that the mount has changed under W: Sets says which count.
	Sets  uint32 // SetMode, SetUid, SetGid, SetAtime
	Mode  uint32 // 07777
	Uid   uint32
	Gid   uint32
	Atime int64
	Ctime int64 // never goes back; 0: Mtime
}

// LeaseEnd gives a lease back. Not Written: no byte was sent under it, and the
// chunk is as before, or gone if it was made under the lease. Leases that the
// session no longer has (the chunk was truncated away) are passed over.
type LeaseEnd struct {
	Index   uint32
	Chunk   chunk.ID
	Version chunk.Version
	Written bool
}

// Code is OpCommit.
func (*Commit) Code() OpCode { return OpCommit }

// Fields encodes and decodes.
func (o *Commit) Fields(c *codec.Codec) {
	codec.List(c, &o.Files, maxItems, 65, func(c *codec.Codec, f *CommitFile) { f.Fields(c) })
}

// Fields encodes and decodes.
func (f *CommitFile) Fields(c *codec.Codec) {
	codec.Uint(c, &f.Ino)
	c.U64(&f.Size)
	c.I64(&f.Mtime)
	c.U32s(&f.Trimmed, maxItems)
	codec.List(c, &f.Ended, maxItems, 17, func(c *codec.Codec, e *LeaseEnd) {
		c.U32(&e.Index)
		codec.Uint(c, &e.Chunk)
		c.U32((*uint32)(&e.Version))
		c.Bool(&e.Written)
	})
	c.Bool(&f.Kill)
	c.U32(&f.Sets)
	c.U32(&f.Mode)
	c.U32(&f.Uid)
	c.U32(&f.Gid)
	c.I64(&f.Atime)
	c.I64(&f.Ctime)
}

func (o *Commit) String() string {
	var b strings.Builder
	b.WriteString("LENGTH(")
	for i := range o.Files {
		f := &o.Files[i]
		if i > 0 {
			b.WriteByte(';')
		}
		fmt.Fprintf(&b, "%d,%d,%d,%s,%s", f.Ino, f.Size, f.Mtime, list(f.Trimmed), flags("k", f.Kill))
		if f.Sets != 0 || f.Ctime != 0 {
			fmt.Fprintf(&b, ",0x%x:%04o:%d:%d:%d:%d", f.Sets, f.Mode, f.Uid, f.Gid, f.Atime, f.Ctime)
		}
		for _, e := range f.Ended {
			fmt.Fprintf(&b, ",%d:%s:%d%s", e.Index, e.Chunk, e.Version, flags("w", e.Written))
		}
	}
	b.WriteByte(')')
	return b.String()
}

// LeaseDrop ends the lease of a writer that died, after its copies were made
// equal at Version. What lies behind the end of the file no longer counts; a
// chunk that lies wholly behind it is freed. Version 0 says that a chunk made
// under the lease never had a copy: it is freed. Result: Ino.
type LeaseDrop struct {
	Chunk   chunk.ID
	Version chunk.Version
}

// Code is OpLeaseDrop.
func (*LeaseDrop) Code() OpCode { return OpLeaseDrop }

// Fields encodes and decodes.
func (o *LeaseDrop) Fields(c *codec.Codec) {
	codec.Uint(c, &o.Chunk)
	c.U32((*uint32)(&o.Version))
}

func (o *LeaseDrop) String() string { return fmt.Sprintf("UNLOCK(%s,%d)", o.Chunk, o.Version) }
