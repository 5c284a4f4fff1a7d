package client

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// Lookup finds a name in a directory. With status.NotFound the Node's EntryTTL
// tells how long the absence may be relied on.
func (c *Client) Lookup(ctx context.Context, parent inode.Ino, name string) (Node, error) {
	if len(name) > inode.NameMax {
		return Node{}, status.NameTooLong
	}
	p := c.begin(parent)
	defer p.end()
	if out, ok, err := c.cached(ctx, p, name); ok {
		c.met.entryHits.Inc()
		return out, err
	}
	c.met.entryMiss.Inc()
	return c.lookup(ctx, parent, name)
}

func (c *Client) lookup(ctx context.Context, parent inode.Ino, name string) (Node, error) {
	var reply wire.EntryReply
	var out Node
	p := c.table.get(parent)
	defer p.unpin()
	if c.early.concerns(p, name) {
		if err := c.settle(ctx, p); err != nil {
			return Node{}, err
		}
	}
	p.mu.Lock()
	changes := p.directory().changes
	p.mu.Unlock()
	err := c.ses.do(ctx, &wire.Lookup{Parent: parent, Name: name}, &reply, func(k *call, err error) {
		if err == nil {
			p.mu.Lock()
			if p.dir.changes != changes || k.abandoned() {
				reply.DirRights &^= inode.D // the answer may be older than an early change
			}
			p.mu.Unlock()
			out = c.installEntry(k, parent, name, &reply)
		}
	})
	if err != nil {
		return Node{}, err
	}
	if !reply.Found {
		return out, status.NotFound
	}
	return out, nil
}

// cached answers a Lookup from what is known here; ok false: it is not known.
func (c *Client) cached(ctx context.Context, p *node, name string) (out Node, ok bool, err error) {
	p.mu.Lock()
	ino, ok := p.dir.look(p, name)
	ttl := p.dir.ttl(p)
	if ok && ino == 0 && ttl > 0 {
		p.dir.put(p, name, 0) // the kernel will have it: void must know the name
	}
	p.mu.Unlock()
	if !ok {
		return Node{}, false, nil
	}
	if ino == 0 {
		return Node{EntryTTL: ttl}, true, status.NotFound
	}
	out, err = c.GetAttr(ctx, ino)
	if gone(err) {
		return Node{}, false, nil // it changed just now
	}
	out.EntryTTL = ttl
	return out, true, err
}

// installEntry takes over an EntryReply, on the read goroutine.
func (c *Client) installEntry(k *call, parent inode.Ino, name string, r *wire.EntryReply) Node {
	var out Node
	if r.Found {
		out = c.installNode(k, r, nil)
	}
	p := c.table.get(parent)
	defer p.unpin()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.grant(k, r.DirRights, inode.W)
	if r.Changed {
		p.learn(&r.Parent)
	}
	d := p.directory()
	if name != "" && k.num >= p.quarantine && r.DirRights&inode.D != 0 {
		d.put(p, name, r.Attr.Ino)
		out.EntryTTL = d.ttl(p) // of a name that is not noted void would not tell the kernel
	} else if r.Changed && name != "" {
		d.changed(p, []string{name})
	}
	return out
}

// installNode takes over the inode of an EntryReply. also (may be nil) runs with its mu held.
func (c *Client) installNode(k *call, r *wire.EntryReply, also func(n *node)) Node {
	n := c.table.get(r.Attr.Ino)
	defer n.unpin()
	n.mu.Lock()
	defer n.mu.Unlock()
	asked := inode.Rights(0)
	if m, ok := k.req.(*wire.Make); ok && (m.Open || m.Want) {
		asked = inode.W
	}
	n.grant(k, r.Rights, asked)
	out := n.seen(&r.Attr)
	if !n.can(inode.R) {
		return out
	}
	if len(r.Target) > 0 {
		n.target = r.Target
	}
	if r.Attr.Kind == inode.File && !r.Lease && len(r.Chunks) > 0 && k.num >= n.quarantine {
		for _, loc := range r.Chunks {
			n.file().place(loc)
		}
	}
	if r.Attr.Kind == inode.Dir && r.Attr.Size == 0 && r.Rights&inode.D != 0 && n.can(inode.D) {
		n.directory().complete = true // made a moment ago: no name in it exists
	}
	if also != nil {
		also(n)
	}
	return out
}

// Make creates an inode that is not to be opened.
func (c *Client) Make(ctx context.Context, m wire.Make) (Node, error) {
	m.Open, m.Lease = false, false
	p, err := c.beginChange(m.Parent, m.Name)
	if err != nil {
		return Node{}, err
	}
	defer p.end()
	if m.Name == "" {
		return Node{}, status.NotFound
	}
	c.claim(ctx, p, m.Name)
	if out, _, ok := c.makeEarly(p, &m, 0); ok {
		return out, nil
	}
	if err := c.settle(ctx, p); err != nil {
		return Node{}, err
	}
	m.Want = c.early.wanted()
	var reply wire.EntryReply
	var out Node
	err = c.ses.do(ctx, &m, &reply, func(k *call, err error) {
		if err == nil {
			out = c.installEntry(k, m.Parent, m.Name, &reply)
		}
	})
	if err != nil {
		return Node{}, err
	}
	return out, nil
}

// beginChange begins an operation that changes a directory.
func (c *Client) beginChange(dir inode.Ino, name string) (*node, error) {
	if c.cfg.ReadOnly {
		return nil, status.ReadOnly
	}
	if len(name) > inode.NameMax {
		return nil, status.NameTooLong
	}
	return c.begin(dir), nil
}

// Create makes a file and opens it, or opens the one that has the name unless
// O_EXCL is among the flags of open(2). An empty name makes a file without one
// (O_TMPFILE).
func (c *Client) Create(ctx context.Context, m wire.Make, flags uint32) (Node, *File, error) {
	p, err := c.beginChange(m.Parent, m.Name)
	if err != nil {
		return Node{}, nil, err
	}
	defer p.end()
	m.What, m.Open = inode.File, true
	m.Lease = flags&syscall.O_ACCMODE != syscall.O_RDONLY
	for wait := time.Millisecond; ; wait = min(2*wait, backoffMax) {
		p.mu.Lock()
		ino, known := p.dir.look(p, m.Name)
		p.mu.Unlock()
		if m.Name != "" && known && ino != 0 {
			err = status.Exists
		} else {
			c.claim(ctx, p, m.Name)
			out, f, ok := c.makeEarly(p, &m, flags)
			if ok {
				return out, f, nil
			}
			if err := c.settle(ctx, p); err != nil {
				return Node{}, nil, err
			}
			m.Want = c.early.wanted()
			if out, f, err = c.create(ctx, m, flags); err == nil {
				return out, f, nil
			}
		}
		if status.CodeOf(err) != status.Exists || flags&syscall.O_EXCL != 0 {
			return Node{}, nil, err
		}
		out, f, err := c.openNamed(ctx, p, m.Name, flags)
		if !gone(err) {
			return out, f, err
		}
		// Removed in between.
		if !c.sleep(ctx, wait) {
			return Node{}, nil, ctxError(ctx)
		}
	}
}

// openNamed opens what has a name.
func (c *Client) openNamed(ctx context.Context, p *node, name string, flags uint32) (Node, *File, error) {
	out, ok, err := c.cached(ctx, p, name)
	if !ok {
		out, err = c.lookup(ctx, p.ino, name)
	}
	if err != nil {
		return Node{}, nil, err
	}
	switch out.Attr.Kind {
	case inode.Dir:
		return out, nil, status.IsDir
	case inode.File:
	default:
		return out, nil, status.Exists
	}
	f, err := c.OpenFile(ctx, out.Attr.Ino, flags)
	if err == nil && flags&syscall.O_TRUNC != 0 {
		ttl := out.EntryTTL
		if out, err = c.GetAttr(ctx, out.Attr.Ino); err != nil {
			f.Close()
			return Node{}, nil, err
		}
		out.EntryTTL = ttl
	}
	return out, f, err
}

// create makes and opens a file with one request.
func (c *Client) create(ctx context.Context, m wire.Make, flags uint32) (Node, *File, error) {
	var reply wire.EntryReply
	var out Node
	var f *File
	err := c.ses.do(ctx, &m, &reply, func(k *call, err error) {
		if err != nil {
			return
		}
		n := c.table.get(reply.Attr.Ino) // for the File
		c.installNode(k, &reply, func(n *node) { n.lease(&reply) })
		node := c.installEntry(k, m.Parent, m.Name, &reply)
		n.mu.Lock()
		if m.Name == "" {
			n.told, n.orphan = true, true
		}
		opened := n.open(flags)
		n.mu.Unlock()
		if k.abandoned() {
			opened.Close()
			return
		}
		out, f = node, opened
	})
	if err != nil {
		return Node{}, nil, err
	}
	return out, f, nil
}

// lease takes over the first chunk of a new file. mu is held.
func (n *node) lease(r *wire.EntryReply) {
	if !n.holdsW() {
		return
	}
	d := n.file()
	d.baseSize, d.baseTime = r.Attr.Size, r.Attr.Mtime
	if r.Lease && len(r.Chunks) == 1 && len(r.Chunks[0].Replicas) > 0 {
		d.chunk(r.Chunks[0].Index).lease(r.Chunks[0])
	}
	n.c.queue(n)
}

// Remove is unlink(2), or rmdir(2) with dir.
func (c *Client) Remove(ctx context.Context, parent inode.Ino, name string, dir bool) error {
	p, err := c.beginChange(parent, name)
	if err != nil {
		return err
	}
	defer p.end()
	req := &wire.Remove{Parent: parent, Name: name, Dir: dir}
	c.claim(ctx, p, name)
	if c.removeEarly(p, req) {
		return nil
	}
	req.Want = c.early.wanted()
	victim := c.victim(p, name)
	if err := c.settle(ctx, p, victim); err != nil {
		if victim != nil {
			victim.unpin()
		}
		return err
	}
	if victim != nil {
		req.Ino, req.Open = victim.ino, victim.parting()
		defer victim.parted(req.Open)
	}
	var reply wire.RemoveReply
	err = c.ses.do(ctx, req, &reply, func(k *call, err error) {
		if err != nil {
			return
		}
		c.installGone(k, &reply.Attr, reply.Orphan)
		c.installName(k, parent, name, 0, &reply.Parent, reply.DirRights)
	})
	c.tellUnheard(ctx, err, reply.Attr.Ino)
	return err
}

// victim returns the node that a name is known to have, pinned, or nil.
func (c *Client) victim(p *node, name string) *node {
	p.mu.Lock()
	ino, ok := p.dir.look(p, name)
	p.mu.Unlock()
	if !ok || ino == 0 {
		return nil
	}
	return c.table.get(ino)
}

// parting tells whether the inode is open here; if not, nobody opens it until parted.
func (n *node) parting() (open bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.opens > 0 || n.lingers() {
		n.told = true
		return true
	}
	n.removing++
	return false
}

const (
	lingerTime = 1e9     // ns for which a file without names can still be opened
	lingerSize = 1 << 20 // bytes above which its space is freed at once instead
)

// lingers says whether the master is to keep the inode for a moment although it
// is not open here. The kernel may have found the name before it was removed, or
// before another file took it, and is about to open what it found. mu is held.
func (n *node) lingers() bool {
	return n.attr.Kind == inode.File && n.known && n.attr.Nlink <= 1 && n.attr.Size <= lingerSize &&
		n.c.notifier() != nil && !n.c.space.tight.Load()
}

func (n *node) parted(open bool) {
	n.mu.Lock()
	if !open {
		n.removing--
		n.cond.Broadcast()
	}
	n.mu.Unlock()
	n.unpin()
}

// installGone takes over what became of an inode that lost a name, on the read goroutine.
func (c *Client) installGone(k *call, a *inode.Attr, orphan bool) {
	n := c.table.get(a.Ino)
	defer n.unpin()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.learn(a)
	if a.Nlink > 0 && a.Kind != inode.Dir {
		return
	}
	n.orphan = true
	n.told = n.told || orphan || n.opens > 0
	if n.opens > 0 {
		return
	}
	if orphan {
		n.linger = c.now() + lingerTime
		n.limbo = n.data != nil && n.data.pending()
		c.releaseLater(n)
		return
	}
	n.toLimbo()
	if n.told {
		c.releaseLater(n)
	}
}

// installName notes a name that this client has changed, on the read goroutine.
func (c *Client) installName(k *call, parent inode.Ino, name string, ino inode.Ino, a *inode.Attr, rights inode.Rights) {
	p := c.table.get(parent)
	defer p.unpin()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.grant(k, rights, inode.W)
	p.learn(a)
	if k.num >= p.quarantine {
		p.directory().put(p, name, ino)
	} else {
		p.directory().changed(p, []string{name})
	}
}

// Rename moves a name; flags are those of renameat2(2).
func (c *Client) Rename(ctx context.Context, parent inode.Ino, name string, newParent inode.Ino, newName string, flags uint32) error {
	p, err := c.beginChange(parent, name)
	if err != nil {
		return err
	}
	defer p.end()
	q, err := c.beginChange(newParent, newName)
	if err != nil {
		return err
	}
	defer q.end()
	req := &wire.Rename{Parent: parent, Name: name, NewParent: newParent, NewName: newName, Flags: flags}
	c.claim(ctx, p, name)
	c.claim(ctx, q, newName)
	if c.renameEarly(p, q, req) {
		return nil
	}
	if err := c.settleRename(ctx, p, q, req); err != nil {
		return err
	}
	req.Want = c.early.wanted()
	if victim := c.victim(q, newName); victim != nil {
		req.Ino, req.Open = victim.ino, victim.parting()
		defer victim.parted(req.Open)
	}
	var reply wire.RenameReply
	err = c.ses.do(ctx, req, &reply, func(k *call, err error) {
		if err != nil {
			return
		}
		exchanged := flags&wire.RenameExchange != 0
		if reply.Replaced && !exchanged {
			c.installGone(k, &reply.Gone, reply.Orphan)
		} else if reply.Replaced {
			c.installAttr(k, reply.Gone.Ino, &wire.AttrReply{Attr: reply.Gone})
		}
		c.installAttr(k, reply.Moved.Ino, &wire.AttrReply{Attr: reply.Moved, Rights: reply.Rights})
		if parent == newParent && name == newName {
			return
		}
		old := inode.Ino(0)
		if exchanged {
			old = reply.Gone.Ino
		}
		if reply.Replaced && reply.Gone.Ino == reply.Moved.Ino {
			return // two names of one inode: rename(2) does nothing
		}
		c.installName(k, parent, name, old, &reply.Parent, reply.DirRights)
		c.installName(k, newParent, newName, reply.Moved.Ino, &reply.NewParent, reply.NewDirRights)
	})
	c.tellUnheard(ctx, err, reply.Moved.Ino, reply.Gone.Ino)
	return err
}

// Link gives an inode another name.
func (c *Client) Link(ctx context.Context, ino, parent inode.Ino, name string) (Node, error) {
	p, err := c.beginChange(parent, name)
	if err != nil {
		return Node{}, err
	}
	defer p.end()
	n := c.table.get(ino)
	err = c.settle(ctx, p, n)
	n.unpin()
	if err != nil {
		return Node{}, err
	}
	var reply wire.EntryReply
	var out Node
	err = c.ses.do(ctx, &wire.Link{Ino: ino, Parent: parent, Name: name}, &reply, func(k *call, err error) {
		if err != nil {
			return
		}
		out = c.installEntry(k, parent, name, &reply)
		n := c.table.get(ino)
		n.mu.Lock()
		n.orphan = false // O_TMPFILE was given a name
		n.mu.Unlock()
		n.unpin()
	})
	if errors.Is(err, status.Stale) {
		err = status.NotFound
	}
	if err != nil {
		return Node{}, err
	}
	return out, nil
}
