package client

import (
	"time"

	"github.com/varvefs/varve/inode"
)

// contendedFor is how long the kernel may keep no names of a directory after
// another mount changed one: then there is nothing to take back.
const contendedFor = 2 * time.Second

// dirState is what is known of the names in one directory. It is guarded by
// the directory's node.mu and good only while right D is held.
type dirState struct {
	names    map[string]inode.Ino // 0: the name does not exist
	complete bool                 // what is not in names does not exist
	list     []listed             // the whole listing in the master's order; nil: not known
	parent   inode.Ino
	version  uint64   // raised by every change of names that was not in a reply to ReadDir
	busy     int      // operations in work that hold the directory's lock in the kernel
	voided   []string // names that the kernel may know and that are no longer backed
	hot      int64    // monotonic: until then the kernel gets no names
	refused  int64    // monotonic: until then W is not asked for
	lent     int64    // monotonic: until then the kernel may have names
	listing  int      // ReadDirs under way: no name may change early
	changes  uint64   // early changes so far
	used     int64    // monotonic: of the last one
}

// listed is one entry of a listing.
type listed struct {
	name   string
	cookie uint64
	ino    inode.Ino
}

// directory returns the state of n as a directory. mu is held.
func (n *node) directory() *dirState {
	if n.dir == nil {
		n.dir = &dirState{names: make(map[string]inode.Ino)}
	}
	return n.dir
}

// put notes what a name means; 0: nothing. It is void without right D. n.mu is held.
func (d *dirState) put(n *node, name string, ino inode.Ino) {
	if !n.can(inode.D) {
		return
	}
	old, known := d.names[name]
	if !known {
		n.c.table.names.Add(1)
	}
	d.names[name] = ino
	if known && old == ino {
		return
	}
	if known || !d.complete || ino != 0 {
		d.list = nil
		d.version++
	}
}

// look returns what is known of a name: ok false is nothing. n.mu is held.
func (d *dirState) look(n *node, name string) (ino inode.Ino, ok bool) {
	if !n.can(inode.D) {
		return 0, false
	}
	if ino, ok = d.names[name]; ok {
		return ino, true
	}
	return 0, d.complete
}

// changed forgets names that another mount has changed. n.mu is held.
func (d *dirState) changed(n *node, names []string) {
	for _, name := range names {
		if _, ok := d.names[name]; ok {
			delete(d.names, name)
			n.c.table.names.Add(-1)
		}
	}
	d.complete, d.list = false, nil
	d.version++
	d.hot = n.c.now() + int64(contendedFor)
}

// void forgets all names. n.mu is held.
func (d *dirState) void(n *node) {
	if n.c.notifier() != nil {
		for name := range d.names {
			d.voided = append(d.voided, name)
		}
	}
	n.c.table.names.Add(-int64(len(d.names)))
	clear(d.names)
	d.complete, d.list = false, nil
	d.version++
}

// ttl is how long the kernel may keep a name of this directory. n.mu is held.
func (d *dirState) ttl(n *node) time.Duration {
	if !n.can(inode.D) || n.c.now() < d.hot {
		return 0
	}
	ttl := n.c.ttl()
	d.lent = max(d.lent, n.c.now()+int64(ttl))
	return ttl
}

// begin and end bracket an operation during which the kernel holds the
// directory's lock. While one is in work no recall waits for the kernel to
// forget names of the directory.
func (c *Client) begin(dir inode.Ino) *node {
	n := c.table.get(dir)
	n.mu.Lock()
	n.directory().busy++
	n.cond.Broadcast()
	n.mu.Unlock()
	return n
}

func (n *node) end() {
	n.mu.Lock()
	n.dir.busy--
	n.mu.Unlock()
	n.unpin()
}
