package state

import (
	"fmt"
	"slices"

	"github.com/varvefs/varve/inode"
)

// checker recomputes everything that the state keeps twice.
type checker struct {
	s      *State
	nodes  uint32 // reachable
	blobs  [blobClasses]uint32
	sums   map[uint32]map[uint8]weight // tallies by directory inode and goal
	traits map[uint32]uint32           // how many inodes have them
	head   header
}

// Check compares all records with each other and all sums with what they sum up.
// It takes long and much memory: it is for tests and for inspecting an image.
func (s *State) Check() error {
	if err := inTurn(s.refChecks()); err != nil {
		return err
	}
	c := &checker{s: s, sums: map[uint32]map[uint8]weight{}, traits: map[uint32]uint32{}}
	for _, step := range []func() error{c.inodes, c.shared, c.edges, c.chunks, c.xattrs, c.tallies, c.totals, c.space} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) inodes() error {
	s := c.s
	for slot := uint32(1); slot < s.inodes.n; slot++ {
		n := s.inodes.at(slot)
		if n.mode == 0 {
			continue
		}
		var err error
		switch n.kind() {
		case inode.File:
			c.head.files++
			c.head.length += n.size
			err = c.file(slot)
		case inode.Dir:
			c.head.dirs++
			err = c.dir(slot)
		case inode.Symlink:
			c.head.symlinks++
			c.blob(int(n.size))
		default:
			c.head.others++
		}
		if err == nil {
			err = c.named(slot)
		}
		if err != nil {
			return fmt.Errorf("inode %s: %w", n.number(slot), err)
		}
	}
	return nil
}

// named checks the names of an inode and adds it to the sums above it.
func (c *checker) named(slot uint32) error {
	s, n := c.s, c.s.inodes.at(slot)
	var edges []uint32
	if n.flags&manyNames != 0 {
		for l := n.name; l != 0; l = s.links.at(l).next {
			edges = append(edges, s.links.at(l).edge)
		}
		if len(edges) < 2 {
			return fmt.Errorf("list of %d names", len(edges))
		}
	} else if n.name != 0 {
		edges = append(edges, n.name)
	}
	for _, e := range edges {
		if s.edges.at(e).child != slot {
			return fmt.Errorf("name %d belongs to inode slot %d", e, s.edges.at(e).child)
		}
	}
	holds, orphan := s.orphans[slot]
	nlink := s.traitsOf(n).nlink
	c.traits[n.traits]++
	switch root := slot == uint32(inode.Root); {
	case orphan != (nlink == 0):
		return fmt.Errorf("%d links, orphan is %v", nlink, orphan)
	case orphan && (len(holds) == 0 || !slices.IsSorted(holds) || len(s.live(holds)) != len(holds)):
		return fmt.Errorf("held by sessions %v", holds)
	case root && len(edges) != 0,
		!root && n.kind() == inode.Dir && len(edges) != 1 && !orphan,
		n.kind() != inode.Dir && len(edges) != int(nlink):
		return fmt.Errorf("%d names, %d links", len(edges), nlink)
	}
	for dir := s.above(slot); dir != 0; dir = s.above(dir) {
		if c.sums[dir] == nil {
			c.sums[dir] = map[uint8]weight{}
		}
		sum, w := c.sums[dir][n.goal], s.weigh(slot)
		sum.add(&w)
		c.sums[dir][n.goal] = sum
	}
	return nil
}

// shared checks the traits: each is there once, and counts who has it.
func (c *checker) shared() error {
	s, live := c.s, uint32(0)
	for slot := uint32(1); slot < s.traits.n; slot++ {
		rec := s.traits.at(slot)
		if rec.refs != c.traits[slot] {
			return fmt.Errorf("traits %d are counted %d times and used %d times", slot, rec.refs, c.traits[slot])
		}
		if rec.refs == 0 {
			continue
		}
		live++
		found := s.kinds.first(rec.hash())
		for found != 0 && s.traits.at(found).traits != rec.traits {
			found = s.traits.at(found).next
		}
		if found != slot {
			return fmt.Errorf("traits %d are found as %d", slot, found)
		}
	}
	if live != s.kinds.count || live != s.traits.live() {
		return fmt.Errorf("%d traits, %d in the index, %d in use", live, s.kinds.count, s.traits.live())
	}
	return nil
}

func (c *checker) dir(slot uint32) error {
	s, n := c.s, c.s.inodes.at(slot)
	d := s.dirs.at(n.ext)
	subdirs, count := uint32(0), uint32(0)
	var bad error
	s.treeUp(&d.names, 0, maxPlace, func(place uint64, edge uint32) bool {
		e := s.edges.at(edge)
		if e.parent != slot || e.place() != place || place >= d.next {
			bad = fmt.Errorf("place %d is taken by name %d of directory slot %d, place %d", place, edge, e.parent, e.place())
		}
		if s.inodes.at(e.child).kind() == inode.Dir {
			subdirs++
		}
		count++
		return bad == nil
	})
	want := 2 + subdirs
	if _, orphan := s.orphans[slot]; orphan {
		want = subdirs
	}
	switch {
	case bad != nil:
		return bad
	case count != d.names.count:
		return fmt.Errorf("%d names, its tree counts %d", count, d.names.count)
	case s.traitsOf(n).nlink != want:
		return fmt.Errorf("%d links, %d directories in it", s.traitsOf(n).nlink, subdirs)
	}
	return c.shape(&d.names)
}

func (c *checker) file(slot uint32) error {
	s := c.s
	t := s.chunkTree(s.inodes.at(slot))
	count := uint32(0)
	var bad error
	s.treeUp(&t, 0, maxIndex, func(index uint64, k uint32) bool {
		rec := s.chunks.at(k)
		if at := s.detailOf(k).index; rec.owner != slot || uint64(at) != index || s.detailOf(k).version == 0 {
			bad = fmt.Errorf("index %d has chunk %s of inode slot %d, index %d", index, rec.number(k), rec.owner, at)
		}
		count++
		return bad == nil
	})
	if bad == nil && count != t.count {
		bad = fmt.Errorf("%d chunks, its tree counts %d", count, t.count)
	}
	if bad != nil {
		return bad
	}
	return c.shape(&t)
}

// shape checks that a tree is as low as it can be and has no empty nodes.
func (c *checker) shape(t *tree) error {
	if (t.count == 0) != (t.root == 0) || t.count == 0 && t.height != 0 {
		return fmt.Errorf("empty tree with root %d", t.root)
	}
	if t.height > 0 {
		highest := uint64(0)
		c.s.treeDown(t, 1<<48, func(key uint64, _ uint32) bool { highest = key; return false })
		if highest <= top(t.height-1) {
			return fmt.Errorf("tree of height %d for key %d", t.height, highest)
		}
	}
	var walk func(slot uint32, height uint8) bool
	walk = func(slot uint32, height uint8) bool {
		if height == 0 {
			return true
		}
		c.nodes++
		full := false
		rec := *c.s.nodes.at(slot)
		for _, sub := range rec {
			if sub != 0 && !walk(sub, height-1) {
				return false
			}
			full = full || sub != 0
		}
		return full
	}
	if !walk(t.root, t.height) {
		return fmt.Errorf("tree with an empty node")
	}
	return nil
}

func (c *checker) edges() error {
	s, count, places := c.s, uint32(0), uint32(0)
	for slot := uint32(1); slot < s.edges.n; slot++ {
		e := s.edges.at(slot)
		if e.child == 0 {
			continue
		}
		count++
		c.blob(int(e.length))
		if got := s.lookup(e.parent, string(s.nameOf(e))); got != slot {
			return fmt.Errorf("name %d (%q in directory slot %d) is found as %d", slot, s.nameOf(e), e.parent, got)
		}
	}
	for slot := uint32(1); slot < s.dirs.n; slot++ {
		places += s.dirs.at(slot).names.count
	}
	if count != s.names.count || count != places {
		return fmt.Errorf("%d names, %d in the index, %d in directories", count, s.names.count, places)
	}
	return nil
}

func (c *checker) chunks() error {
	s, leases, details := c.s, uint32(0), uint32(0)
	for slot := uint32(1); slot < s.chunks.n; slot++ {
		k := s.chunks.at(slot)
		if k.owner == 0 {
			continue
		}
		c.head.chunks++
		t := s.chunkTree(s.inodes.at(k.owner))
		d := s.detailOf(slot)
		if k.detail != 0 {
			details++
			if d == simple {
				return fmt.Errorf("chunk %s has a detail that says nothing", k.number(slot))
			}
		}
		if s.treeGet(&t, uint64(d.index)) != slot {
			return fmt.Errorf("chunk %s is not in its file", k.number(slot))
		}
		if d.lease == 0 {
			continue
		}
		leases++
		if l := s.leases.at(d.lease); l.chunk != slot || l.min == 0 || l.min > d.version {
			return fmt.Errorf("chunk %s has version %d and a lease of chunk slot %d from version %d", k.number(slot), d.version, l.chunk, l.min)
		}
	}
	if details != s.details.live() {
		return fmt.Errorf("%d details, %d chunks with one", s.details.live(), details)
	}
	if leases != s.leases.live() {
		return fmt.Errorf("%d leases, %d leased chunks", s.leases.live(), leases)
	}
	return nil
}

func (c *checker) xattrs() error {
	s, count, found := c.s, uint32(0), uint32(0)
	for slot := uint32(1); slot < s.xattrs.n; slot++ {
		x := s.xattrs.at(slot)
		if x.owner == 0 {
			continue
		}
		count++
		c.blob(int(x.length))
		c.blob(int(x.size))
	}
	for slot := uint32(1); slot < s.inodes.n; slot++ {
		var f uint8
		s.xattrsOf(slot, func(_ uint32, name []byte) bool {
			found++
			f |= xattrFlag(string(name))
			return true
		})
		if got := s.inodes.at(slot).flags & attrFlags; got != f {
			return fmt.Errorf("inode slot %d has attribute flags %x, not %x", slot, got, f)
		}
	}
	if count != s.owners.count || count != found {
		return fmt.Errorf("%d attributes, %d in the index, %d found", count, s.owners.count, found)
	}
	return nil
}

func (c *checker) tallies() error {
	s, count := c.s, uint32(0)
	for slot := uint32(1); slot < s.inodes.n; slot++ {
		n := s.inodes.at(slot)
		if n.kind() != inode.Dir {
			continue
		}
		goals := 0
		for t := s.dirs.at(n.ext).tally; t != 0; t = s.tallies.at(t).next {
			rec := s.tallies.at(t)
			count++
			goals++
			if want := c.sums[slot][rec.goal]; rec.weight != want {
				return fmt.Errorf("directory %s says %+v of goal %d, but %+v is below it", n.number(slot), rec.weight, rec.goal, want)
			}
		}
		if goals != len(c.sums[slot]) {
			return fmt.Errorf("directory %s has tallies of %d goals, %d are below it", n.number(slot), goals, len(c.sums[slot]))
		}
	}
	if count != s.tallies.live() {
		return fmt.Errorf("%d tallies, %d in use", s.tallies.live(), count)
	}
	return nil
}

func (c *checker) totals() error {
	want := c.head
	h := c.s.head
	want.time, want.seed, want.session, want.cluster, want.leapt, want.floor = h.time, h.seed, h.session, h.cluster, h.leapt, h.floor
	if want != h {
		return fmt.Errorf("totals are %+v, counted %+v", h, want)
	}
	return nil
}

// space checks that what is not in use is free.
func (c *checker) space() error {
	if got := c.s.nodes.live(); got != c.nodes {
		return fmt.Errorf("%d nodes, %d in use", got, c.nodes)
	}
	for i := range c.blobs {
		h := &c.s.blobs.shelves[i]
		used := uint32(0)
		if h.n > 0 {
			used = h.n - 1 - h.free.n
		}
		if used != c.blobs[i] {
			return fmt.Errorf("%d blobs of %d bytes, %d in use", used, blobSizes[i], c.blobs[i])
		}
	}
	return nil
}

// blob counts the records that n bytes take.
func (c *checker) blob(n int) {
	switch {
	case n == 0:
	case n <= blobMax:
		c.blobs[blobClass[(n+3)/4]]++
	default:
		c.blobs[blobClasses-1] += uint32(parts(n))
	}
}
