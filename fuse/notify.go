package fuse

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/inode"
)

// How long a notification waits for requests of its own kernel.
const (
	tick = 500 * time.Microsecond
	// lookPatience bounds the wait behind LOOKUPs. They end by themselves.
	lookPatience = 20 * time.Millisecond
	// pagePatience is after what time the pages of requests in work are left out.
	pagePatience = 2 * time.Millisecond
	// patience is when a notification that the kernel does not take is left to
	// itself with a warning.
	patience = 2 * time.Second
)

// Notifier tells the kernel what to forget. It exists before the client, which
// is given it as its client.Notifier, and comes to life with Mount; until then
// the kernel knows nothing and there is nothing to say.
//
// A notification takes locks in the kernel which are also held while a request
// is with us, and that request may be waiting for a mount which waits for this
// very notification. So none waits without end:
//
// Entry needs the directory's lock. While a CREATE, UNLINK or the like of this
// mount is in work there, it returns and the name is expired right behind that
// request. From its first notification on a directory is "hot": its entries are
// answered with TTL 0, so that there is nothing to wait for the next time.
//
// Data needs the locks of pages. When it is stuck it drops all pages but those
// of READs and WRITEs in work, whose pages it drops when they are done. A page
// that stays locked through a WRITE is not up to date and never read from.
type Notifier struct {
	log    *slog.Logger
	nodes  nodes
	dirs   *dirs
	inodes *inodes
	ch     atomic.Pointer[channel] // nil before Mount and after the unmount
}

// NewNotifier makes a Notifier for one mount.
func NewNotifier() *Notifier { return &Notifier{dirs: newDirs(), inodes: newInodes()} }

// attach brings n to life.
func (n *Notifier) attach(ch *channel, root inode.Ino, log *slog.Logger) {
	n.nodes, n.log = nodes{root: root}, log
	n.ch.Store(ch)
}

// detach ends it.
func (n *Notifier) detach() { n.ch.Store(nil) }

// Entry makes the kernel look name up again.
func (n *Notifier) Entry(parent inode.Ino, name string) {
	if n.ch.Load() == nil {
		return
	}
	x, start, twice := n.dirs.changed(parent, name)
	if x == nil {
		return
	}
	if start {
		go n.expire(parent)
	}
	if twice {
		time.AfterFunc(replyGrace, func() { n.send(encodeEntry(n.nodes.node(parent), name, expireOnly)) })
	}
	n.awaitExpiry(parent, x)
}

// awaitExpiry waits until the kernel has taken x or a request in the same
// directory stands in the way.
func (n *Notifier) awaitExpiry(parent inode.Ino, x *expiry) {
	select {
	case <-x.done:
		return
	default:
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for begin := time.Now(); ; {
		select {
		case <-x.done:
			return
		case <-ticker.C:
		}
		changing, looking := n.dirs.inWork(parent)
		waited := time.Since(begin)
		if changing || (looking && waited > lookPatience) {
			return
		}
		if waited > patience {
			n.log.Warn("kernel does not take a notification", "dir", parent, "name", x.name)
			return
		}
	}
}

// expire empties the queue of a directory.
func (n *Notifier) expire(parent inode.Ino) {
	for x := n.dirs.next(parent); x != nil; x = n.dirs.next(parent) {
		n.send(encodeEntry(n.nodes.node(parent), x.name, expireOnly))
		close(x.done)
	}
}

// Attr makes the kernel ask for the attributes and access lists again. It never blocks.
func (n *Notifier) Attr(ino inode.Ino) { n.send(encodeInode(n.nodes.node(ino), -1, 0)) }

// Data makes the kernel ask for attributes and bytes again.
func (n *Notifier) Data(ino inode.Ino) {
	if n.ch.Load() == nil {
		return
	}
	o := n.inodes.get(ino)
	if o == nil {
		n.pages(ino, 0, wholeFile)
		return
	}
	whole := o.once(func() { n.pages(ino, 0, wholeFile) })
	select {
	case <-whole:
		return
	case <-time.After(pagePatience):
	}
	n.dataAround(o, whole)
}

// dataAround drops the pages that requests in work do not touch; whole is
// closed when all are dropped.
func (n *Notifier) dataAround(o *openInode, whole <-chan struct{}) {
	unit := pageSize
	for begin := time.Now(); time.Since(begin) < patience; unit = hugePage {
		around := make(chan struct{})
		if free, busy := o.gaps(unit); busy {
			go func() {
				defer close(around)
				for _, s := range free {
					n.pages(o.ino, s.off, max(s.end-s.off, wholeFile))
				}
			}()
		}
		select {
		case <-whole:
			return
		case <-around:
			return
		case <-time.After(5 * pagePatience):
		}
	}
	n.log.Warn("kernel does not take a notification", "inode", o.ino)
}

// pages invalidates attributes and the pages of length bytes at off.
func (n *Notifier) pages(ino inode.Ino, off, length int64) {
	n.send(encodeInode(n.nodes.node(ino), off, length))
}

func (n *Notifier) send(b []byte) {
	ch := n.ch.Load()
	if ch == nil {
		return
	}
	err := ch.send(b)
	if err == nil || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOTCONN) {
		return // an unmounted kernel has nothing to forget
	}
	n.log.Debug("notification refused by the kernel", "err", err)
}
