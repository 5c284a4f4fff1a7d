package state

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/inode"
)

// inodeRec is one inode: 64 bytes.
type inodeRec struct {
	size   uint64 // bytes; of a symlink: of its target
	atime  int64
	mtime  int64
	ctime  int64
	btime  int64
	uses   uint32 // how often the slot was used before: the high half of the inode number
	name   uint32 // the edge that names it; with manyNames a linkRec; 0: root or orphan
	ext    uint32 // dir: dirRec; symlink: target; device: number; file: chunk 0 or, with manyChunks, a tree
	traits uint32 // traitsRec
	change uint32 // low bits of Attr.Gen
	mode   uint16 // 07777 and the kind in the high 4 bits; 0: free
	goal   uint8
	flags  uint8
}

// Flags of an inodeRec; the low ones are those of inode.Attr.
const (
	manyNames  = 1 << 7
	manyChunks = 1 << 6
	nameless   = 1 << 5 // made without a name: may get one
	attrFlags  = inode.HasXattr | inode.HasACL | inode.HasCaps
)

const (
	kindShift = 12
	maxUses   = 1<<31 - 1 // a slot used more often is retired
)

func (n *inodeRec) kind() inode.Kind { return inode.Kind(n.mode >> kindShift) }
func (n *inodeRec) perm() uint32     { return uint32(n.mode) & 0o7777 }

func (n *inodeRec) setPerm(perm uint32) {
	n.mode = n.mode&^0o7777 | uint16(perm&0o7777)
}

func (n *inodeRec) number(slot uint32) inode.Ino {
	return inode.Ino(uint64(n.uses)<<32 | uint64(slot))
}

func (n *inodeRec) fields(c *codec.Codec) {
	c.U64(&n.size)
	c.I64(&n.atime)
	c.I64(&n.mtime)
	c.I64(&n.ctime)
	c.I64(&n.btime)
	c.U32(&n.uses)
	c.U32(&n.name)
	c.U32(&n.ext)
	c.U32(&n.traits)
	c.U32(&n.change)
	c.U16(&n.mode)
	c.U8(&n.goal)
	c.U8(&n.flags)
}

// edgeRec is one name: 24 bytes.
type edgeRec struct {
	parent uint32
	child  uint32 // 0: free
	next   uint32 // in the bucket of the edge index
	name   uint32 // blob
	low    uint32 // place in the directory's tree
	high   uint16
	length uint8 // of the name
	tag    uint8 // of the name's hash: another tag is another name
}

// edgeTag is taken from the bits that do not choose the bucket.
func edgeTag(h uint64) uint8 { return uint8(h >> 56) }

func (e *edgeRec) place() uint64 { return uint64(e.high)<<32 | uint64(e.low) }

func (e *edgeRec) setPlace(p uint64) { e.low, e.high = uint32(p), uint16(p>>32) }

// maxPlace is the highest place in a directory.
const maxPlace = 1<<48 - 1

func (e *edgeRec) fields(c *codec.Codec) {
	c.U32(&e.parent)
	c.U32(&e.child)
	c.U32(&e.next)
	c.U32(&e.name)
	c.U32(&e.low)
	c.U16(&e.high)
	c.U8(&e.length)
	c.U8(&e.tag)
}

func (t *traitsRec) fields(c *codec.Codec) {
	c.U32(&t.uid)
	c.U32(&t.gid)
	c.U32(&t.nlink)
	c.U32(&t.trash)
	c.U32(&t.high)
	c.U32(&t.refs)
	c.U32(&t.next)
}

// linkRec is one of several names of an inode. The first of the list is the one
// that counts in tallies.
type linkRec struct {
	edge uint32 // 0: free
	next uint32
}

func (l *linkRec) fields(c *codec.Codec) {
	c.U32(&l.edge)
	c.U32(&l.next)
}

// dirRec is what a directory has besides its inode.
type dirRec struct {
	next  uint64 // place of the next new name
	names tree   // place -> edge
	tally uint32 // first of the tallyRecs
}

func (d *dirRec) fields(c *codec.Codec) {
	c.U64(&d.next)
	d.names.fields(c)
	c.U32(&d.tally)
}

func (t *tree) fields(c *codec.Codec) {
	c.U32(&t.root)
	c.U32(&t.count)
	c.U8(&t.height)
}

func (n *node) fields(c *codec.Codec) {
	for i := range n {
		c.U32(&n[i])
	}
}

// weight is what an inode or a subtree adds to the tallies above it.
type weight struct {
	files    uint64
	dirs     uint64
	symlinks uint64
	others   uint64
	chunks   uint64
	length   uint64
	size     uint64
}

// tallyRec sums up what of one goal is below a directory.
type tallyRec struct {
	weight
	next uint32
	goal uint8 // 0: free
}

func (t *tallyRec) fields(c *codec.Codec) {
	c.U64(&t.files)
	c.U64(&t.dirs)
	c.U64(&t.symlinks)
	c.U64(&t.others)
	c.U64(&t.chunks)
	c.U64(&t.length)
	c.U64(&t.size)
	c.U32(&t.next)
	c.U8(&t.goal)
}

// chunkRec is one chunk: 12 bytes.
type chunkRec struct {
	uses   uint32 // how often the slot was used before: the high half of the chunk number
	owner  uint32 // inode; 0: free
	detail uint32 // detailRec, 0: as in simple
}

func (k *chunkRec) number(slot uint32) chunk.ID {
	return chunk.ID(uint64(k.uses)<<32 | uint64(slot))
}

func (k *chunkRec) fields(c *codec.Codec) {
	c.U32(&k.uses)
	c.U32(&k.owner)
	c.U32(&k.detail)
}

// detailRec is what most chunks, those of small files written once, have alike.
type detailRec struct {
	index   uint32 // in the file
	version uint32
	valid   uint32
	lease   uint32 // leaseRec, 0: none
}

// simple is a chunk without detailRec: the first of its file, written once, all
// of it counts, no lease.
var simple = detailRec{version: 1, valid: chunk.Size}

func (d *detailRec) fields(c *codec.Codec) {
	c.U32(&d.index)
	c.U32(&d.version)
	c.U32(&d.valid)
	c.U32(&d.lease)
}

// leaseRec is an open write lease.
type leaseRec struct {
	session uint64
	chunk   uint32 // 0: free
	min     uint32
	fresh   bool
}

func (l *leaseRec) fields(c *codec.Codec) {
	c.U64(&l.session)
	c.U32(&l.chunk)
	c.U32(&l.min)
	c.Bool(&l.fresh)
}

// xattrRec is one extended attribute.
type xattrRec struct {
	owner  uint32 // inode, 0: free
	next   uint32 // in the bucket of the attribute index
	name   uint32 // blob
	value  uint32 // blob
	size   uint32 // of the value
	length uint8  // of the name
}

func (x *xattrRec) fields(c *codec.Codec) {
	c.U32(&x.owner)
	c.U32(&x.next)
	c.U32(&x.name)
	c.U32(&x.value)
	c.U32(&x.size)
	c.U8(&x.length)
}
