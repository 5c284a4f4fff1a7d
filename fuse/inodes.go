package fuse

import (
	"os"
	"slices"
	"sync"

	"github.com/varvefs/varve/inode"
)

const inodeShards = 32

// hugePage is the largest folio of the page cache. A request in work may hold
// the lock of one, which covers more than the request's own bytes.
const hugePage = 2 << 20

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

	mu      sync.Mutex
	cached  int              // handles that go through the page cache
	spans   []span           // READs and WRITEs of the page cache in work
	owners  map[owner]uint64 // lock owners and the handle they locked through last
	freeing int              // RELEASEs that free locks
	freed   chan struct{}    // closed when freeing is 0 again
	running bool             // an invalidation of the whole inode is in work
	waiting chan struct{}    // the next one, not begun
}

// span is a range of bytes.
type span struct{ off, end int64 }

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
		o.cached++
		o.mu.Unlock()
	}
	return o
}

// close takes a handle away.
func (t *inodes) close(o *openInode, cached bool) {
	if cached {
		o.mu.Lock()
		o.cached--
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

// pageCached says whether a handle of this inode goes through the page cache.
func (o *openInode) pageCached() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cached > 0
}

// begin notes I/O of the page cache: the kernel may hold the locks of its pages
// until it is answered. end takes the note away.
func (o *openInode) begin(s span) {
	o.mu.Lock()
	o.spans = append(o.spans, s)
	o.mu.Unlock()
}

func (o *openInode) end(s span) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if i := slices.Index(o.spans, s); i >= 0 {
		o.spans = slices.Delete(o.spans, i, i+1)
	}
}

// gaps returns the ranges that no I/O in work touches, rounded to unit bytes,
// and whether there is any such I/O. The last range has end 0: to the file's end.
func (o *openInode) gaps(unit int64) (free []span, busy bool) {
	o.mu.Lock()
	spans := slices.Clone(o.spans)
	o.mu.Unlock()
	slices.SortFunc(spans, func(a, b span) int {
		if a.off < b.off {
			return -1
		}
		return 1
	})
	pos := int64(0)
	for _, s := range spans {
		off, end := s.off/unit*unit, (s.end+unit-1)/unit*unit
		if off > pos {
			free = append(free, span{pos, off})
		}
		pos = max(pos, end)
	}
	return append(free, span{off: pos}), len(spans) > 0
}

// pageSize is the unit of the page cache.
var pageSize = int64(os.Getpagesize())

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
