package client

import (
	"slices"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// recallDesk takes the calls of a master on one connection.
type recallDesk struct {
	c     *Client
	ended chan struct{} // closed behind the last frame
}

// Opened does nothing: the session begins with SessionOpen.
func (d *recallDesk) Opened(*link.Conn) {}

// Closed notes that nothing comes any more.
func (d *recallDesk) Closed(*link.Conn, error) { close(d.ended) }

// Serve takes a call, on the read goroutine. A recalled right is unusable from
// here on; what must be done before the answer is done elsewhere.
func (d *recallDesk) Serve(_ *link.Conn, r *link.Request) {
	c := d.c
	var m wire.Recall
	if r.Kind != wire.KindRecall {
		r.Fail(status.Errorf(status.Unsupported, "a mount serves recalls only, not kind %#x", uint16(r.Kind)))
		r.Free()
		return
	}
	err := r.Decode(&m)
	r.Free()
	if err != nil {
		r.Fail(err)
		return
	}
	c.met.recalls.Add(len(m.Items))
	work := make([]*recallWork, len(m.Items))
	for i := range m.Items {
		work[i] = c.beginRecall(&m.Items[i])
	}
	if !c.spawn(func() { c.recall(r, work) }) {
		r.Fail(status.Errorf(status.Closed, "the client is closed"))
	}
}

// recallWork is one item of a recall on its way to the answer.
type recallWork struct {
	n     *node
	names []string
	gone  inode.Rights // bits that go
	wrote bool         // W was held
	paged bool         // the kernel may have pages
}

// beginRecall marks the rights as recalled.
func (c *Client) beginRecall(item *wire.RecallItem) *recallWork {
	n := c.table.get(item.Ino)
	n.mu.Lock()
	defer n.mu.Unlock()
	w := &recallWork{n: n, names: item.Names, paged: n.data != nil || n.dir == nil && !n.known}
	n.recalls++
	if len(item.Names) > 0 {
		if n.dir != nil {
			n.dir.changed(n, item.Names)
		}
		return w
	}
	if n.rights&inode.W != 0 && item.Keep&inode.R != 0 {
		n.rights |= inode.R
	}
	w.gone = (inode.R | inode.W | inode.D) &^ item.Keep
	w.wrote = n.rights&inode.W != 0
	n.recalled |= w.gone
	if w.gone&inode.D != 0 && n.dir != nil {
		n.dir.void(n)
	}
	n.cond.Broadcast()
	return w
}

// recall does what the answer waits for, and answers.
func (c *Client) recall(r *link.Request, work []*recallWork) {
	c.surrender(work)
	c.notifyRecall(work)
	reply := &wire.RecallReply{}
	for _, w := range work {
		n := w.n
		n.mu.Lock()
		n.rights &^= w.gone
		if n.opens > 0 {
			n.told = true
			reply.Open = append(reply.Open, n.ino)
		}
		n.mu.Unlock()
	}
	r.Reply(reply, nil, nil)
	mark := c.ses.mark()
	for _, w := range work {
		w.n.endRecall(w, mark)
		w.n.unpin()
	}
}

// surrender waits for the uses of what was recalled, tells the master what was
// done under it and forgets what was known by it.
func (c *Client) surrender(work []*recallWork) {
	var wrote []*node
	for _, w := range work {
		n := w.n
		n.mu.Lock()
		for w.gone&inode.W != 0 && (n.writers > 0 || n.dir != nil && n.early > 0) || w.gone&inode.R != 0 && n.readers > 0 {
			c.early.push()
			n.cond.Wait()
		}
		if w.wrote && w.gone&inode.W != 0 && n.data != nil && !slices.Contains(wrote, n) {
			wrote = append(wrote, n)
		}
		n.mu.Unlock()
	}
	c.giveBack(wrote)
	for _, w := range work {
		if w.gone&inode.R != 0 {
			w.n.mu.Lock()
			w.n.dropR()
			w.n.mu.Unlock()
		}
	}
}

// endRecall makes the node usable again, for requests made from now on.
func (n *node) endRecall(w *recallWork, mark uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.recalls--
	if w.gone != 0 {
		n.quarantine = mark
	}
	if n.recalls == 0 {
		n.recalled = 0
	}
	n.cond.Broadcast()
}
