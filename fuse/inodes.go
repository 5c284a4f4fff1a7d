package fuse

import (
	"cmp"
	"os"
	"slices"
	"sync"
	"time"

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

	mu     sync.Mutex
	cached int       // handles that go through the page cache
	reads  []*pageIO // of the page cache, in work
	writes []*pageIO
	drops  uint64    // invalidations of pages that have begun
	drop   time.Time // when the last one did
	read   time.Time // when the last READ ended

	owners   map[owner]uint64 // lock owners and the handle they locked through last
	freeing  int              // RELEASEs that free locks
	freeings uint64           // those that have done so
	freed    chan struct{}    // closed by the next one; nil: nobody waits

	running bool          // an invalidation of the whole inode is in work
	waiting chan struct{} // the next one, not begun
}

// span is a range of bytes.
type span struct{ off, end int64 }

// pageIO is one READ or WRITE of the page cache.
type pageIO struct {
	span
	begun time.Time     // of a WRITE
	drops uint64        // openInode.drops when it began
	done  chan struct{} // of a WRITE: closed at its end
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

// beginRead notes a READ of the page cache, for which the kernel keeps its pages
// locked. It returns when the WRITEs in the same bytes that are in work have
// been carried out: the pages which they wrote to may have been dropped since,
// and with older bytes the reader would not find what it has just written.
func (o *openInode) beginRead(s span) *pageIO {
	io := &pageIO{span: s}
	o.mu.Lock()
	o.reads = append(o.reads, io)
	var before []*pageIO
	for _, w := range o.writes {
		if w.off < s.end && s.off < w.end {
			before = append(before, w)
		}
	}
	o.mu.Unlock()
	for _, w := range before {
		<-w.done
	}
	o.renew(io)
	return io
}

// renew notes that bytes are fetched from now on; it says whether pages were
// dropped since the last time, so that what was fetched may be too old.
func (o *openInode) renew(io *pageIO) (old bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	old = io.drops != o.drops
	io.drops = o.drops
	return old
}

func (o *openInode) endRead(io *pageIO) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reads = without(o.reads, io)
	o.read = time.Now()
}

// beginWrite notes a WRITE from the page cache.
func (o *openInode) beginWrite(s span) *pageIO {
	io := &pageIO{span: s, begun: time.Now(), done: make(chan struct{})}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writes = append(o.writes, io)
	return io
}

// endWrite says whether pages were dropped while the WRITE was in work or on its
// way from the kernel. Then a page of it may have been read again without it.
func (o *openInode) endWrite(io *pageIO) (dropped bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writes = without(o.writes, io)
	close(io.done)
	return !o.drop.IsZero() && o.drop.After(io.begun.Add(-replyGrace))
}

func without(list []*pageIO, io *pageIO) []*pageIO {
	i := slices.Index(list, io)
	return slices.Delete(list, i, i+1)
}

// dropping notes that pages are dropped from now on. It says whether READs are
// in work or have just been answered, so that their pages may be locked.
func (o *openInode) dropping() (reading bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drops++
	o.drop = time.Now()
	return len(o.reads) > 0 || o.drop.Sub(o.read) < replyGrace
}

// gaps returns the ranges in which no page is locked for I/O in work, and those
// in which one may be, both in units of unit bytes. A READ locks all its pages;
// a WRITE only its last one, if that was not cached and is written to in part.
// The last free range has end 0: to the file's end.
func (o *openInode) gaps(unit int64) (free, locked []span) {
	o.mu.Lock()
	for _, r := range o.reads {
		locked = append(locked, r.span)
	}
	for _, w := range o.writes {
		locked = append(locked, span{max(w.end-1, w.off), w.end})
	}
	o.mu.Unlock()
	for i, s := range locked {
		locked[i] = span{s.off / unit * unit, (s.end + unit - 1) / unit * unit}
	}
	slices.SortFunc(locked, func(a, b span) int { return cmp.Compare(a.off, b.off) })
	pos := int64(0)
	for _, s := range locked {
		if s.off > pos {
			free = append(free, span{pos, s.off})
		}
		pos = max(pos, s.end)
	}
	return append(free, span{off: pos}), locked
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
