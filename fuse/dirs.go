package fuse

import (
	"context"
	"sync"
	"time"

	"github.com/varvefs/varve/client"
	"github.com/varvefs/varve/inode"
)

// How long things last around a directory that other mounts change.
const (
	// maxTTL bounds every TTL given to the kernel, so that after this time
	// nothing that was answered before a directory became hot is in use.
	maxTTL = 10 * time.Second
	// hotFor is how long after another mount's change the entries of a
	// directory are answered with TTL 0: then there is nothing to expire.
	hotFor = 5 * time.Second
	// replyGrace is how long the kernel may take to apply the reply of a LOOKUP.
	replyGrace = 5 * time.Millisecond
	// gatePatience is how long attributes of a directory are held back from
	// somebody who may himself be in the way of its expiries. Those take less
	// when nobody is.
	gatePatience = 300 * time.Microsecond
	// sweepAt is the least number of remembered directories in a shard at
	// which those that are neither busy nor hot are forgotten.
	sweepAt = 1024
)

const dirShards = 32

// dirs knows for each directory which requests of the kernel are in work,
// whether other mounts have changed it lately and which of its names the kernel
// has still to forget. A directory without any of these is not in it. Shared by
// the request handlers and the Notifier.
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
	looking  int       // LOOKUPs and READDIRPLUSes in work
	lastLook time.Time // when one of them ended

	hotUntil time.Time // entries are answered with TTL 0 until then
	ttlUntil time.Time // entries answered before it became hot may be cached until then

	pending int           // expiries that the kernel has not taken yet
	queue   []string      // names of those that are due, oldest first
	working bool          // a goroutine empties queue
	moved   chan struct{} // closed when changing or pending change; nil: nobody waits
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

func (e *dirState) idle() bool {
	return e.changing == 0 && e.looking == 0 && e.pending == 0 && !e.working
}

func (s *dirShard) sweep(now time.Time) {
	for ino, e := range s.m {
		s.drop(ino, e, now)
	}
	s.limit = max(sweepAt, 2*len(s.m)) // so that sweeping stays cheap for each entry
}

// wake tells those who wait that something has changed.
func (e *dirState) wake() {
	if e.moved != nil {
		close(e.moved)
		e.moved = nil
	}
}

// beginChange notes a request that changes ino's entries; endChange ends it
// and says whether the entry in its reply may be cached.
func (d *dirs) beginChange(ino inode.Ino) {
	s := d.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.get(ino)
	e.changing++
	e.wake()
}

func (d *dirs) endChange(ino inode.Ino) (cacheable bool) {
	s := d.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.m[ino]
	e.changing--
	e.wake()
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

// changed notes that another mount has changed name in ino. pending says that
// the kernel may have the old entry; it counts as pending until the kernel has
// taken the expiry (see next). start tells the caller to run the goroutine that
// empties ino's queue; later, that a reply which is on its way may bring the old
// entry back, so that again must be called when that reply has been applied.
func (d *dirs) changed(ino inode.Ino, name string) (pending, start, later bool) {
	s := d.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	e := s.get(ino)
	if now.After(e.hotUntil) {
		e.ttlUntil = now.Add(maxTTL + replyGrace)
		later = now.Sub(e.lastLook) < replyGrace
	}
	e.hotUntil = now.Add(hotFor)
	if now.After(e.ttlUntil) {
		return false, false, false
	}
	if later {
		e.pending++ // the expiry that again will put into the queue
	}
	e.pending++
	return true, e.enqueue(name), later
}

// again puts a name into the queue that changed has counted already.
func (d *dirs) again(ino inode.Ino, name string) (start bool) {
	s := d.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[ino].enqueue(name)
}

func (e *dirState) enqueue(name string) (start bool) {
	e.queue = append(e.queue, name)
	start = !e.working
	e.working = true
	return start
}

// next takes the oldest name from ino's queue; ok false ends the goroutine's
// work. done is the number of expiries that the kernel has taken meanwhile.
func (d *dirs) next(ino inode.Ino, done int) (name string, ok bool) {
	s := d.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.m[ino]
	e.pending -= done
	if done > 0 && e.pending == 0 {
		e.wake()
	}
	if len(e.queue) == 0 {
		e.queue, e.working = nil, false
		s.drop(ino, e, time.Now())
		return "", false
	}
	name = e.queue[0]
	e.queue = e.queue[1:]
	return name, true
}

// pending says whether the kernel has still to forget a name in ino. Until it
// has, ino's attributes must not be cached: see awaitExpired.
func (d *dirs) pending(ino inode.Ino) bool {
	s := d.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.m[ino]
	return e != nil && e.pending > 0
}

// awaitExpired returns when the kernel has forgotten the names in ino that other
// mounts have changed. It is called before ino's attributes are answered: the
// kernel needs them before it follows any name in ino, so nobody follows a name
// that is out of date.
//
// While a request that changes ino is in work, the kernel's thread holds ino's
// lock and waits for us: then whoever asks for attributes is another one and can
// wait. Otherwise it may be a thread that has just got that lock and checks its
// permission, while the expiries wait for that very lock. It is not held up, but
// for a moment, unless onlyLooks says that it is not such a thread. (It needs no
// protection either: before it changes anything the kernel looks its names up.)
func (d *dirs) awaitExpired(ctx context.Context, ino inode.Ino, onlyLooks func() bool) {
	harmless := sync.OnceValue(onlyLooks)
	for {
		s := d.shard(ino)
		s.mu.Lock()
		e := s.m[ino]
		if e == nil || e.pending == 0 {
			s.mu.Unlock()
			return
		}
		if e.moved == nil {
			e.moved = make(chan struct{})
		}
		moved, changing := e.moved, e.changing > 0
		s.mu.Unlock()
		client.Waits(ctx)

		if !changing && !harmless() {
			if within(gatePatience, moved) {
				continue
			}
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}
