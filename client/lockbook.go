package client

import (
	"cmp"
	"slices"
	"sync"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/wire"
)

const maxLocks = 60_000 // named in one SessionOpen

// lockBook knows the advisory locks that processes here hold, because a master
// that begins to lead has to be told. It is written on the read goroutine of the
// connection that granted them, before anything can be said to another master.
// mu is a leaf.
type lockBook struct {
	mu    sync.Mutex
	locks map[lockOwner][]lockRange
}

// lockOwner is whose a lock is; record locks and flock locks are different ones.
type lockOwner struct {
	ino   inode.Ino
	owner uint64
	flock bool
}

// lockRange is bytes start..end of a file, inclusive. An owner's do not overlap.
type lockRange struct {
	start, end uint64
	write      bool
	pid        uint32
}

// note takes in a lock that was granted or freed.
func (b *lockBook) note(l *wire.Lock) {
	k := lockOwner{l.Ino, l.Owner, l.Flock}
	r := lockRange{l.Start, l.End, l.Type == wire.LockWrite, l.Pid}
	if l.Flock {
		r.start, r.end = 0, ^uint64(0)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []lockRange
	for _, have := range b.locks[k] {
		out = append(out, have.without(&r)...)
	}
	if l.Type != wire.LockFree {
		out = append(out, r)
	}
	if len(out) == 0 {
		delete(b.locks, k)
		return
	}
	if b.locks == nil {
		b.locks = map[lockOwner][]lockRange{}
	}
	b.locks[k] = out
}

// without is what is left of a lock when cut is taken out of it.
func (r *lockRange) without(cut *lockRange) (rest []lockRange) {
	if cut.end < r.start || r.end < cut.start {
		return []lockRange{*r}
	}
	if r.start < cut.start {
		left := *r
		left.end = cut.start - 1
		rest = append(rest, left)
	}
	if r.end > cut.end {
		right := *r
		right.start = cut.end + 1
		rest = append(rest, right)
	}
	return rest
}

// list gives all locks, for SessionOpen.
func (b *lockBook) list() []wire.HeldLock {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []wire.HeldLock
	for k, ranges := range b.locks {
		for _, r := range ranges {
			h := wire.HeldLock{Ino: k.ino, Owner: k.owner, Pid: r.pid, Flock: k.flock, Start: r.start, End: r.end}
			if r.write {
				h.Type = wire.LockWrite
			}
			all = append(all, h)
		}
	}
	slices.SortFunc(all, func(a, b wire.HeldLock) int {
		return cmp.Or(cmp.Compare(a.Ino, b.Ino), cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Start, b.Start))
	})
	return all[:min(len(all), maxLocks)]
}

// drop forgets all locks: the session that held them is over.
func (b *lockBook) drop() {
	b.mu.Lock()
	b.locks = nil
	b.mu.Unlock()
}
