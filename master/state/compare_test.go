package state

import (
	"bytes"
	"maps"
	"slices"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
)

// stored is the number of bytes of a file in chunks.
func (n *mNode) stored() (sum uint64) {
	for i := range n.chunks {
		if start := uint64(i) * chunk.Size; start < n.attr.Size {
			sum += min(chunk.Size, n.attr.Size-start)
		}
	}
	return sum
}

// counters walks everything below a directory. A file with several names counts
// in the one directory that the state says.
func (m *model) counters(s *State, dir inode.Ino) (c Counters) {
	for name, ino := range m.nodes[dir].names {
		n := m.nodes[ino]
		if n.attr.Kind != inode.Dir && !m.counts(s, dir, name, n) {
			continue
		}
		c.Inodes++
		switch n.attr.Kind {
		case inode.Dir:
			c.Dirs++
			c.GoalDirs[n.attr.Goal]++
			sub := m.counters(s, ino)
			c.Inodes += sub.Inodes
			c.Dirs += sub.Dirs
			c.Files += sub.Files
			c.Symlinks += sub.Symlinks
			c.Others += sub.Others
			c.Chunks += sub.Chunks
			c.Length += sub.Length
			c.Size += sub.Size
			c.Real += sub.Real
			for g := range c.GoalFiles {
				c.GoalFiles[g] += sub.GoalFiles[g]
				c.GoalDirs[g] += sub.GoalDirs[g]
			}
		case inode.File:
			c.Files++
			c.GoalFiles[n.attr.Goal]++
			c.Chunks += uint64(len(n.chunks))
			c.Length += n.attr.Size
			c.Size += n.stored()
			c.Real += n.stored() * uint64(n.attr.Goal)
		case inode.Symlink:
			c.Symlinks++
		default:
			c.Others++
		}
	}
	return c
}

// counts tells whether a name is the one by which an inode counts.
func (m *model) counts(s *State, dir inode.Ino, name string, n *mNode) bool {
	slot := s.slotOf(n.attr.Ino)
	e := s.edges.at(s.firstName(s.inodes.at(slot)))
	return s.inodes.at(e.parent).number(e.parent) == dir && string(s.nameOf(e)) == name
}

// same compares everything that can be asked of the state with the model.
func (m *model) same(t failer, s *State) {
	t.Helper()
	seen := 0
	s.Inodes(func(a inode.Attr) bool { seen++; return true })
	if seen != len(m.nodes) {
		t.Fatalf("%d inodes, model has %d", seen, len(m.nodes))
	}
	for ino, n := range m.nodes {
		m.sameNode(t, s, ino, n)
	}
	chunks := 0
	s.Chunks(func(c ChunkInfo) bool {
		chunks++
		if w := m.chunks[c.ID]; w == nil || c.ChunkSlot != w.ChunkSlot || c.Ino != w.ino || c.Goal != m.nodes[w.ino].attr.Goal {
			t.Fatalf("chunk is %+v, model %+v", c, w)
		}
		return true
	})
	if chunks != len(m.chunks) {
		t.Fatalf("%d chunks, model has %d", chunks, len(m.chunks))
	}
	var sessions []uint64
	for _, i := range s.Sessions() {
		sessions = append(sessions, i.ID)
	}
	if want := slices.Sorted(maps.Keys(m.sessions)); !slices.Equal(sessions, want) {
		t.Fatalf("sessions %v, model %v", sessions, want)
	}
	for id := range m.sessions {
		leases := 0
		for _, c := range m.chunks {
			if c.Lease == id {
				leases++
			}
		}
		if got := s.LeasesOf(id); len(got) != leases {
			t.Fatalf("session %d has leases %v, model %d", id, got, leases)
		}
	}
}

func (m *model) sameNode(t failer, s *State, ino inode.Ino, n *mNode) {
	t.Helper()
	want := n.attr
	got, ok := s.Attr(ino)
	if !ok {
		t.Fatalf("inode %d is missing", ino)
	}
	want.Gen, want.Flags = got.Gen, 0
	if len(n.xattrs) > 0 {
		want.Flags |= inode.HasXattr
	}
	if _, ok := n.xattrs[XattrCaps]; ok {
		want.Flags |= inode.HasCaps
	}
	want.Blocks = (n.stored() + 511) / 512
	if want.Kind == inode.Dir {
		want.Size = uint64(len(n.names))
	}
	if got != want {
		t.Fatalf("inode %d is\n%+v, model\n%+v", ino, got, want)
	}
	names := map[string]inode.Ino{}
	s.ReadDir(ino, 0, 0, func(name string, _ uint64, child inode.Ino) bool { names[name] = child; return true })
	if !maps.Equal(names, n.names) {
		t.Fatalf("directory %d has %v, model %v", ino, names, n.names)
	}
	for name, child := range n.names {
		if got, ok := s.Lookup(ino, name); !ok || got != child {
			t.Fatalf("lookup of %q in %d gives %d, model %d", name, ino, got, child)
		}
	}
	if target, _ := s.Target(ino); target != n.target {
		t.Fatalf("target of %d is %q, model %q", ino, target, n.target)
	}
	var list []byte
	for _, name := range slices.Sorted(maps.Keys(n.xattrs)) {
		list = append(append(list, name...), 0)
		if v, ok := s.Xattr(ino, name); !ok || string(v) != n.xattrs[name] {
			t.Fatalf("attribute %q of %d is %q, model %q", name, ino, v, n.xattrs[name])
		}
	}
	if got := s.Xattrs(ino); !bytes.Equal(got, list) {
		t.Fatalf("attributes of %d are %q, model %q", ino, got, list)
	}
	if got, want := s.Holds(ino), slices.Sorted(maps.Keys(n.holds)); !slices.Equal(got, want) {
		t.Fatalf("holds of %d are %v, model %v", ino, got, want)
	}
	if want.Kind == inode.Dir {
		if got, _ := s.Counters(ino); got != m.counters(s, ino) {
			t.Fatalf("counters of %d are\n%+v, model\n%+v", ino, got, m.counters(s, ino))
		}
	}
	m.sameChunks(t, s, ino, n)
}

func (m *model) sameChunks(t failer, s *State, ino inode.Ino, n *mNode) {
	t.Helper()
	var got, want []ChunkSlot
	s.FileChunks(ino, 0, 1<<31, func(c ChunkSlot) bool { got = append(got, c); return true })
	for _, i := range slices.Sorted(maps.Keys(n.chunks)) {
		want = append(want, n.chunks[i].ChunkSlot)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("chunks of %d are\n%+v, model\n%+v", ino, got, want)
	}
}
