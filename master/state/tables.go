package state

import (
	"fmt"

	"github.com/varvefs/varve/codec"
)

// table is a slab, a stack, the buckets of an index or a shelf, as Freeze, Save
// and Load see it: a number of records of a fixed size.
type table interface {
	freeze()
	setClock(c *clock)
	len() uint32
	setLen(n uint32)
	width() int // encoded bytes of a record
	// item encodes record i, or decodes it, making room.
	item(c *codec.Codec, i uint32)
}

// named is a table and its section in an image.
type named struct {
	name string
	table
}

// tables lists all tables in the order of an image. The names are on disk.
func (s *State) tables() []named {
	var list []named
	add := func(name string, t, free table) { list = append(list, named{name, t}, named{name + ".free", free}) }
	add("inodes", slabOf(&s.inodes, (*inodeRec).fields), &stackTable{stack: &s.inodes.free})
	add("edges", slabOf(&s.edges, (*edgeRec).fields), &stackTable{stack: &s.edges.free})
	add("links", slabOf(&s.links, (*linkRec).fields), &stackTable{stack: &s.links.free})
	add("dirs", slabOf(&s.dirs, (*dirRec).fields), &stackTable{stack: &s.dirs.free})
	add("tallies", slabOf(&s.tallies, (*tallyRec).fields), &stackTable{stack: &s.tallies.free})
	add("trees", slabOf(&s.trees, (*tree).fields), &stackTable{stack: &s.trees.free})
	add("nodes", slabOf(&s.nodes, (*node).fields), &stackTable{stack: &s.nodes.free})
	add("chunks", slabOf(&s.chunks, (*chunkRec).fields), &stackTable{stack: &s.chunks.free})
	add("leases", slabOf(&s.leases, (*leaseRec).fields), &stackTable{stack: &s.leases.free})
	add("xattrs", slabOf(&s.xattrs, (*xattrRec).fields), &stackTable{stack: &s.xattrs.free})
	for i := range s.blobs.shelves {
		h := &s.blobs.shelves[i]
		add(fmt.Sprintf("blobs.%d", blobSizes[i]), &shelfTable{h}, &stackTable{stack: &h.free})
	}
	list = append(list, named{"index.names", &indexTable{&s.names}}, named{"index.xattrs", &indexTable{&s.owners}})
	return list
}

// setClock gives all tables their clock.
func (s *State) setClock(c *clock) {
	s.clk = c
	for i := range s.blobs.shelves {
		s.blobs.shelves[i].size = blobSizes[i]
	}
	for _, t := range s.tables() {
		t.setClock(c)
	}
}

type slabTable[T any] struct {
	*slab[T]
	fields func(*T, *codec.Codec)
	rec    T // the codec writes to what it encodes, which a page under a View must not see
}

func slabOf[T any](s *slab[T], fields func(*T, *codec.Codec)) *slabTable[T] {
	return &slabTable[T]{slab: s, fields: fields}
}

func (t *slabTable[T]) setClock(c *clock) { t.clk = c }
func (t *slabTable[T]) len() uint32       { return t.n }
func (t *slabTable[T]) setLen(n uint32)   { t.n = n }

func (t *slabTable[T]) width() int {
	var zero T
	return len(codec.Append(nil, fieldsFunc(func(c *codec.Codec) { t.fields(&zero, c) })))
}

// fieldsFunc makes a function a codec.Fields.
type fieldsFunc func(*codec.Codec)

// Fields calls f.
func (f fieldsFunc) Fields(c *codec.Codec) { f(c) }

func (t *slabTable[T]) item(c *codec.Codec, i uint32) {
	if !c.Decoding() {
		t.rec = *t.at(i)
		t.fields(&t.rec, c)
		return
	}
	t.fields(&t.rec, c)
	if i>>pageShift == uint32(len(t.list)) {
		t.grow()
	}
	*t.mut(i) = t.rec
}

type stackTable struct{ *stack }

func (t *stackTable) setClock(c *clock) { t.clk = c }
func (t *stackTable) len() uint32       { return t.n }
func (t *stackTable) setLen(n uint32)   { t.n = n }
func (t *stackTable) width() int        { return 4 }
func (t *stackTable) item(c *codec.Codec, i uint32) {
	number(&t.pages, c, i)
}

type indexTable struct{ *index }

func (t *indexTable) freeze()           { t.heads.freeze() }
func (t *indexTable) setClock(c *clock) { t.heads.clk = c }
func (t *indexTable) len() uint32       { return t.buckets }
func (t *indexTable) setLen(n uint32)   { t.buckets = n }
func (t *indexTable) width() int        { return 4 }
func (t *indexTable) item(c *codec.Codec, i uint32) {
	number(&t.heads, c, i)
}

// number encodes or decodes one of a table of numbers.
func number(p *pages[[pageLen]uint32], c *codec.Codec, i uint32) {
	if !c.Decoding() {
		v := p.read(i >> pageShift)[i&pageMask]
		c.U32(&v)
		return
	}
	if i>>pageShift == uint32(len(p.list)) {
		p.grow()
	}
	c.U32(&p.write(i >> pageShift)[i&pageMask])
}

type shelfTable struct{ *shelf }

func (t *shelfTable) setClock(c *clock) { t.clk = c }
func (t *shelfTable) len() uint32       { return t.n }
func (t *shelfTable) setLen(n uint32)   { t.n = n }
func (t *shelfTable) width() int        { return int(t.size) }

func (t *shelfTable) item(c *codec.Codec, i uint32) {
	if c.Decoding() && i/t.perPage() == uint32(len(t.list)) {
		t.grow()
	}
	var rec []byte
	if c.Decoding() {
		rec = t.mut(i)
	} else {
		rec = t.at(i)
	}
	for ; len(rec) > 0; rec = rec[8:] {
		v := getUint64(rec)
		c.U64(&v)
		if c.Decoding() {
			putUint64(rec, v)
		}
	}
}

func getUint64(b []byte) uint64 { return uint64(getUint32(b)) | uint64(getUint32(b[4:]))<<32 }

func putUint64(b []byte, v uint64) {
	putUint32(b, uint32(v))
	putUint32(b[4:], uint32(v>>32))
}
