package client

import (
	"context"
	"slices"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

const dirPage = 1024 // entries of one ReadDir

// Dir is an open directory. Read may be called from one goroutine at a time.
type Dir struct {
	c      *Client
	n      *node
	parent inode.Ino

	// What the master sent last and was not yet read: entries behind cookie at.
	loaded bool
	page   []wire.DirEntry
	at     uint64
	end    bool // nothing follows page

	hint int // index behind the entry that was read last from a kept listing

	// A listing that is gathered to be kept, if no name changes meanwhile.
	list     []listed
	version  uint64
	gathered bool // list begins at the start
	next     uint64
}

// OpenDir opens a directory.
func (c *Client) OpenDir(ctx context.Context, ino inode.Ino) (*Dir, error) {
	n := c.table.get(ino)
	if err := n.enterToOpen(ctx); err != nil {
		n.unpin()
		return nil, err
	}
	n.opens++
	d := &Dir{c: c, n: n}
	parent := n.directory().parent
	n.mu.Unlock()
	d.parent = parent
	if parent == 0 {
		if err := d.fetch(ctx, 0); err != nil {
			d.Close()
			return nil, err
		}
	}
	return d, nil
}

// Ino is the number of the directory.
func (d *Dir) Ino() inode.Ino { return d.n.ino }

// Parent is the directory that ".." is.
func (d *Dir) Parent() inode.Ino { return d.parent }

// Close ends the use of the Dir.
func (d *Dir) Close() error {
	if d.n == nil {
		return nil
	}
	d.n.mu.Lock()
	d.n.opens--
	if d.n.opens == 0 && d.n.told {
		d.c.releaseLater(d.n)
	}
	d.n.mu.Unlock()
	d.n.unpin()
	d.n = nil
	return nil
}

// Read calls each with the entries behind cookie (0: from the start) until it
// returns false or none is left. "." and ".." are not among them.
func (d *Dir) Read(ctx context.Context, cookie uint64, each func(DirEntry) bool) error {
	n := d.c.begin(d.n.ino)
	defer n.end()
	for {
		done, err := d.fromCache(&cookie, each)
		if done || err != nil {
			return err
		}
		if !d.loaded || d.at != cookie || cookie == 0 && len(d.page) == 0 {
			if err := d.fetch(ctx, cookie); err != nil {
				return err
			}
		}
		for len(d.page) > 0 {
			e := &d.page[0]
			if !each(DirEntry{Name: e.Name, Cookie: e.Cookie, Node: d.entry(e)}) {
				return nil
			}
			cookie = e.Cookie
			d.at, d.page = cookie, d.page[1:]
		}
		if d.end {
			return nil
		}
		d.loaded = false
	}
}

// entry is the node of an entry as it is now.
func (d *Dir) entry(e *wire.DirEntry) Node {
	out := Node{Attr: e.Attr}
	if n := d.c.table.find(e.Attr.Ino); n != nil {
		n.mu.Lock()
		if n.known && n.can(inode.R) {
			out = Node{Attr: n.attr, AttrTTL: d.c.ttl()}
		}
		n.mu.Unlock()
		n.unpin()
	}
	out.EntryTTL = d.ttl(e.Name, e.Attr.Ino)
	return out
}

// ttl is how long the kernel may keep a name that was listed.
func (d *Dir) ttl(name string, ino inode.Ino) time.Duration {
	d.n.mu.Lock()
	defer d.n.mu.Unlock()
	if have, ok := d.n.dir.look(d.n, name); ok && have == ino {
		return d.n.dir.ttl(d.n)
	}
	return 0
}

// fromCache reads from a listing that is kept under D; done: the caller is
// served. Where an inode's attributes are not known it stops.
func (d *Dir) fromCache(cookie *uint64, each func(DirEntry) bool) (done bool, err error) {
	d.n.mu.Lock()
	var list []listed
	if d.n.can(inode.D) {
		list = d.n.dir.list
	}
	ttl := d.n.dir.ttl(d.n)
	d.n.mu.Unlock()
	if list == nil {
		return false, nil
	}
	i, ok := d.find(list, *cookie)
	if !ok {
		return false, nil
	}
	for _, e := range list[i:] {
		n := d.c.table.find(e.ino)
		if n == nil {
			return false, nil
		}
		n.mu.Lock()
		ok = n.known && n.can(inode.R)
		out := Node{Attr: n.attr, EntryTTL: ttl, AttrTTL: d.c.ttl()}
		n.mu.Unlock()
		n.unpin()
		if !ok {
			return false, nil
		}
		if !each(DirEntry{Name: e.name, Cookie: e.cookie, Node: out}) {
			return true, nil
		}
		*cookie = e.cookie
		i++
		d.hint = i
	}
	return true, nil
}

// find returns the index of the entry behind cookie. Cookies have no order.
func (d *Dir) find(list []listed, cookie uint64) (int, bool) {
	if cookie == 0 {
		return 0, true
	}
	if d.hint > 0 && d.hint <= len(list) && list[d.hint-1].cookie == cookie {
		return d.hint, true
	}
	i := slices.IndexFunc(list, func(e listed) bool { return e.cookie == cookie })
	return i + 1, i >= 0
}

// fetch asks the master for the entries behind cookie.
func (d *Dir) fetch(ctx context.Context, cookie uint64) error {
	if err := d.n.beginListing(ctx); err != nil {
		return err
	}
	defer d.n.endListing()
	var reply wire.ReadDirReply
	err := d.c.ses.do(ctx, &wire.ReadDir{Ino: d.n.ino, Cookie: cookie, Max: dirPage}, &reply, func(k *call, err error) {
		if err == nil && !k.abandoned() {
			d.install(k, cookie, &reply)
		}
	})
	if status.CodeOf(err) == status.Stale {
		return status.NotFound
	}
	return err
}

// beginListing waits until the master knows all names, and keeps them as they
// are until endListing: an older answer must not bring back a removed name.
func (n *node) beginListing(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.awaitLogged(ctx); err != nil {
		return err
	}
	n.directory().listing++
	return nil
}

func (n *node) endListing() {
	n.mu.Lock()
	n.dir.listing--
	n.mu.Unlock()
}

// Sync returns when all changes of names in the directory, and of its
// attributes, that this client has made are on the masters' disks. It reports a
// change that was lost once.
func (d *Dir) Sync(ctx context.Context) error {
	if err := d.c.settle(ctx, d.n); err != nil {
		return err
	}
	d.n.mu.Lock()
	defer d.n.mu.Unlock()
	err := d.n.failed
	d.n.failed = nil
	return err
}

// install takes over a page of the listing, on the read goroutine.
func (d *Dir) install(k *call, cookie uint64, r *wire.ReadDirReply) {
	for i := range r.Entries {
		e := &r.Entries[i]
		d.c.installAttr(k, e.Attr.Ino, &wire.AttrReply{Attr: e.Attr, Rights: e.Rights})
	}
	d.loaded, d.page, d.at, d.end, d.parent = true, r.Entries, cookie, r.End, r.Parent
	n := d.n
	n.mu.Lock()
	defer n.mu.Unlock()
	n.grant(k, r.DirRights, 0)
	s := n.directory()
	s.parent = r.Parent
	if !n.can(inode.D) || k.num < n.quarantine || r.DirRights&inode.D == 0 {
		d.gathered = false
		return
	}
	if cookie == 0 {
		d.list, d.version, d.gathered, d.next = nil, s.version, true, 0
	}
	d.gathered = d.gathered && d.version == s.version && d.next == cookie
	for i := range r.Entries {
		e := &r.Entries[i]
		if _, known := s.names[e.Name]; !known {
			n.c.table.names.Add(1)
		}
		s.names[e.Name] = e.Attr.Ino
		if d.gathered {
			d.list = append(d.list, listed{e.Name, e.Cookie, e.Attr.Ino})
			d.next = e.Cookie
		}
	}
	if d.gathered && r.End {
		s.list, s.complete = d.list, true
		if s.list == nil {
			s.list = []listed{}
		}
		d.list, d.gathered = nil, false
	}
}
