package client

import (
	"context"
	"sync/atomic"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/wire"
)

// A SetAttr of mode, owner or times needs no word to the master while W is held:
// nobody else can see the inode. What was set on a file goes with its next
// Commit, on a directory through the line of early changes; both are noted in
// the intent log.

// settable are the parts of a SetAttr that can be made early.
const settable = wire.SetMode | wire.SetUid | wire.SetGid | wire.SetAtime | wire.SetMtime | wire.SetAtimeNow | wire.SetMtimeNow | wire.SetKill

// setEarly carries out a SetAttr before the master knows of it; ok false: it
// cannot, and nothing has happened.
func (c *Client) setEarly(n *node, set *wire.SetAttr) (out Node, ok bool) {
	if set.Valid&^settable != 0 || !c.early.ready() {
		return Node{}, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	const special = inode.HasACL | inode.HasCaps // they and the mode depend on each other
	if !n.can(inode.W) || !n.known || n.dead || n.attr.Flags&special != 0 {
		return Node{}, false
	}
	switch {
	case n.attr.Kind == inode.File && !n.frozen && (n.data == nil || !n.data.sealed && !n.data.widowed):
		d := n.file()
		n.resolve(set)
		n.setAttrs(set)
		d.sets |= n.setsOf(set)
		d.change(false)
		d.intents = append(d.intents, c.early.note(set))
	case n.attr.Kind == inode.Dir && n.changeable():
		n.resolve(set)
		n.setAttrs(set)
		n.dir.used = c.now()
		n.begun(1)
		reply := &wire.AttrReply{}
		c.early.add(&earlyChange{
			req: set, reply: reply, quiet: n, names: []earlyName{{n.pin(), ""}},
			done: func(k *call, err error) { n.logged(k, reply.Rights, &reply.Attr, set, err) },
		})
	default:
		return Node{}, false
	}
	return Node{Attr: n.attr, AttrTTL: c.ttl()}, true
}

// resolve replaces "now" by the time that it is, here.
func (n *node) resolve(set *wire.SetAttr) {
	set.Ino, set.Time = n.ino, wallTime()
	if set.Valid&wire.SetAtimeNow != 0 {
		set.Valid, set.Atime = set.Valid&^wire.SetAtimeNow|wire.SetAtime, set.Time
	}
	if set.Valid&wire.SetMtimeNow != 0 {
		set.Valid, set.Mtime = set.Valid&^wire.SetMtimeNow|wire.SetMtime, set.Time
	}
}

// setAttrs does here what state.SetAttr does at the master. mu is held.
func (n *node) setAttrs(set *wire.SetAttr) {
	a := &n.attr
	if set.Valid&wire.SetUid != 0 {
		a.Uid = set.Uid
	}
	if set.Valid&wire.SetGid != 0 {
		a.Gid = set.Gid
	}
	if set.Valid&(wire.SetUid|wire.SetGid|wire.SetKill) != 0 && a.Kind != inode.Dir {
		a.Mode = killed(a.Mode)
	}
	if set.Valid&wire.SetMode != 0 {
		a.Mode = set.Mode & 0o7777
	}
	if set.Valid&wire.SetAtime != 0 {
		a.Atime = set.Atime
	}
	if set.Valid&wire.SetMtime != 0 {
		a.Mtime = set.Mtime
	}
	a.Ctime = max(a.Ctime, set.Time)
}

// killed is a mode without suid, and without sgid where the group may execute.
func killed(mode uint32) uint32 {
	mode &^= 0o4000
	if mode&0o010 != 0 {
		mode &^= 0o2000
	}
	return mode
}

// setsOf says what a Commit must carry for a SetAttr of a file.
func (n *node) setsOf(set *wire.SetAttr) uint32 {
	sets := set.Valid & (wire.SetMode | wire.SetUid | wire.SetGid | wire.SetAtime)
	if set.Valid&(wire.SetUid|wire.SetGid|wire.SetKill) != 0 {
		sets |= wire.SetMode
	}
	return sets
}

// keepSets puts what the master does not know yet of the local attributes into
// those that it sent. n.mu is held.
func (d *fileData) keepSets(to, local *inode.Attr) {
	if d.sets&wire.SetMode != 0 {
		to.Mode = local.Mode
	}
	if d.sets&wire.SetUid != 0 {
		to.Uid = local.Uid
	}
	if d.sets&wire.SetGid != 0 {
		to.Gid = local.Gid
	}
	if d.sets&wire.SetAtime != 0 {
		to.Atime = local.Atime
	}
}

// told ends the intents of what a Commit has carried.
func (d *fileData) told(list []int) {
	if len(list) > 0 {
		d.n.c.early.noted(list)
	}
}

// tell makes the master know what was set early on a file, so that a change
// that is not made early comes after it.
func (n *node) tell(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.awaitLogged(ctx); err != nil {
		return err
	}
	if n.data == nil || n.data.sets == 0 {
		return nil
	}
	return n.sync(ctx, false)
}

// spaceWatch knows whether the file system is nearly full. Then close(2) waits
// until its bytes have found a place, to be able to say that there is none.
type spaceWatch struct {
	tight  atomic.Bool
	asking atomic.Bool
	next   atomic.Int64 // monotonic time
}

const spaceEvery = 1e9 // ns

// look asks for the free space now and then while files are written.
func (s *spaceWatch) look(c *Client) {
	now := c.now()
	if now < s.next.Load() || c.budget.inUse() == 0 && s.next.Load() != 0 || s.asking.Swap(true) {
		return
	}
	s.next.Store(now + spaceEvery)
	if !c.spawn(func() {
		defer s.asking.Store(false)
		if r, err := c.StatFS(c.ctx); err == nil {
			s.tight.Store(r.Free < r.Total/20 || r.Free < 4*uint64(c.budget.limit))
		}
	}) {
		s.asking.Store(false)
	}
}
