package state

import (
	"maps"
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

// free checks a name that is to be made and gives who has it.
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

// cutTo is truncate(2): where the size grows, only what a writer has leased is cut.
func (m *model) cutTo(n *mNode, size uint64) {
	grows := size > n.attr.Size
	last := n.chunks[uint32(size/chunk.Size)]
	if grows && last != nil && last.Lease == 0 {
		defer func(valid uint32) { last.Valid = valid }(last.Valid)
	}
	m.cut(n, size, 0)
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
		m.cutTo(n, o.Size)
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
