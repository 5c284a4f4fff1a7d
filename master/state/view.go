package state

import (
	"maps"
	"slices"
)

// View is a State as it was when Freeze was called. Another goroutine may read
// it while the state goes on; who took it must Release it.
type View struct{ s *State }

// table is what all tables have in common, seen from an image.
type table interface{ freeze() }

// setClock gives all tables of an empty state their clock.
func (s *State) setClock(c *clock) {
	s.clk = c
	setSlabClock(&s.inodes, c)
	setSlabClock(&s.edges, c)
	setSlabClock(&s.links, c)
	setSlabClock(&s.dirs, c)
	setSlabClock(&s.tallies, c)
	setSlabClock(&s.trees, c)
	setSlabClock(&s.nodes, c)
	setSlabClock(&s.chunks, c)
	setSlabClock(&s.leases, c)
	setSlabClock(&s.xattrs, c)
	s.names.heads.clk = c
	s.owners.heads.clk = c
	for i := range s.blobs.shelves {
		h := &s.blobs.shelves[i]
		h.size = blobSizes[i]
		h.clk, h.free.clk = c, c
	}
}

func setSlabClock[T any](s *slab[T], c *clock) { s.clk, s.free.clk = c, c }

// freezers lists all tables.
func (s *State) freezers() []table {
	list := []table{&s.names.heads, &s.owners.heads}
	list = append(list, &s.inodes, &s.inodes.free, &s.edges, &s.edges.free, &s.links, &s.links.free)
	list = append(list, &s.dirs, &s.dirs.free, &s.tallies, &s.tallies.free, &s.trees, &s.trees.free)
	list = append(list, &s.nodes, &s.nodes.free, &s.chunks, &s.chunks.free, &s.leases, &s.leases.free)
	list = append(list, &s.xattrs, &s.xattrs.free)
	for i := range s.blobs.shelves {
		list = append(list, &s.blobs.shelves[i], &s.blobs.shelves[i].free)
	}
	return list
}

// Freeze takes a View. It copies the lists of pages (8 bytes for 128 records)
// and the sessions; the pages are shared until they are changed.
func (s *State) Freeze() *View {
	s.clk.now++
	s.clk.views.Add(1)
	v := *s
	v.scratch = Result{}
	for _, t := range v.freezers() {
		t.freeze()
	}
	v.servers = slices.Clone(s.servers)
	v.sessions = make([]*session, len(s.sessions))
	for i, ses := range s.sessions {
		c := *ses
		c.replies = slices.Clone(ses.replies)
		v.sessions[i] = &c
	}
	v.orphans = maps.Clone(s.orphans)
	for slot, holds := range v.orphans {
		v.orphans[slot] = slices.Clone(holds)
	}
	return &View{s: &v}
}

// Release gives up the view. It may be called from any goroutine, once.
func (v *View) Release() {
	v.s.clk.views.Add(-1)
	v.s = nil
}
