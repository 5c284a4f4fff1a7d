package fuse

import (
	"sync"
	"time"

	"github.com/varvefs/varve/inode"
)

// How long things last around a directory that other mounts change.
const (
	// maxTTL bounds every TTL given to the kernel, so that after this time
	// nothing that was answered before a directory became contended is in use.
	maxTTL = 60 * time.Second
	// hotFor is how long after another mount's change the entries of a
	// directory are answered with TTL 0: then there is nothing to expire, and
	// mounts that work in one directory do not wait for each other's kernels.
	hotFor = 5 * time.Second
	// replyGrace is how long the kernel may take to apply the reply of a LOOKUP.
	replyGrace = 5 * time.Millisecond
	// sweepAt is the least number of remembered directories in a shard at
	// which those that are neither busy nor hot are forgotten.
	sweepAt = 1024
)

const dirShards = 32

// dirs knows for each directory which requests of the kernel are in work and
// whether other mounts have changed it lately. A directory without either is
// not in it. Shared by the request handlers and the Notifier.
type dirs struct {
	shards [dirShards]dirShard
}

type dirShard struct {
	mu    sync.Mutex
	m     map[inode.Ino]*dirState
	limit int // len(m) at which the next sweep is due
}

// dirState is guarded by its shard's mu.
type dirState struct {
	changing int       // requests for which the kernel holds the directory's lock exclusively
	looking  int       // LOOKUPs and READDIRs in work
	lastLook time.Time // when one of them ended

	hotUntil time.Time // entries are answered with TTL 0 until then
	ttlUntil time.Time // entries answered before it became hot may be cached until then

	queue   []*expiry // names to expire, oldest first
	working bool      // a goroutine empties queue
}

// expiry is one name on its way to the kernel.
type expiry struct {
	name string
	done chan struct{} // closed when the kernel has taken it
}

func newDirs() *dirs {
	d := &dirs{}
	for i := range d.shards {
		d.shards[i].m = make(map[inode.Ino]*dirState)
		d.shards[i].limit = sweepAt
	}
	return d
}

func (d *dirs) shard(ino inode.Ino) *dirShard { return &d.shards[uint64(ino)%dirShards] }

// get finds or makes the entry of ino. The shard's mu must be held.
func (s *dirShard) get(ino inode.Ino) *dirState {
	e := s.m[ino]
	if e == nil {
		if len(s.m) >= s.limit {
			s.sweep(time.Now())
		}
		e = &dirState{}
		s.m[ino] = e
	}
	return e
}

// drop forgets ino when nothing is known about it any more.
func (s *dirShard) drop(ino inode.Ino, e *dirState, now time.Time) {
	if e.idle() && now.After(e.hotUntil) && now.Sub(e.lastLook) > replyGrace {
		delete(s.m, ino)
	}
}

func (e *dirState) idle() bool { return e.changing == 0 && e.looking == 0 && !e.working }

func (s *dirShard) sweep(now time.Time) {
	for ino, e := range s.m {
		s.drop(ino, e, now)
	}
	s.limit = max(sweepAt, 2*len(s.m)) // so that sweeping stays cheap for each entry
}

// beginChange notes a request that changes ino's entries; endChange ends it
// and says whether the entry in its reply may be cached.
func (d *dirs) beginChange(ino inode.Ino) {
	s := d.shard(ino)
	s.mu.Lock()
	s.get(ino).changing++
	s.mu.Unlock()
}

func (d *dirs) endChange(ino inode.Ino) (cacheable bool) {
	s := d.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.m[ino]
	e.changing--
	if e.idle() && e.hotUntil.IsZero() && e.lastLook.IsZero() {
		delete(s.m, ino)
		return true
	}
	now := time.Now()
	s.drop(ino, e, now)
	return now.After(e.hotUntil)
}

// beginLook and endLook are the same for a LOOKUP or a READDIRPLUS.
func (d *dirs) beginLook(ino inode.Ino) {
	s := d.shard(ino)
	s.mu.Lock()
	s.get(ino).looking++
	s.mu.Unlock()
}

func (d *dirs) endLook(ino inode.Ino) (cacheable bool) {
	s := d.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	e := s.m[ino]
	e.looking--
	e.lastLook = now
	return now.After(e.hotUntil)
}

// hot says whether another mount has changed ino lately.
func (d *dirs) hot(ino inode.Ino) bool {
	s := d.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.m[ino]
	return e != nil && time.Now().Before(e.hotUntil)
}

// changed notes that another mount has changed name in ino. It returns nil when
// the kernel cannot have the name, else an expiry that is in ino's queue; start
// tells the caller to run the goroutine that empties the queue; twice, that a
// reply which is on its way may bring the old entry back.
func (d *dirs) changed(ino inode.Ino, name string) (x *expiry, start, twice bool) {
	s := d.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	e := s.get(ino)
	if now.After(e.hotUntil) {
		e.ttlUntil = now.Add(maxTTL)
	}
	e.hotUntil = now.Add(hotFor)
	if now.After(e.ttlUntil) {
		return nil, false, false
	}
	x = &expiry{name: name, done: make(chan struct{})}
	e.queue = append(e.queue, x)
	start = !e.working
	e.working = true
	return x, start, now.Sub(e.lastLook) < replyGrace
}

// next takes the oldest name from ino's queue, or ends the goroutine's work.
func (d *dirs) next(ino inode.Ino) *expiry {
	s := d.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.m[ino]
	if len(e.queue) == 0 {
		e.queue, e.working = nil, false
		s.drop(ino, e, time.Now())
		return nil
	}
	x := e.queue[0]
	e.queue = e.queue[1:]
	return x
}

// inWork says what the kernel may be holding ino's lock for.
func (d *dirs) inWork(ino inode.Ino) (changing, looking bool) {
	s := d.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.m[ino]
	return e != nil && e.changing > 0, e != nil && e.looking > 0
}
