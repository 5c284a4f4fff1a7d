package fuse

import (
	"errors"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/inode"
)

// How long Data waits for requests of its own kernel.
const (
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
// very notification. So none waits for a request:
//
// To expire an entry the kernel needs the directory's lock, which it holds while
// a CREATE, UNLINK or the like of this mount is in work there. Entry makes the
// directory's attributes invalid, which needs no lock, and has the entry expired
// when the lock is free. Until that is done the attributes are held back (see
// dirs.awaitExpired), and without them the kernel follows no name in the
// directory. From then on the directory is "hot": its entries are answered with
// TTL 0, so that the next change has nothing to expire.
//
// Data needs the locks of pages. When it is stuck it drops all pages but those
// that are locked for READs and WRITEs in work, which it drops when they are
// done. Nobody reads a locked page; a READ that has fetched its bytes before the
// drop fetches them again (see fileSystem.Read).
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

// Entry makes the kernel look name up again. It never blocks; when it returns,
// nobody who begins to look for the name gets the old answer.
func (n *Notifier) Entry(parent inode.Ino, name string) {
	if n.ch.Load() == nil {
		return
	}
	pending, start, later := n.dirs.changed(parent, name)
	n.log.Debug("name changed elsewhere", "dir", parent, "name", name, "cached", pending)
	if !pending {
		return
	}
	n.Attr(parent)
	if start {
		go n.expire(parent)
	}
	if later {
		time.AfterFunc(replyGrace, func() {
			if n.dirs.again(parent, name) {
				n.expire(parent)
			}
		})
	}
}

// expire empties the queue of a directory.
func (n *Notifier) expire(parent inode.Ino) {
	for name, ok := n.dirs.next(parent, 0); ok; name, ok = n.dirs.next(parent, 1) {
		n.send(encodeEntry(n.nodes.node(parent), name, expireOnly))
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
	answers := o.refetch()
	whole := o.once(func() { n.drop(o, 0, wholeFile) })
	if within(pagePatience, whole) {
		return
	}
	for _, r := range answers {
		<-r.done // its page is unlocked with the answer, and old
	}
	// Each time another request may have come into the way.
	for _, unit := range []int64{pageSize, pageSize, hugePage, hugePage} {
		around := make(chan struct{})
		go func() {
			defer close(around)
			n.dataAround(o, unit, whole)
		}()
		if within(5*pagePatience, around) {
			return
		}
	}
	if !within(patience, whole) {
		n.log.Warn("kernel does not take a notification", "inode", o.ino)
	}
}

// dataAround drops the pages of o that no request in work keeps locked; whole
// is closed when all are dropped.
func (n *Notifier) dataAround(o *openInode, unit int64, whole <-chan struct{}) {
	free, locked := o.gaps(unit)
	if len(locked) == 0 {
		<-whole // who is in the way is on its way to us
		return
	}
	for _, s := range free {
		n.drop(o, s.off, max(s.end-s.off, wholeFile))
	}
	// Those that may be locked, but need not be: in goroutines that end when
	// the requests do.
	for _, s := range locked {
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.drop(o, s.off, s.end-s.off)
		}()
		within(lockedPatience, done)
	}
}

// lockedPatience is how long the drop of a page that is not locked may take.
const lockedPatience = 200 * time.Microsecond

// within waits for done, but not longer than d.
func within(d time.Duration, done <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

// pages invalidates attributes and the pages of length bytes at off.
func (n *Notifier) pages(ino inode.Ino, off, length int64) {
	n.send(encodeInode(n.nodes.node(ino), off, length))
}

// drop is pages of an inode that is open.
func (n *Notifier) drop(o *openInode, off, length int64) {
	begun := o.beginDrop()
	n.pages(o.ino, off, length)
	end := off + length
	if length == wholeFile {
		end = math.MaxInt64
	}
	o.endDrop(begun, span{off, end})
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
