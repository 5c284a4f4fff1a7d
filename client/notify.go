package client

import (
	"github.com/varvefs/varve/inode"
)

// notifier returns who keeps copies of what this client answers, or nil.
func (c *Client) notifier() Notifier {
	if b := c.notify.Load(); b != nil {
		return b.n
	}
	return nil
}

type notifierBox struct{ n Notifier }

// SetNotifier replaces Config.Notify.
func (c *Client) SetNotifier(n Notifier) { c.notify.Store(&notifierBox{n}) }

// notifyRecall makes the kernel forget what was recalled. It returns when that
// is done, except where the kernel waits for a request that may in turn wait
// for the answer to this recall: such an item is not waited for.
func (c *Client) notifyRecall(work []*recallWork) {
	t := c.notifier()
	if t == nil {
		return
	}
	for _, w := range work {
		n := w.n
		if len(w.names) == 0 && w.gone&(inode.R|inode.D) == 0 {
			continue // W only: what the kernel has is what we wrote
		}
		done := false
		n.pin()
		ok := c.spawn(func() {
			w.tell(t)
			n.mu.Lock()
			done = true
			n.cond.Broadcast()
			n.mu.Unlock()
			n.unpin()
		})
		if !ok {
			n.unpin()
			return
		}
		n.mu.Lock()
		for !done && n.waiters == 0 && (n.dir == nil || n.dir.busy == 0) {
			n.cond.Wait()
		}
		n.mu.Unlock()
	}
}

// tell runs in a goroutine of its own and may block.
func (w *recallWork) tell(t Notifier) {
	for _, name := range w.names {
		t.Entry(w.n.ino, name)
	}
	if w.gone&inode.D != 0 {
		w.n.tellNames(t)
	}
	if w.gone&inode.R == 0 {
		return
	}
	if w.paged {
		t.Data(w.n.ino)
	} else {
		t.Attr(w.n.ino)
	}
}

// tellNames makes the kernel forget the names in a directory that it may have.
func (n *node) tellNames(t Notifier) {
	n.mu.Lock()
	var names []string
	if n.dir != nil {
		names = n.dir.voided
		n.dir.voided = nil
	}
	n.mu.Unlock()
	for _, name := range names {
		t.Entry(n.ino, name)
	}
}

// forgetInKernel is for a node that lost rights with the connection.
func (c *Client) forgetInKernel(n *node) {
	t := c.notifier()
	if t == nil {
		return
	}
	n.tellNames(t)
	t.Data(n.ino)
}
