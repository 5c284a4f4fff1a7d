package state

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
)

// model is the file system once more, as maps and without cleverness. It takes
// from the state only the numbers that the state gives out.
type model struct {
	nodes    map[inode.Ino]*mNode
	chunks   map[chunk.ID]*mChunk
	sessions map[uint64]bool
	now      int64
	freed    map[chunk.ID]chunk.Version // by the last op
	goals    map[chunk.ID]bool          // by the last op
}

type mNode struct {
	attr     inode.Attr // Gen and Blocks are not kept
	names    map[string]inode.Ino
	chunks   map[uint32]*mChunk
	target   string
	xattrs   map[string]string
	holds    map[uint64]bool
	nameless bool
	parents  map[mName]bool
}

type mName struct {
	dir  inode.Ino
	name string
}

type mChunk struct {
	ChunkSlot
	ino inode.Ino
}

func newModel() *model {
	m := &model{nodes: map[inode.Ino]*mNode{}, chunks: map[chunk.ID]*mChunk{}, sessions: map[uint64]bool{}}
	m.nodes[inode.Root] = &mNode{
		attr:  inode.Attr{Ino: inode.Root, Kind: inode.Dir, Mode: 0o755, Nlink: 2, Goal: 2},
		names: map[string]inode.Ino{}, parents: map[mName]bool{},
	}
	return m
}

func (m *model) dir(ino inode.Ino) (*mNode, status.Code) {
	n := m.nodes[ino]
	if n == nil {
		return nil, status.NotFound
	}
	if n.attr.Kind != inode.Dir {
		return nil, status.NotDir
	}
	return n, status.OK
}

// target checks a name that is to be made and gives who has it.
func (m *model) free(dir inode.Ino, name string) (*mNode, inode.Ino, status.Code) {
	d, code := m.dir(dir)
	switch {
	case code != 0:
		return nil, 0, code
	case len(name) > 255:
		return nil, 0, status.NameTooLong
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return nil, 0, status.Invalid
	case d.attr.Nlink == 0:
		return nil, 0, status.NotFound
	}
	return d, d.names[name], 0
}

func (m *model) existing(dir inode.Ino, name string) (*mNode, *mNode, status.Code) {
	d, code := m.dir(dir)
	if code != 0 {
		return nil, nil, code
	}
	if len(name) > 255 {
		return nil, nil, status.NameTooLong
	}
	ino, ok := d.names[name]
	if !ok {
		return nil, nil, status.NotFound
	}
	return d, m.nodes[ino], 0
}

func (m *model) touchDir(d *mNode) { d.attr.Mtime, d.attr.Ctime = m.now, m.now }

func (m *model) mk(o *Make, session uint64, r *Result) status.Code {
	var d *mNode
	var old inode.Ino
	var code status.Code
	if o.Name == "" {
		if d, code = m.dir(o.Parent); code != 0 {
			return code
		}
		if o.What != inode.File || !o.Hold {
			return status.Invalid
		}
		if !m.sessions[session] {
			return status.Stale
		}
	} else {
		if d, old, code = m.free(o.Parent, o.Name); code != 0 {
			return code
		}
		if old != 0 {
			return status.Exists
		}
	}
	if (o.What == inode.Symlink) != (o.Target != "") || o.Lease && o.What != inode.File {
		return status.Invalid
	}
	if o.Lease && !m.sessions[session] {
		return status.Stale
	}
	n := &mNode{
		attr: inode.Attr{
			Ino: r.Ino, Kind: o.What, Mode: o.Mode &^ o.Umask, Nlink: 1, Uid: o.Uid, Gid: o.Gid, Goal: d.attr.Goal, Trash: d.attr.Trash,
			Atime: m.now, Mtime: m.now, Ctime: m.now, Btime: m.now,
		},
		target: o.Target, chunks: map[uint32]*mChunk{}, xattrs: map[string]string{}, holds: map[uint64]bool{}, parents: map[mName]bool{},
	}
	if d.attr.Mode&0o2000 != 0 {
		n.attr.Gid = d.attr.Gid
	}
	switch o.What {
	case inode.Dir:
		n.attr.Nlink = 2
		n.names = map[string]inode.Ino{}
		n.attr.Mode |= d.attr.Mode & 0o2000
	case inode.Symlink:
		n.attr.Mode, n.attr.Size = 0o777, uint64(len(o.Target))
	case inode.CharDev, inode.BlockDev:
		n.attr.Rdev = o.Rdev
	}
	m.nodes[r.Ino] = n
	if o.Lease {
		m.newChunk(n, 0, r.Chunks[0].ID, session)
	}
	if o.Name == "" {
		n.attr.Nlink, n.nameless = 0, true
		n.holds[session] = true
		return 0
	}
	m.enter(d, o.Name, n)
	if o.What == inode.Dir {
		d.attr.Nlink++
	}
	m.touchDir(d)
	return 0
}

func (m *model) newChunk(n *mNode, index uint32, id chunk.ID, session uint64) {
	c := &mChunk{ChunkSlot{index, id, 1, 1, chunk.Size, true, session}, n.attr.Ino}
	n.chunks[index] = c
	m.chunks[id] = c
}

func (m *model) enter(d *mNode, name string, n *mNode) {
	d.names[name] = n.attr.Ino
	n.parents[mName{d.attr.Ino, name}] = true
}

func (m *model) leave(d *mNode, name string, n *mNode) {
	delete(d.names, name)
	delete(n.parents, mName{d.attr.Ino, name})
}

// lose takes a name away; it tells whether an orphan remains.
func (m *model) lose(d *mNode, name string, n *mNode, hold []uint64) (orphan bool) {
	m.leave(d, name, n)
	n.attr.Ctime = m.now
	if n.attr.Kind == inode.Dir {
		n.attr.Nlink = 0
		d.attr.Nlink--
	} else {
		n.attr.Nlink--
	}
	if n.attr.Nlink > 0 {
		return false
	}
	for _, h := range hold {
		if m.sessions[h] {
			n.holds[h] = true
		}
	}
	if len(n.holds) > 0 {
		return true
	}
	m.drop(n)
	return false
}

func (m *model) drop(n *mNode) {
	for _, c := range n.chunks {
		m.freeChunk(n, c)
	}
	delete(m.nodes, n.attr.Ino)
}

func (m *model) freeChunk(n *mNode, c *mChunk) {
	m.freed[c.ID] = c.Version
	delete(n.chunks, c.Index)
	delete(m.chunks, c.ID)
}

func (m *model) remove(o *Remove, r *Result) status.Code {
	d, n, code := m.existing(o.Parent, o.Name)
	if code != 0 {
		return code
	}
	isDir := n.attr.Kind == inode.Dir
	switch {
	case o.Dir && !isDir:
		return status.NotDir
	case !o.Dir && isDir:
		return status.IsDir
	case len(n.names) > 0:
		return status.NotEmpty
	}
	if got := m.lose(d, o.Name, n, o.Hold); got != r.Orphan || r.Ino != n.attr.Ino {
		return status.Unknown
	}
	m.touchDir(d)
	return 0
}

// below tells whether ino is top or in its subtree.
func (m *model) below(ino, top inode.Ino) bool {
	for ino != top {
		n := m.nodes[ino]
		if len(n.parents) == 0 {
			return false
		}
		for p := range n.parents {
			ino = p.dir
		}
	}
	return true
}

func (m *model) rename(o *Rename, r *Result) status.Code {
	exchange, noReplace := o.Flags&RenameExchange != 0, o.Flags&RenameNoReplace != 0
	if o.Flags&RenameWhiteout != 0 || exchange && noReplace {
		return status.Invalid
	}
	from, n, code := m.existing(o.Parent, o.Name)
	if code != 0 {
		return code
	}
	to, goneIno, code := m.free(o.NewParent, o.NewName)
	if code != 0 {
		return code
	}
	gone := m.nodes[goneIno]
	nDir, gDir := n.attr.Kind == inode.Dir, gone != nil && gone.attr.Kind == inode.Dir
	switch {
	case gone != nil && noReplace:
		return status.Exists
	case gone == nil && exchange:
		return status.NotFound
	case gone == n:
		return 0
	case nDir && m.below(to.attr.Ino, n.attr.Ino), exchange && gDir && m.below(from.attr.Ino, goneIno):
		return status.Invalid
	}
	links := func(from, to *mNode, isDir bool) {
		if isDir {
			from.attr.Nlink--
			to.attr.Nlink++
		}
	}
	if exchange {
		m.leave(from, o.Name, n)
		m.leave(to, o.NewName, gone)
		m.enter(to, o.NewName, n)
		m.enter(from, o.Name, gone)
		links(from, to, nDir)
		links(to, from, gDir)
		gone.attr.Ctime = m.now
	} else {
		if gone != nil {
			switch {
			case nDir && !gDir:
				return status.NotDir
			case !nDir && gDir:
				return status.IsDir
			case len(gone.names) > 0:
				return status.NotEmpty
			}
			if m.lose(to, o.NewName, gone, o.Hold) != r.Orphan {
				return status.Unknown
			}
		}
		m.leave(from, o.Name, n)
		m.enter(to, o.NewName, n)
		links(from, to, nDir)
	}
	if r.Gone != goneIno || r.Ino != n.attr.Ino {
		return status.Unknown
	}
	n.attr.Ctime = m.now
	m.touchDir(from)
	m.touchDir(to)
	return 0
}

func (m *model) link(o *Link) status.Code {
	n := m.nodes[o.Ino]
	if n == nil {
		return status.NotFound
	}
	d, old, code := m.free(o.Parent, o.Name)
	switch {
	case code != 0:
		return code
	case n.attr.Kind == inode.Dir:
		return status.Perm
	case old != 0:
		return status.Exists
	case n.attr.Nlink == 0 && !n.nameless:
		return status.NotFound
	}
	n.nameless = false
	n.holds = map[uint64]bool{}
	n.attr.Nlink++
	n.attr.Ctime = m.now
	m.enter(d, o.Name, n)
	m.touchDir(d)
	return 0
}

func (m *model) fileAt(ino inode.Ino) (*mNode, status.Code) {
	n := m.nodes[ino]
	switch {
	case n == nil:
		return nil, status.NotFound
	case n.attr.Kind == inode.Dir:
		return nil, status.IsDir
	case n.attr.Kind != inode.File:
		return nil, status.Invalid
	}
	return n, 0
}

// cut removes what lies behind the end of a file, but for leases of keep.
func (m *model) cut(n *mNode, size uint64, keep uint64) {
	for i, c := range maps.Clone(n.chunks) {
		start := uint64(i) * chunk.Size
		switch {
		case start >= size && (keep == 0 || c.Lease != keep):
			m.freeChunk(n, c)
		case start < size && size-start < chunk.Size:
			c.Valid = min(c.Valid, uint32(size-start))
		}
	}
}

func (m *model) kill(n *mNode) {
	if n.attr.Kind == inode.Dir {
		return
	}
	n.attr.Mode &^= 0o4000
	if n.attr.Mode&0o010 != 0 {
		n.attr.Mode &^= 0o2000
	}
	delete(n.xattrs, XattrCaps)
}

func (m *model) setGoal(n *mNode, goal uint8) bool {
	if n.attr.Goal == goal {
		return false
	}
	n.attr.Goal = goal
	for _, c := range n.chunks {
		m.goals[c.ID] = true
	}
	return true
}

func (m *model) setAttr(o *SetAttr) status.Code {
	n := m.nodes[o.Ino]
	switch {
	case n == nil:
		return status.NotFound
	case o.Valid&SetGoal != 0 && (o.Goal < 1 || o.Goal > 9):
		return status.Invalid
	}
	if o.Valid&SetSize != 0 {
		if _, code := m.fileAt(o.Ino); code != 0 {
			return code
		}
		if o.Size > inode.SizeMax {
			return status.TooBig
		}
	}
	a := &n.attr
	set := func(bit uint32, do func()) {
		if o.Valid&bit != 0 {
			do()
		}
	}
	set(SetUid, func() { a.Uid = o.Uid })
	set(SetGid, func() { a.Gid = o.Gid })
	set(SetUid|SetGid|SetKill, func() { m.kill(n) })
	set(SetMode, func() { a.Mode = o.Mode })
	set(SetSize, func() {
		if o.Size <= a.Size {
			m.cut(n, o.Size, 0)
		}
		a.Size, a.Mtime = o.Size, m.now
	})
	set(SetAtime, func() { a.Atime = o.Atime })
	set(SetAtimeNow, func() { a.Atime = m.now })
	set(SetMtime, func() { a.Mtime = o.Mtime })
	set(SetMtimeNow, func() { a.Mtime = m.now })
	a.Ctime = m.now
	set(SetCtime, func() { a.Ctime = o.Mtime })
	set(SetGoal, func() { m.setGoal(n, o.Goal) })
	set(SetTrash, func() { a.Trash = o.Trash })
	return 0
}

func (m *model) setMany(o *SetMany, r *Result) status.Code {
	count := uint32(0)
	for _, ino := range o.Inos {
		n := m.nodes[ino]
		if n == nil {
			continue
		}
		hit := o.Valid&SetGoal != 0 && m.setGoal(n, o.Goal)
		if o.Valid&SetTrash != 0 && n.attr.Trash != o.Trash {
			n.attr.Trash = o.Trash
			hit = true
		}
		if hit {
			n.attr.Ctime = m.now
			count++
		}
	}
	if count != r.Count {
		return status.Unknown
	}
	return 0
}

func (m *model) setXattr(o *SetXattr) status.Code {
	n := m.nodes[o.Ino]
	if n == nil {
		return status.NotFound
	}
	if n.xattrs == nil {
		n.xattrs = map[string]string{}
	}
	_, exists := n.xattrs[o.Name]
	switch {
	case len(o.Value) > inode.XattrMax:
		return status.AttrTooLarge
	case exists && o.Flags == XattrCreate:
		return status.Exists
	case !exists && o.Flags == XattrReplace:
		return status.NoAttr
	}
	n.xattrs[o.Name] = string(o.Value)
	n.attr.Ctime = m.now
	return 0
}

func (m *model) removeXattr(o *RemoveXattr) status.Code {
	n := m.nodes[o.Ino]
	if n == nil {
		return status.NotFound
	}
	if _, ok := n.xattrs[o.Name]; !ok {
		return status.NoAttr
	}
	delete(n.xattrs, o.Name)
	n.attr.Ctime = m.now
	return 0
}

func (m *model) lease(o *Lease, session uint64, r *Result) status.Code {
	n, code := m.fileAt(o.Ino)
	switch {
	case code != 0:
		return code
	case !m.sessions[session]:
		return status.Stale
	case o.Count == 0:
		return status.Invalid
	}
	for i := o.First; i < o.First+o.Count; i++ {
		if c := n.chunks[i]; c != nil && c.Lease != 0 && c.Lease != session {
			return status.Busy
		}
	}
	for k, i := 0, o.First; i < o.First+o.Count; k, i = k+1, i+1 {
		c := n.chunks[i]
		switch {
		case c == nil:
			m.newChunk(n, i, r.Chunks[k].ID, session)
		case c.Lease == 0:
			c.Min, c.Lease = c.Version, session
			c.Version++
		}
		if r.Chunks[k] != n.chunks[i].ChunkSlot {
			return status.Unknown
		}
	}
	return 0
}

func (m *model) leaseFail(o *LeaseFail, session uint64) status.Code {
	c := m.chunks[o.Chunk]
	switch {
	case c == nil:
		return status.NoChunk
	case c.ino != o.Ino || c.Index != o.Index:
		return status.Invalid
	case c.Lease == 0 || c.Lease != session:
		return status.NoLease
	case o.Version <= c.Version:
		return status.StaleVersion
	}
	c.Version, c.Min = o.Version, o.Version
	return 0
}

func (c *mChunk) unlease() { c.Lease, c.Fresh, c.Min = 0, false, c.Version }

func (m *model) leaseDrop(o *LeaseDrop) status.Code {
	c := m.chunks[o.Chunk]
	switch {
	case c == nil:
		return status.NoChunk
	case c.Lease == 0:
		return status.NoLease
	case o.Version == 0 && !c.Fresh || o.Version != 0 && o.Version < c.Min:
		return status.Invalid
	}
	n := m.nodes[c.ino]
	if o.Version == 0 {
		m.freeChunk(n, c)
		return 0
	}
	c.Version = o.Version
	c.unlease()
	start := uint64(c.Index) * chunk.Size
	if start >= n.attr.Size {
		m.freeChunk(n, c)
	} else if rest := n.attr.Size - start; rest < chunk.Size {
		c.Valid = min(c.Valid, uint32(rest))
	}
	return 0
}

func (m *model) commit(f *CommitFile, session uint64) status.Code {
	n, code := m.fileAt(f.Ino)
	if code != 0 {
		return code
	}
	has := func(id chunk.ID) *mChunk {
		if c := m.chunks[id]; c != nil && c.ino == f.Ino && c.Lease != 0 && c.Lease == session {
			return c
		}
		return nil
	}
	for _, e := range f.Ended {
		if c := has(e.Chunk); c != nil && c.Version != e.Version {
			return status.StaleVersion
		}
	}
	for _, i := range f.Trimmed {
		if c := n.chunks[i]; c != nil && c.Lease != 0 && c.Lease == session {
			c.Valid = chunk.Size
		}
	}
	for _, e := range f.Ended {
		c := has(e.Chunk)
		if c == nil {
			continue
		}
		fresh := c.Fresh
		if !e.Written {
			c.Version = c.Min
		}
		c.unlease()
		if fresh && !e.Written || uint64(c.Index)*chunk.Size >= f.Size {
			m.freeChunk(n, c)
		}
	}
	if f.Kill {
		m.kill(n)
	}
	if f.Size == n.attr.Size && f.Mtime == n.attr.Mtime {
		return 0
	}
	if f.Size < n.attr.Size {
		m.cut(n, f.Size, session)
	}
	n.attr.Size, n.attr.Mtime = f.Size, f.Mtime
	n.attr.Ctime = max(n.attr.Ctime, f.Mtime)
	return 0
}

func (m *model) unhold(n *mNode, session uint64) {
	if n == nil || !n.holds[session] {
		return
	}
	delete(n.holds, session)
	if len(n.holds) == 0 {
		m.drop(n)
	}
}

func (m *model) closeSession(id uint64) status.Code {
	if !m.sessions[id] {
		return status.Stale
	}
	delete(m.sessions, id)
	for _, n := range maps.Clone(m.nodes) {
		m.unhold(n, id)
	}
	return 0
}

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
