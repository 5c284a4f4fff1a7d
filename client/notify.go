package client

import (
	"context"

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
// is done. The kernel may be waiting for a request that in turn waits for the
// answer to this recall; a Notifier does not wait for such a request.
func (c *Client) notifyRecall(work []*recallWork) {
	t := c.notifier()
	if t == nil {
		return
	}
	for _, w := range work {
		w.tell(t)
	}
}

// tell says what goes with this item. When only W goes, what the kernel has is
// what we wrote.
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

// tellAttr makes the kernel ask for the attributes again. mu is held.
func (n *node) tellAttr() {
	if t := n.c.notifier(); t != nil {
		n.c.spawn(func() { t.Attr(n.ino) })
	}
}

// tellUnheard makes the kernel ask for the attributes of inodes that a change of names has changed, too, if
// the program was killed for which it was made: the kernel knows only the names, and not what became of them.
func (c *Client) tellUnheard(ctx context.Context, err error, inos ...inode.Ino) {
	t := c.notifier()
	if err != nil || !doomed(ctx) || t == nil {
		return
	}
	for _, ino := range inos {
		if ino != 0 {
			c.spawn(func() { t.Attr(ino) })
		}
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
