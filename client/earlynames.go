package client

import (
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/wire"
)

// makeEarly makes an inode before the master knows of it, and opens it when
// m.Open is set; ok false: it cannot, and nothing has happened.
func (c *Client) makeEarly(p *node, m *wire.Make, flags uint32) (out Node, f *File, ok bool) {
	if m.Name == "" || !c.early.ready() {
		return Node{}, nil, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	ino, known := p.dir.look(p, m.Name)
	if !p.changeable() || !known || ino != 0 || p.attr.Flags&inode.HasACL != 0 || p.attr.Nlink >= inode.LinkMax {
		return Node{}, nil, false
	}
	if m.Ino, ok = c.early.number(); !ok {
		return Node{}, nil, false
	}
	m.Time, m.Goal, m.Want = wallTime(), p.attr.Goal, true
	n := c.table.get(m.Ino) // for the change
	n.mu.Lock()
	n.unborn(p, m)
	if m.Open {
		n.file()
		f = n.pin().open(flags)
	}
	out = Node{Attr: n.attr, AttrTTL: c.ttl()}
	n.mu.Unlock()
	p.dir.put(p, m.Name, m.Ino)
	links := 0
	if m.What == inode.Dir {
		links = 1
	}
	p.renamed(m.Time, 1, links)
	p.begun(1)
	out.EntryTTL = p.dir.ttl(p)
	reply := &wire.EntryReply{}
	c.early.add(&earlyChange{
		req: m, reply: reply, names: []earlyName{{p.pin(), m.Name}},
		done: func(k *call, err error) { c.born(k, p, n, m, reply, err) },
	})
	return out, f, true
}

// unborn fills in what the master will find when it makes the inode; see
// state.Make. mu is held, and nobody knows the node yet.
func (n *node) unborn(p *node, m *wire.Make) {
	mode := m.Mode & 0o7777
	if m.What == inode.Dir {
		mode |= p.attr.Mode & 0o2000
	}
	n.attr = inode.Attr{
		Ino: m.Ino, Kind: m.What, Mode: mode &^ (m.Umask & 0o777), Nlink: 1, Uid: m.Uid, Gid: m.Gid, Goal: p.attr.Goal,
		Trash: p.attr.Trash, Atime: m.Time, Mtime: m.Time, Ctime: m.Time, Btime: m.Time,
	}
	if p.attr.Mode&0o2000 != 0 {
		n.attr.Gid = p.attr.Gid
	}
	n.known, n.making, n.early = true, true, 1
	n.rights = inode.R
	switch m.What {
	case inode.File:
		if m.Open {
			n.rights |= inode.W
		}
	case inode.Dir:
		n.rights |= inode.W | inode.D
		n.attr.Nlink = 2
		n.directory().complete, n.dir.parent = true, p.ino
		n.c.early.watch(n)
	case inode.Symlink:
		n.attr.Mode, n.attr.Size, n.target = 0o777, uint64(len(m.Target)), []byte(m.Target)
	case inode.CharDev, inode.BlockDev:
		n.attr.Rdev = m.Rdev
	}
}

// born takes the master's answer to an early Make.
func (c *Client) born(k *call, p, n *node, m *wire.Make, reply *wire.EntryReply, err error) {
	defer n.unpin()
	n.mu.Lock()
	n.making = false
	n.begun(-1)
	if err != nil {
		n.bury()
	} else {
		lost := n.rights &^ reply.Rights // after a lost connection somebody else may have been first
		n.learn(&reply.Attr)
		if m.Open && lost == 0 {
			n.lease(reply)
		}
		if lost != 0 {
			n.mu.Unlock()
			n.confirm(reply.Rights)
			n.mu.Lock()
		}
	}
	n.cond.Broadcast()
	n.mu.Unlock()
	p.logged(k, reply.DirRights, &reply.Parent, m, err)
}

// logged ends an early change in a directory, which was pinned for it.
func (n *node) logged(k *call, rights inode.Rights, a *inode.Attr, what wire.Message, err error) {
	n.mu.Lock()
	n.begun(-1)
	if err == nil {
		n.grant(k, rights, inode.W)
		n.learn(a)
	}
	n.mu.Unlock()
	if err != nil {
		n.spoilt(what, err)
	}
	n.unpin()
}

// removeEarly removes a name before the master knows of it.
func (c *Client) removeEarly(p *node, req *wire.Remove) bool {
	if !c.early.ready() {
		return false
	}
	v := c.victim(p, req.Name)
	if v == nil {
		return false
	}
	v.mu.Lock()
	ok := v.removable(req.Dir)
	if ok {
		v.begun(1)
	}
	v.mu.Unlock()
	if !ok {
		v.unpin()
		return false
	}
	open := v.parting()
	p.mu.Lock()
	if ino, known := p.dir.look(p, req.Name); !p.changeable() || !known || ino != v.ino {
		p.mu.Unlock()
		v.mu.Lock()
		v.begun(-1)
		v.mu.Unlock()
		v.parted(open)
		return false
	}
	req.Ino, req.Open, req.Time, req.Want = v.ino, open, wallTime(), true
	p.dir.put(p, req.Name, 0)
	links := 0
	if req.Dir {
		links = -1
	}
	p.renamed(req.Time, -1, links)
	p.begun(1)
	v.pin() // until here is done; the change has the other pin
	reply := &wire.RemoveReply{}
	a := &earlyChange{req: req, reply: reply, names: []earlyName{{p.pin(), req.Name}}, slow: true}
	if req.Dir {
		a.quiet = v
	}
	a.done = func(k *call, err error) {
		c.dead(k, v, &reply.Attr, reply.Orphan, open, err)
		p.logged(k, reply.DirRights, &reply.Parent, req, err)
	}
	c.early.add(a)
	p.mu.Unlock()
	v.nameless(req.Time)
	v.unpin()
	return true
}

// removable says whether a name of the inode can be removed early. mu is held.
func (n *node) removable(dir bool) bool {
	if !n.known || !n.can(inode.R) || n.dead || n.orphan || (n.attr.Kind == inode.Dir) != dir {
		return false
	}
	return !dir || n.can(inode.W) && n.attr.Size == 0 && n.opens == 0 && n.directory().listing == 0
}

// nameless notes that the inode has lost a name by an early change.
func (n *node) nameless(now int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.early == 0 || n.dead {
		return // the answer is here already
	}
	n.attr.Ctime = now
	if n.attr.Nlink > 0 {
		n.attr.Nlink--
	}
	if n.attr.Kind == inode.Dir {
		n.attr.Nlink = 0
	}
	n.orphan = n.orphan || n.attr.Nlink == 0
}

// dead takes the master's answer about an inode that has lost a name early.
func (c *Client) dead(k *call, v *node, a *inode.Attr, orphan, open bool, err error) {
	v.mu.Lock()
	v.begun(-1)
	if err != nil {
		v.known, v.orphan = false, false
	}
	v.mu.Unlock()
	if err == nil {
		c.installGone(k, a, orphan)
	}
	v.parted(open)
}

// renameEarly moves a name before the master knows of it.
func (c *Client) renameEarly(p, q *node, req *wire.Rename) bool {
	if !c.early.ready() || req.Flags&^wire.RenameNoReplace != 0 || p == q && req.Name == req.NewName {
		return false
	}
	m := c.victim(p, req.Name)
	if m == nil {
		return false
	}
	q.mu.Lock()
	old, known := q.dir.look(q, req.NewName)
	q.mu.Unlock()
	if !known || old == m.ino || old != 0 && req.Flags != 0 {
		m.unpin()
		return false
	}
	var v *node
	if old != 0 {
		v = c.table.get(old)
	}
	r := &earlyRename{c: c, p: p, q: q, m: m, v: v, req: req}
	if !r.claim() {
		m.unpin()
		if v != nil {
			v.unpin()
		}
		return false
	}
	if !r.make() {
		r.disclaim()
		return false
	}
	return true
}

// earlyRename has the parties of an early rename: from directory p to q, of m,
// taking the name from v (nil: nobody).
type earlyRename struct {
	c          *Client
	p, q, m, v *node
	req        *wire.Rename
	open       bool // v is open here
}

// claim keeps the inodes for the change.
func (r *earlyRename) claim() bool {
	r.m.mu.Lock()
	isDir := r.m.attr.Kind == inode.Dir
	ok := r.m.known && r.m.can(inode.R) && !r.m.dead && (!isDir || r.p == r.q && r.v == nil && r.m.can(inode.W))
	if ok {
		r.m.begun(1)
	}
	r.m.mu.Unlock()
	if !ok || r.v == nil {
		return ok
	}
	r.v.mu.Lock()
	ok = r.v.removable(false)
	if ok {
		r.v.begun(1)
	}
	r.v.mu.Unlock()
	if !ok {
		r.m.mu.Lock()
		r.m.begun(-1)
		r.m.mu.Unlock()
		return false
	}
	r.open = r.v.parting()
	return true
}

func (r *earlyRename) disclaim() {
	for _, n := range []*node{r.m, r.v} {
		if n != nil {
			n.mu.Lock()
			n.begun(-1)
			n.mu.Unlock()
		}
	}
	r.m.unpin()
	if r.v != nil {
		r.v.parted(r.open)
	}
}

// use counts a use of W on a directory, so that a recall waits.
func (r *earlyRename) use(n *node, name string, want inode.Ino) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ino, known := n.dir.look(n, name); !n.changeable() || !known || ino != want {
		return false
	}
	n.use(inode.W, 1)
	return true
}

func (r *earlyRename) unuse(n *node) {
	n.mu.Lock()
	n.leave(inode.W)
	n.mu.Unlock()
}

// make carries the change out: the new name first, so that the inode always has one.
func (r *earlyRename) make() bool {
	p, q, m, v, req := r.p, r.q, r.m, r.v, r.req
	if !r.use(p, req.Name, m.ino) {
		return false
	}
	defer r.unuse(p)
	old := inode.Ino(0)
	if v != nil {
		old = v.ino
	}
	if !r.use(q, req.NewName, old) {
		return false
	}
	defer r.unuse(q)
	req.Time, req.Want = wallTime(), true
	if v != nil {
		req.Ino, req.Open = v.ino, r.open
		v.pin()
		defer v.unpin()
	}
	m.pin()
	defer m.unpin()
	entries := 1
	if v != nil {
		entries = 0
	}
	q.mu.Lock()
	q.dir.put(q, req.NewName, m.ino)
	q.renamed(req.Time, entries, 0)
	q.begun(1)
	q.pin()
	q.mu.Unlock()
	reply := &wire.RenameReply{}
	p.mu.Lock()
	p.dir.put(p, req.Name, 0)
	p.renamed(req.Time, -1, 0)
	p.begun(1)
	r.c.early.add(&earlyChange{
		req: req, reply: reply, slow: true, names: []earlyName{{p.pin(), req.Name}, {q, req.NewName}},
		done: func(k *call, err error) { r.logged(k, reply, err) },
	})
	p.mu.Unlock()
	m.mu.Lock()
	if m.early > 0 {
		m.attr.Ctime = req.Time
	}
	m.mu.Unlock()
	if v != nil {
		v.nameless(req.Time)
	}
	return true
}

// logged takes the master's answer.
func (r *earlyRename) logged(k *call, reply *wire.RenameReply, err error) {
	r.m.mu.Lock()
	r.m.begun(-1)
	if err == nil {
		r.m.learn(&reply.Moved)
	} else {
		r.m.known = false
	}
	r.m.mu.Unlock()
	r.m.unpin()
	if r.v != nil {
		r.c.dead(k, r.v, &reply.Gone, reply.Orphan, r.open, err)
	}
	r.q.logged(k, reply.NewDirRights, &reply.NewParent, r.req, err)
	r.p.logged(k, reply.DirRights, &reply.Parent, r.req, err)
}
