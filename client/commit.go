package client

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// commitHow says what a Commit is for.
type commitHow uint8

const (
	commitSize commitHow = iota // what the master does not know
	commitIdle                  // and end the leases of chunks that are not in use; W goes when the file is closed
	commitAll                   // and end all leases: W is recalled
)

// leaseIdle is how long a chunk of an open file keeps its lease without a write.
const leaseIdle = 5e9

// claim waits until no other Commit or truncation of the node is in work and
// keeps them out. mu is held.
func (n *node) claim(ctx context.Context) error {
	d := n.file()
	for d.committing {
		if err := n.await(ctx); err != nil {
			return err
		}
	}
	d.committing = true
	return nil
}

// unclaim lets the next one in. mu is held.
func (n *node) unclaim() {
	n.data.committing, n.data.sealed = false, false
	n.cond.Broadcast()
}

// commit sends one Commit for nodes that the caller has claimed, and unclaims
// them. What it reports as written must be durable already. The result has an
// error for each node.
func (c *Client) commit(ctx context.Context, nodes []*node, how commitHow) []error {
	req := &wire.Commit{}
	errs := make([]error, len(nodes))
	var sent []int
	for i, n := range nodes {
		n.mu.Lock()
		if f, ok := n.compose(how); ok {
			req.Files = append(req.Files, f)
			sent = append(sent, i)
		} else {
			n.unclaim()
		}
		n.mu.Unlock()
	}
	if len(sent) == 0 {
		return errs
	}
	c.met.commits.Inc()
	c.met.committed.Add(len(sent))
	var reply wire.CommitReply
	err := c.ses.do(context.WithoutCancel(ctx), req, &reply, func(k *call, err error) {
		for j, i := range sent {
			errs[i] = nodes[i].committed(&req.Files[j], &reply, j, err)
		}
	})
	if err == nil {
		return errs
	}
	// Nobody installs an answer any more when the client is closed, and somebody
	// may still do so later when the caller's patience was over.
	failed := make([]error, len(nodes))
	for _, i := range sent {
		failed[i] = err
		if c.ctx.Err() != nil {
			nodes[i].mu.Lock()
			nodes[i].unclaim()
			nodes[i].mu.Unlock()
		}
	}
	return failed
}

// compose says what to tell the master of n; false: nothing. mu is held.
func (n *node) compose(how commitHow) (wire.CommitFile, bool) {
	d := n.data
	f := wire.CommitFile{
		Ino: n.ino, Size: n.attr.Size, Mtime: n.attr.Mtime, Kill: d.kill, Ctime: n.attr.Ctime,
		Sets: d.sets, Mode: n.attr.Mode, Uid: n.attr.Uid, Gid: n.attr.Gid, Atime: n.attr.Atime,
	}
	if n.dead || n.making || !n.holdsW() || d.widowed {
		return f, false
	}
	closed := n.closed()
	drop := how == commitIdle && closed && n.recalled&inode.W == 0
	useful := d.changed || d.kill || d.sets != 0
	for _, w := range d.chunks {
		if w.trimmed && len(w.sent) == 0 {
			f.Trimmed = append(f.Trimmed, w.index)
			useful = true
		}
		if !w.idle() {
			drop = false
			continue
		}
		if how == commitSize || how == commitIdle && !closed && n.c.now()-w.used < leaseIdle {
			continue
		}
		if w.torn {
			// Its copies may differ: the master compares them when it finds that the
			// lease was left behind.
			delete(d.chunks, w.index)
		} else if w.held {
			w.ending = true
			f.Ended = append(f.Ended, wire.LeaseEnd{
				Index: w.index, Chunk: w.loc.Chunk, Version: w.loc.Version, Written: w.touched,
			})
			useful = true
		}
	}
	if drop {
		f.DropW, d.sealed, useful = true, true, true
	}
	if useful {
		d.changed, d.grown, d.kill, d.sets = false, false, false, 0
		d.telling, d.intents = append(d.telling, d.intents...), nil
	}
	return f, useful
}

// committed takes the master's answer about one file, on the read goroutine,
// and unclaims the node.
func (n *node) committed(f *wire.CommitFile, reply *wire.CommitReply, i int, err error) error {
	if err == nil {
		if i >= len(reply.Codes) || i >= len(reply.Attrs) {
			err = status.Errorf(status.BadMessage, "commit of inode %d was not answered", n.ino)
		} else if code := status.Code(reply.Codes[i]); code != status.OK {
			err = status.Errorf(code, "commit of inode %d", n.ino)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	defer n.unclaim()
	d := n.data
	for _, e := range f.Ended {
		d.ended(e, err == nil)
	}
	telling := d.telling
	d.telling = nil
	if err == nil || n.dead || gone(err) {
		d.told(telling)
	} else {
		d.sets |= f.Sets
		d.intents = append(telling, d.intents...)
	}
	if f.DropW && n.holdsW() { // else it went with a connection meanwhile
		n.rights = n.rights&^inode.W | inode.R
	}
	switch {
	case n.dead:
		return nil
	case gone(err):
		n.bury()
		return nil // nothing is left that could be told
	case status.CodeOf(err) == status.NoLease:
		// W is not ours in the master's eyes, or the inode is no more: remarry finds out.
		n.rights &^= inode.W
		d.changed, d.grown = true, true
		d.widow()
		return err
	case err != nil:
		d.err, d.errs = err, d.errs+1
		n.c.log.Error("the master refused a commit", "inode", uint64(n.ino), "err", err)
		if f.DropW {
			n.rights &^= inode.R
			n.dropR()
		}
		return err
	}
	for _, idx := range f.Trimmed {
		if w := d.chunks[idx]; w != nil {
			w.trimmed = false
		}
	}
	if !d.widowed {
		d.left = nil
	}
	a := &reply.Attrs[i]
	d.baseSize, d.baseTime, d.exposed = a.Size, a.Mtime, n.attr.Size > a.Size
	d.committing = false // the master's view is the newer one, but for what has changed since
	blocks := n.attr.Blocks
	if n.learn(a); n.attr.Blocks != blocks {
		n.tellAttr() // a chunk that was made ahead is gone
	}
	return nil
}

// ended takes away a lease that a Commit has ended.
func (d *fileData) ended(e wire.LeaseEnd, ok bool) {
	w := d.chunks[e.Index]
	if w == nil || !w.ending || w.loc.Chunk != e.Chunk {
		return
	}
	w.ending, w.held, w.trimmed = false, false, false
	if ok && e.Written && w.loc.Version == e.Version {
		loc := w.loc
		loc.Min = loc.Version
		d.layout[e.Index] = loc
	} else {
		delete(d.layout, e.Index)
	}
	if w.idle() {
		delete(d.chunks, e.Index)
	} else {
		w.kick()
	}
}

// flush sends everything that was written so far and waits until all replicas
// have accepted it. mu is held before and after.
func (n *node) flush(ctx context.Context) error {
	d := n.data
	if d == nil {
		return nil
	}
	stamp := d.stamp
	for _, w := range d.chunks {
		for _, e := range w.dirty {
			e.ready = true
		}
	}
	// What is to be done for one chunk is done here, without waking a goroutine: mostly there is no other.
	var mine *leased
	for _, w := range d.chunks {
		switch {
		case len(w.dirty) == 0 || w.working:
		case mine == nil:
			mine = w
		default:
			w.kick()
		}
	}
	if mine != nil {
		Waits(ctx)
		mine.working = true
		mine.work()
	}
	for !n.dead && !d.settled(stamp) {
		if err := n.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// only returns the one chunk that is in work, or nil.
func (d *fileData) only() *leased {
	if len(d.chunks) != 1 {
		return nil
	}
	for _, w := range d.chunks {
		return w
	}
	return nil
}

// flushDurable is flush until all replicas have it on disk. mu is held before and after.
func (n *node) flushDurable(ctx context.Context) error {
	d := n.data
	stamp := d.stamp
	for {
		if err := n.flush(ctx); err != nil {
			return err
		}
		if n.dead || d.durable(stamp) {
			return nil
		}
		n.mu.Unlock()
		n.c.harden([]*node{n})
		n.mu.Lock()
		if err := ctx.Err(); err != nil {
			return ctxError(ctx)
		}
		if n.c.ctx.Err() != nil {
			return status.Errorf(status.Closed, "the client is closed")
		}
	}
}

// durable says whether everything written up to stamp is on the disks.
func (d *fileData) durable(stamp uint64) bool {
	for _, w := range d.chunks {
		for _, e := range w.dirty {
			if e.stamp <= stamp {
				return false
			}
		}
		for _, e := range w.sent {
			if e.stamp <= stamp && !e.durable {
				return false
			}
		}
	}
	return true
}

// sync makes the file durable, data and (unless nothing but times has changed
// and datasync is set) attributes. mu is held before and after.
func (n *node) sync(ctx context.Context, datasync bool) error {
	for {
		err := n.syncOnce(ctx, datasync)
		if status.CodeOf(err) != status.NoLease {
			return err
		}
		for n.data.widowed {
			if err := n.await(ctx); err != nil {
				return err
			}
		}
	}
}

func (n *node) syncOnce(ctx context.Context, datasync bool) error {
	if err := n.awaitLogged(ctx); err != nil { // its name, or that it exists
		return err
	}
	d := n.data
	if d == nil {
		return nil
	}
	d.notesSync()
	// A few last writes are told to be durable at once; when others are on
	// their way, one Sync for all of them is needed anyhow.
	bytes, count, weak := d.unwritten()
	if !weak && count <= 16 && bytes <= blockSize {
		for _, w := range d.chunks {
			for _, e := range w.dirty {
				e.sync = true
			}
		}
	}
	times := n.commitTimes(datasync)
	err := n.flushDurable(ctx)
	if times != nil {
		n.mu.Unlock()
		e := <-times
		n.mu.Lock()
		if err == nil {
			err = e
		}
	}
	if err != nil {
		return err
	}
	for d.committing { // it may be about what we have to be sure of
		if err := n.await(ctx); err != nil {
			return err
		}
	}
	if n.dead || !d.grown && !d.kill && (datasync || !d.changed && d.sets == 0) {
		return nil
	}
	d.committing = true
	n.mu.Unlock()
	err = n.c.commit(ctx, []*node{n}, commitSize)[0]
	n.mu.Lock()
	return err
}

// commitTimes begins to commit a file of which the master lacks nothing but
// times, while its data is still on its way: overwritten bytes and the time of
// writing may become durable in any order. The channel has the result; nil:
// there is more to tell, or nothing. mu is held.
func (n *node) commitTimes(datasync bool) <-chan error {
	d := n.data
	if datasync || !d.changed || d.grown || d.kill || d.committing || d.widowed || n.dead || !n.holdsW() || n.attr.Size != d.baseSize {
		return nil
	}
	d.committing = true
	done := make(chan error, 1)
	if !n.c.spawn(func() { done <- n.c.commit(n.c.ctx, []*node{n}, commitSize)[0] }) {
		d.committing = false
		return nil
	}
	return done
}

// giveBack tells the master everything that was done under W, which has been
// recalled on all of nodes: nothing new can be written meanwhile. Files are
// written and committed together, since a listing by another mount recalls W on
// all that was just made.
func (c *Client) giveBack(nodes []*node) {
	slices.SortFunc(nodes, func(a, b *node) int { return cmp.Compare(a.ino, b.ino) }) // all claim in this order
	for c.ctx.Err() == nil {
		left := nodes[:0:0]
		for _, n := range nodes {
			n.mu.Lock()
			if !n.dead && !n.data.widowed && n.data.pending() {
				n.data.push()
				left = append(left, n)
			}
			n.mu.Unlock()
		}
		if len(left) == 0 {
			return
		}
		nodes = left
		for _, n := range nodes {
			n.mu.Lock()
			_ = n.flush(c.ctx) // fails only when the client is closed
			n.mu.Unlock()
		}
		c.harden(nodes)
		var ready []*node
		for _, n := range nodes {
			n.mu.Lock()
			if n.claim(c.ctx) == nil {
				if n.data.atRest() {
					ready = append(ready, n)
				} else {
					n.unclaim()
				}
			}
			n.mu.Unlock()
		}
		c.commit(c.ctx, ready, commitAll)
		if len(ready) < len(nodes) {
			c.sleep(c.ctx, time.Millisecond)
		}
	}
}

// atRest says whether every chunk is durable and nobody works on it. mu is held.
func (d *fileData) atRest() bool {
	for _, w := range d.chunks {
		if !w.idle() {
			return false
		}
	}
	return true
}

// push begins to send everything that was written. mu is held.
func (d *fileData) push() {
	for _, w := range d.chunks {
		for _, e := range w.dirty {
			e.ready = true
		}
		if len(w.dirty) > 0 {
			w.kick()
		}
	}
}

// pieces calls each with the runs of off..off+n that lie in one chunk.
func pieces(off, n int64, each func(index uint32, off, n uint32)) {
	for n > 0 {
		in := uint32(off % chunk.Size)
		m := min(n, int64(chunk.Size-in))
		each(uint32(off/chunk.Size), in, uint32(m))
		off += m
		n -= m
	}
}
