package state

import (
	"fmt"
	"unsafe"

	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/master/offheap"
)

// table is a slab, a stack, the buckets of an index or a shelf, as Freeze, Save
// and Load see it: a number of records of a fixed size.
type table interface {
	freeze()
	unread()
	bytes() uint64
	setClock(c *clock)
	len() uint32
	setLen(n uint32)
	width() int // encoded bytes of a record
	// save encodes the n records from first on behind dst.
	save(dst []byte, first, n uint32) []byte
	// load decodes n records behind those that are there, making room. b has all
	// of their bytes.
	load(b []byte, first, n uint32) error
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
	add("details", slabOf(&s.details, (*detailRec).fields), &stackTable{stack: &s.details.free})
	add("traits", slabOf(&s.traits, (*traitsRec).fields), &stackTable{stack: &s.traits.free})
	add("leases", slabOf(&s.leases, (*leaseRec).fields), &stackTable{stack: &s.leases.free})
	add("xattrs", slabOf(&s.xattrs, (*xattrRec).fields), &stackTable{stack: &s.xattrs.free})
	for i := range s.blobs.shelves {
		h := &s.blobs.shelves[i]
		add(fmt.Sprintf("blobs.%d", blobSizes[i]), &shelfTable{h}, &stackTable{stack: &h.free})
	}
	return append(list, named{"index.names", &indexTable{&s.names}}, named{"index.xattrs", &indexTable{&s.owners}},
		named{"index.traits", &indexTable{&s.kinds}})
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
}

func slabOf[T any](s *slab[T], fields func(*T, *codec.Codec)) *slabTable[T] {
	return &slabTable[T]{s, fields}
}

func (t *slabTable[T]) setClock(c *clock) { t.clk, t.free.clk = c, c }
func (t *slabTable[T]) len() uint32       { return t.n }
func (t *slabTable[T]) setLen(n uint32)   { t.n = n }

func (t *slabTable[T]) width() int {
	var zero T
	return len(codec.Append(nil, fieldsFunc(func(c *codec.Codec) { t.fields(&zero, c) })))
}

// same tells whether records lie in memory as they are in an image: then they
// are copied as a whole. TestSame holds the order of their fields.
func (t *slabTable[T]) same() bool {
	var zero T
	return offheap.LittleEndian && t.width() == int(unsafe.Sizeof(zero))
}

// fieldsFunc makes a function a codec.Fields.
type fieldsFunc func(*codec.Codec)

// Fields calls f.
func (f fieldsFunc) Fields(c *codec.Codec) { f(c) }

func (t *slabTable[T]) save(dst []byte, first, n uint32) []byte {
	if t.same() {
		return copyOut(&t.pages, dst, first, n)
	}
	return codec.Append(dst, fieldsFunc(func(c *codec.Codec) {
		for i := range n {
			rec := *t.at(first + i) // Fields may write to what it encodes, which a page under a View must not see
			t.fields(&rec, c)
		}
	}))
}

func (t *slabTable[T]) load(b []byte, first, n uint32) error {
	if t.same() {
		copyIn(&t.pages, b, first, n)
		return nil
	}
	return codec.Decode(b, fieldsFunc(func(c *codec.Codec) {
		for i := first; i < first+n; i++ {
			if i>>pageShift == uint32(len(t.list)) {
				t.grow()
			}
			t.fields(t.mut(i), c)
		}
	}))
}

// copyOut appends records as they lie in memory.
func copyOut[T any](p *pages[[pageLen]T], dst []byte, first, n uint32) []byte {
	for n > 0 {
		at := first & pageMask
		k := min(n, pageLen-at)
		dst = append(dst, offheap.Bytes(p.read(first >> pageShift)[at:at+k])...)
		first, n = first+k, n-k
	}
	return dst
}

// copyIn is the way back.
func copyIn[T any](p *pages[[pageLen]T], b []byte, first, n uint32) {
	for n > 0 {
		if first>>pageShift == uint32(len(p.list)) {
			p.grow()
		}
		at := first & pageMask
		k := min(n, pageLen-at)
		b = b[copy(offheap.Bytes(p.write(first >> pageShift)[at:at+k]), b):]
		first, n = first+k, n-k
	}
}

// saveNumbers and loadNumbers are for tables of numbers.
func saveNumbers(p *pages[[pageLen]uint32], dst []byte, first, n uint32) []byte {
	if offheap.LittleEndian {
		return copyOut(p, dst, first, n)
	}
	for i := first; i < first+n; i++ {
		var b [4]byte
		putUint32(b[:], p.read(i >> pageShift)[i&pageMask])
		dst = append(dst, b[:]...)
	}
	return dst
}

func loadNumbers(p *pages[[pageLen]uint32], b []byte, first, n uint32) {
	if offheap.LittleEndian {
		copyIn(p, b, first, n)
		return
	}
	for i := first; i < first+n; i++ {
		if i>>pageShift == uint32(len(p.list)) {
			p.grow()
		}
		p.write(i >> pageShift)[i&pageMask] = getUint32(b[4*(i-first):])
	}
}

type stackTable struct{ *stack }

func (t *stackTable) setClock(c *clock) { t.clk = c }
func (t *stackTable) len() uint32       { return t.n }
func (t *stackTable) setLen(n uint32)   { t.n = n }
func (t *stackTable) width() int        { return 4 }
func (t *stackTable) save(dst []byte, first, n uint32) []byte {
	return saveNumbers(&t.pages, dst, first, n)
}
func (t *stackTable) load(b []byte, first, n uint32) error {
	loadNumbers(&t.pages, b, first, n)
	return nil
}

type indexTable struct{ *index }

func (t *indexTable) freeze()           { t.heads.freeze() }
func (t *indexTable) unread()           { t.heads.unread() }
func (t *indexTable) bytes() uint64     { return t.heads.bytes() }
func (t *indexTable) setClock(c *clock) { t.heads.clk = c }
func (t *indexTable) len() uint32       { return t.buckets }
func (t *indexTable) setLen(n uint32)   { t.buckets = n }
func (t *indexTable) width() int        { return 4 }
func (t *indexTable) save(dst []byte, first, n uint32) []byte {
	return saveNumbers(&t.heads, dst, first, n)
}
func (t *indexTable) load(b []byte, first, n uint32) error {
	loadNumbers(&t.heads, b, first, n)
	return nil
}

type shelfTable struct{ *shelf }

func (t *shelfTable) setClock(c *clock) { t.clk = c }
func (t *shelfTable) len() uint32       { return t.n }
func (t *shelfTable) setLen(n uint32)   { t.n = n }
func (t *shelfTable) width() int        { return int(t.size) }

func (t *shelfTable) save(dst []byte, first, n uint32) []byte {
	per := t.perPage()
	for n > 0 {
		at := first % per
		k := min(n, per-at)
		dst = append(dst, t.read(first / per)[at*t.size:(at+k)*t.size]...)
		first, n = first+k, n-k
	}
	return dst
}

func (t *shelfTable) load(b []byte, first, n uint32) error {
	per := t.perPage()
	for n > 0 {
		if first/per == uint32(len(t.list)) {
			t.grow()
		}
		at := first % per
		k := min(n, per-at)
		b = b[copy(t.write(first / per)[at*t.size:(at+k)*t.size], b):]
		first, n = first+k, n-k
	}
	return nil
}
