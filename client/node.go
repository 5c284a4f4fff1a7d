package client

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
)

// node is what the client knows of one inode. It stays in the table while it is
// pinned: by operations in work, open files, unwritten data and recalls.
type node struct {
	c    *Client
	ino  inode.Ino
	pins atomic.Int32 // from 0 to 1 only under table.mu

	links[node] // guarded by table.mu

	mu   sync.Mutex
	cond sync.Cond // anything below has changed

	known  bool       // attr was filled under a right that is still held
	attr   inode.Attr // with the local changes that W allows
	rights inode.Rights

	// Of rights on their way out. recalled are those whose recall is not yet
	// answered. No reply to a call made before quarantine brings any.
	recalled   inode.Rights
	recalls    int
	quarantine uint64

	asking  inode.Rights // an Acquire is in work
	waiters int          // operations that wait for rights
	readers int          // uses of R
	writers int          // uses of W
	frozen  bool         // a truncation has the file for itself

	early  int   // early changes that speak of it and are not logged yet
	making bool  // one of them makes it
	failed error // the last early change in this directory that was lost; for Dir.Sync

	opens     int   // Files
	told      bool  // the master believes that it is open here
	orphan    bool  // no name is left
	limbo     bool  // without a name and not open here: it is asked whether it still exists
	linger    int64 // monotonic: until then an inode without a name can be opened
	dead      bool  // it exists no more
	removing  int   // Removes in work that told the master it is not open
	releasing bool  // a Release that says so is in work
	keep      bool  // the kernel's pages are as good as what is read now

	target []byte
	xattrs map[string][]byte // nil value: absent
	xnames []byte
	listed bool // xnames is known

	dir  *dirState // of a directory
	data *fileData // of a file that was read or written
}

// can says whether right r may be used now. mu is held.
func (n *node) can(r inode.Rights) bool {
	have := n.rights &^ n.recalled
	if have&inode.W != 0 {
		have |= inode.R
	}
	return have&r == r && n.c.ses.alive()
}

// pin keeps a node that is already pinned.
func (n *node) pin() *node {
	if n.pins.Add(1) < 2 {
		panic("BUG: a node that is not pinned is pinned again")
	}
	return n
}

func (n *node) unpin() {
	if n.pins.Add(-1) < 0 {
		panic("BUG: a node is unpinned twice")
	}
}

// await releases mu until something has changed or ctx is over. mu is held.
func (n *node) await(ctx context.Context) error {
	if err := n.c.ctx.Err(); err != nil {
		return status.Errorf(status.Closed, "the client is closed")
	}
	Waits(ctx)
	if ctx.Done() == nil {
		n.cond.Wait()
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		n.mu.Lock()
		n.cond.Broadcast()
		n.mu.Unlock()
	})
	n.cond.Wait()
	stop()
	if ctx.Err() != nil {
		return ctxError(ctx)
	}
	return nil
}

// table is the bounded set of nodes, in the order of their last use.
type table struct {
	c     *Client
	limit int

	mu    sync.Mutex
	nodes map[inode.Ino]*node
	byUse lru[node]
	names atomic.Int64 // names cached in all directories
}

func newTable(c *Client, limit int) *table {
	return &table{
		c: c, limit: limit, nodes: make(map[inode.Ino]*node),
		byUse: lru[node]{of: func(n *node) *links[node] { return &n.links }},
	}
}

// get returns the node of ino, made if need be, and pins it.
func (t *table) get(ino inode.Ino) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[ino]
	if n == nil {
		n = &node{c: t.c, ino: ino}
		n.cond.L = &n.mu
		t.nodes[ino] = n
		t.byUse.front(n)
	} else if n != t.byUse.newest {
		t.byUse.unlink(n)
		t.byUse.front(n)
	}
	n.pins.Add(1)
	if len(t.nodes) > t.limit || t.names.Load() > 4*int64(t.limit) {
		t.evict()
	}
	return n
}

// size is the number of nodes.
func (t *table) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.nodes)
}

// find returns the node of ino pinned, or nil.
func (t *table) find(ino inode.Ino) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[ino]
	if n != nil {
		n.pins.Add(1)
	}
	return n
}

// evict forgets a few of the nodes that were not used for longest. Their rights
// stay with the master: a recall of an unknown inode still tells the kernel.
func (t *table) evict() {
	n := t.byUse.oldest
	for range 16 {
		if n == nil {
			return
		}
		next := n.newer
		t.byUse.unlink(n)
		if n.pins.Load() > 0 || n.dir != nil && n.dir.lent > t.c.now() {
			// It is in use, or a recall must be able to tell the kernel its names.
			t.byUse.front(n)
		} else {
			delete(t.nodes, n.ino)
			if n.dir != nil {
				t.names.Add(-int64(len(n.dir.names)))
			}
			n.forgetCached()
		}
		n = next
	}
}

// all returns every node, pinned, those used last first.
func (t *table) all() []*node {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*node, 0, len(t.nodes))
	for n := t.byUse.newest; n != nil; n = n.older {
		n.pins.Add(1)
		list = append(list, n)
	}
	return list
}
