package state

import (
	"fmt"

	"github.com/varvefs/varve/inode"
)

// refs collects the first reference that leads nowhere.
type refs struct {
	s   *State
	err error
}

// in notes when a reference is not below n. 0 is always right unless must.
func (c *refs) in(ref, n uint32, must bool, what string, of uint32) {
	if c.err == nil && (ref != 0 && ref >= n || ref == 0 && must) {
		c.err = fmt.Errorf("%s of record %d leads to %d, of %d records", what, of, ref, n)
	}
}

func (c *refs) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

// checkSlice is how many records of a large table one check looks at.
const checkSlice = 1 << 17

// refChecks makes sure that no reference leads out of a table, so that reading a
// damaged state that passed its checksums cannot panic. The checks only read, and
// none relies on another.
func (s *State) refChecks() (checks []func() error) {
	add := func(check func(*refs)) {
		checks = append(checks, func() error {
			c := &refs{s: s}
			check(c)
			return c.err
		})
	}
	each := func(n uint32, check func(*refs, uint32)) {
		for from := uint64(1); from < uint64(n); from += checkSlice {
			to := uint32(min(from+checkSlice, uint64(n)))
			add(func(c *refs) {
				for i := uint32(from); i < to && c.err == nil; i++ {
					check(c, i)
				}
			})
		}
	}
	each(s.inodes.n, (*refs).inode)
	each(s.edges.n, (*refs).edge)
	each(s.links.n, (*refs).link)
	each(s.dirs.n, (*refs).dir)
	each(s.trees.n, func(c *refs, i uint32) { c.tree(*s.trees.at(i), s.chunks.n, "chunks", i) })
	each(s.chunks.n, (*refs).chunk)
	add(func(c *refs) {
		c.small()
		c.indexes() // relies on small
	})
	add(func(c *refs) {
		if s.inodes.n < 2 || s.inodes.at(uint32(inode.Root)).kind() != inode.Dir {
			c.fail("there is no root directory")
		}
	})
	return checks
}

// inTurn runs checks one after the other.
func inTurn(checks []func() error) error {
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *refs) edge(i uint32) {
	s, e := c.s, c.s.edges.at(i)
	c.in(e.child, s.inodes.n, false, "inode of a name", i)
	c.in(e.parent, s.inodes.n, e.child != 0, "directory of a name", i)
	c.in(e.next, s.edges.n, false, "next name", i)
	c.blob(e.name, int(e.length), i)
	if c.err == nil && e.child != 0 && s.inodes.at(e.parent).kind() != inode.Dir {
		c.fail("name %d is in inode %d, which is no directory", i, e.parent)
	}
}

func (c *refs) link(i uint32) {
	l := c.s.links.at(i)
	c.in(l.edge, c.s.edges.n, false, "name of a link", i)
	c.in(l.next, c.s.links.n, false, "next link", i)
}

func (c *refs) dir(i uint32) {
	d := c.s.dirs.at(i)
	c.in(d.tally, c.s.tallies.n, false, "tally", i)
	c.tree(d.names, c.s.edges.n, "names", i)
}

func (c *refs) chunk(i uint32) {
	k := c.s.chunks.at(i)
	c.in(k.owner, c.s.inodes.n, false, "inode of a chunk", i)
	c.in(k.detail, c.s.details.n, false, "detail", i)
}

func (c *refs) inode(i uint32) {
	s, n := c.s, c.s.inodes.at(i)
	if n.mode == 0 {
		return
	}
	if n.goal < inode.GoalMin || n.goal > inode.GoalMax {
		c.fail("inode %d has goal %d", i, n.goal)
	}
	if n.flags&manyNames != 0 {
		c.in(n.name, s.links.n, true, "links", i)
	} else {
		c.in(n.name, s.edges.n, false, "name", i)
	}
	c.in(n.traits, s.traits.n, true, "traits", i)
	switch k := n.kind(); {
	case k > inode.BlockDev:
		c.fail("inode %d has kind %d", i, k)
	case k == inode.Dir:
		c.in(n.ext, s.dirs.n, true, "directory", i)
	case k == inode.Symlink:
		if n.size > inode.TargetMax {
			c.fail("inode %d has a target of %d bytes", i, n.size)
			return
		}
		c.blob(n.ext, int(n.size), i)
	case k == inode.File && n.flags&manyChunks != 0:
		c.in(n.ext, s.trees.n, true, "chunks", i)
	case k == inode.File:
		c.in(n.ext, s.chunks.n, false, "chunk", i)
	}
}

// small checks the tables whose records refer to few others.
func (c *refs) small() {
	s := c.s
	for i := uint32(1); i < s.tallies.n && c.err == nil; i++ {
		t := s.tallies.at(i)
		c.in(t.next, s.tallies.n, false, "next tally", i)
		if t.goal > inode.GoalMax {
			c.fail("tally %d is of goal %d", i, t.goal)
		}
	}
	for i := uint32(1); i < s.details.n && c.err == nil; i++ {
		c.in(s.details.at(i).lease, s.leases.n, false, "lease", i)
	}
	for i := uint32(1); i < s.traits.n && c.err == nil; i++ {
		c.in(s.traits.at(i).next, s.traits.n, false, "next traits", i)
	}
	for i := uint32(1); i < s.leases.n && c.err == nil; i++ {
		c.in(s.leases.at(i).chunk, s.chunks.n, false, "chunk of a lease", i)
	}
	for i := uint32(1); i < s.xattrs.n && c.err == nil; i++ {
		x := s.xattrs.at(i)
		c.in(x.owner, s.inodes.n, false, "inode of an attribute", i)
		c.in(x.next, s.xattrs.n, false, "next attribute", i)
		c.blob(x.name, int(x.length), i)
		if x.size > inode.XattrMax {
			c.fail("attribute %d has %d bytes", i, x.size)
			return
		}
		c.blob(x.value, int(x.size), i)
	}
	for slot := range s.orphans {
		c.in(slot, s.inodes.n, true, "orphan", slot)
	}
	c.numbers()
}

// numbers checks those reserved for sessions: each belongs to one slot that is
// neither in use nor free.
func (c *refs) numbers() {
	s := c.s
	seen := map[uint32]bool{}
	for _, ses := range s.sessions {
		for _, ino := range ses.numbers {
			slot := uint32(ino)
			c.in(slot, s.inodes.n, true, "reserved number of session", uint32(ses.info.ID))
			if c.err != nil {
				return
			}
			if n := s.inodes.at(slot); seen[slot] || n.mode != 0 || n.number(slot) != ino {
				c.fail("inode number %s is reserved for session %d and not free", ino, ses.info.ID)
				return
			}
			seen[slot] = true
		}
	}
	for i := uint32(0); i < s.inodes.free.n && c.err == nil && len(seen) > 0; i++ {
		if slot := s.inodes.free.pages.read(i >> pageShift)[i&pageMask]; seen[slot] {
			c.fail("inode slot %d is free and reserved", slot)
		}
	}
}

// indexes checks buckets and free lists.
func (c *refs) indexes() {
	s := c.s
	numbers := func(p *pages[[pageLen]uint32], n, limit uint32, must bool, what string) {
		for i := uint32(0); i < n && c.err == nil; i++ {
			c.in(p.read(i >> pageShift)[i&pageMask], limit, must, what, i)
		}
	}
	numbers(&s.names.heads, s.names.buckets, s.edges.n, false, "bucket of names")
	numbers(&s.owners.heads, s.owners.buckets, s.xattrs.n, false, "bucket of attributes")
	numbers(&s.kinds.heads, s.kinds.buckets, s.traits.n, false, "bucket of traits")
	if s.names.buckets == 0 && s.names.count > 0 || s.owners.buckets == 0 && s.owners.count > 0 || s.kinds.buckets == 0 && s.kinds.count > 0 {
		c.fail("an index has records and no buckets")
	}
	c.attributes()
	free := func(f *stack, n uint32, what string) { numbers(&f.pages, f.n, n, true, what) }
	free(&s.inodes.free, s.inodes.n, "free inode")
	free(&s.edges.free, s.edges.n, "free name")
	free(&s.links.free, s.links.n, "free link")
	free(&s.dirs.free, s.dirs.n, "free directory")
	free(&s.tallies.free, s.tallies.n, "free tally")
	free(&s.trees.free, s.trees.n, "free tree")
	free(&s.nodes.free, s.nodes.n, "free node")
	free(&s.chunks.free, s.chunks.n, "free chunk")
	free(&s.details.free, s.details.n, "free detail")
	free(&s.traits.free, s.traits.n, "free traits")
	free(&s.leases.free, s.leases.n, "free lease")
	free(&s.xattrs.free, s.xattrs.n, "free attribute")
	for i := range s.blobs.shelves {
		free(&s.blobs.shelves[i].free, s.blobs.shelves[i].n, "free blob")
	}
}

// attributes walks the index of attributes: a list that leads back into itself
// would never end.
func (c *refs) attributes() {
	x, steps := &c.s.owners, uint32(0)
	for b := uint32(0); b < x.buckets && c.err == nil; b++ {
		for i := x.heads.read(b >> pageShift)[b&pageMask]; i != 0 && c.err == nil; i = c.s.xattrs.at(i).next {
			if steps++; steps > x.count {
				c.fail("the index of attributes has more than its %d records", x.count)
			}
		}
	}
}

// tree checks a tree down to values below n.
func (c *refs) tree(t tree, n uint32, what string, of uint32) {
	if t.height > 16 {
		c.fail("%s of record %d are %d levels deep", what, of, t.height)
		return
	}
	c.node(t.root, t.height, n, what, of)
}

func (c *refs) node(slot uint32, height uint8, n uint32, what string, of uint32) {
	if height == 0 {
		c.in(slot, n, false, what, of)
		return
	}
	c.in(slot, c.s.nodes.n, false, what, of)
	if c.err != nil || slot == 0 {
		return
	}
	rec := c.s.nodes.at(slot)
	for _, sub := range rec {
		if sub != 0 {
			c.node(sub, height-1, n, what, of)
		}
	}
}

func (c *refs) blob(ref uint32, n int, of uint32) {
	if n == 0 || c.err != nil {
		return
	}
	if n <= blobMax {
		c.in(ref, c.s.blobs.shelf(n).n, true, "bytes", of)
		return
	}
	h := &c.s.blobs.shelves[blobClasses-1]
	for range parts(n) {
		c.in(ref, h.n, true, "bytes", of)
		if c.err != nil {
			return
		}
		ref = getUint32(h.at(ref))
	}
}
