package fuse

import (
	"sync"

	"github.com/varvefs/varve/inode"
)

const inodeShards = 32

// inodes holds what must be known of each inode that is open in this mount.
// Shared by the request handlers and the Notifier.
type inodes struct {
	shards [inodeShards]inodeShard
}

type inodeShard struct {
	mu sync.Mutex
	m  map[inode.Ino]*openInode
}

// openInode is one inode with at least one handle.
type openInode struct {
	ino  inode.Ino
	refs int // handles; guarded by the shard's mu

	mu    sync.Mutex
	pages pages

	owners   map[owner]uint64 // lock owners and the handle they locked through last
	freeing  int              // RELEASEs that free locks
	freeings uint64           // those that have done so
	freed    chan struct{}    // closed by the next one; nil: nobody waits

	running bool          // an invalidation of the whole inode is in work
	waiting chan struct{} // the next one, not begun
}

// owner is a lock owner as the kernel names it. The flock of an open file and
// its OFD locks have the same number.
type owner struct {
	id    uint64
	flock bool
}

func newInodes() *inodes {
	t := &inodes{}
	for i := range t.shards {
		t.shards[i].m = make(map[inode.Ino]*openInode)
	}
	return t
}

func (t *inodes) shard(ino inode.Ino) *inodeShard { return &t.shards[uint64(ino)%inodeShards] }

// open adds a handle to ino.
func (t *inodes) open(ino inode.Ino, cached bool) *openInode {
	s := t.shard(ino)
	s.mu.Lock()
	o := s.m[ino]
	if o == nil {
		o = &openInode{ino: ino}
		s.m[ino] = o
	}
	o.refs++
	s.mu.Unlock()
	if cached {
		o.mu.Lock()
		o.pages.cached++
		o.mu.Unlock()
	}
	return o
}

// close takes a handle away.
func (t *inodes) close(o *openInode, cached bool) {
	if cached {
		o.mu.Lock()
		o.pages.cached--
		o.mu.Unlock()
	}
	s := t.shard(o.ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.refs--; o.refs == 0 {
		delete(s.m, o.ino)
	}
}

// get finds ino, nil when it is not open.
func (t *inodes) get(ino inode.Ino) *openInode {
	s := t.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[ino]
}

// once arranges that run is called after now, and returns a channel that is
// closed when it has returned. At most one run is in work for an inode: calls
// that come meanwhile share the next one.
func (o *openInode) once(run func()) <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.waiting != nil {
		return o.waiting
	}
	done := make(chan struct{})
	if o.running {
		o.waiting = done
		return done
	}
	o.running = true
	go o.runAll(run, done)
	return done
}

func (o *openInode) runAll(run func(), done chan struct{}) {
	for done != nil {
		run()
		close(done)
		o.mu.Lock()
		done, o.waiting = o.waiting, nil
		o.running = done != nil
		o.mu.Unlock()
	}
}
