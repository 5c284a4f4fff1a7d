package master

import (
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// A change is one request (or wish of the master itself) that ends as an entry
// of the changelog. It passes these stages, all on the loop:
//
//  1. Its names are locked: changes of one name in one directory follow each
//     other, so that what the name means does not move while 2 and 3 go on.
//  2. The inodes that it touches are marked: until it is over nobody else is
//     granted rights on them.
//  3. Rights of others that conflict are recalled; it waits for the answers.
//  4. Its entry joins the batch, the batch becomes a log entry, the log entry is
//     committed and applied. done makes the reply from the state right after.
//
// Between 2 and 4 others read the old state, without rights. No request is ever
// queued behind a mark, only behind names, and a mount answers recalls whatever
// requests of its own wait, but for changes made early under W on a directory:
// those go before others' locks on names, and wait themselves only for rights
// that are given back without a change of names. So nothing waits in a circle.
type change struct {
	q    *request  // what to answer; done and fail must take it from here. nil: the master's own
	s    *session  // who asks; nil: nobody
	once wire.Once // Seq 0: not remembered

	names []nameKey
	// touch lists the inodes whose attributes or bytes will change. It is asked
	// each time the change goes on.
	touch func() []inode.Ino
	// op makes the entry's operation when nobody stands in the way any more; nil:
	// there is nothing to log. It may return errParked when it has arranged for
	// step to run again.
	op func() (state.Op, error)
	// done gets the result, OK or not, right after the entry was applied; also
	// when the request had been executed before (Repeat).
	done func(state.Result)
	// fail is told when the change will not happen.
	fail func(error)

	marked []inode.Ino
	told   bool // names were recalled
	locked bool
}

// errParked: the change waits; its step will be run again.
var errParked = status.Errorf(status.Again, "parked")

type nameKey struct {
	dir  inode.Ino
	name string
}

type inoSession struct {
	ino     inode.Ino
	session uint64
}

// begin sets a change going.
func (l *loop) begin(c *change) {
	if c.s != nil {
		if c.s.readOnly {
			c.fail(status.ReadOnly)
			return
		}
		if c.once.Seq != 0 && l.repeated(c) {
			return
		}
	}
	l.lockNames(c)
}

// repeated deals with a request that was sent before: it was executed, or it is
// still under way and the new request takes the place of the old one, whose
// connection is gone.
func (l *loop) repeated(c *change) bool {
	if res, ok := l.st.Replied(c.s.id, c.once.Seq); ok {
		res.Repeat = true
		c.done(res)
		return true
	}
	if old := c.s.pending[c.once.Seq]; old != nil {
		l.refuse(old.q, status.Errorf(status.Again, "the request was sent again"))
		old.q = c.q
		return true
	}
	c.s.pending[c.once.Seq] = c
	return false
}

// lockNames takes all of c's names or queues c behind one that is taken.
func (l *loop) lockNames(c *change) {
	for _, k := range c.names {
		if lock := l.names[k]; lock != nil && lock.owner != c && !l.precedes(c, lock.owner, k.dir) {
			lock.queue = append(lock.queue, c)
			return
		}
	}
	for _, k := range c.names {
		if under := l.names[k]; under == nil || under.owner != c {
			l.names[k] = &nameLock{owner: c, under: under}
		}
		l.mark(c, k.dir)
	}
	c.locked = true
	l.step(c)
}

type nameLock struct {
	owner *change
	queue []*change // first come first
	under *nameLock // of another mount's change that must wait for this one; see precedes
}

// precedes tells whether c goes before a change that has locked one of its
// names. While c's mount holds W on the directory, changes of other mounts there
// cannot go on before that was recalled; and the mount gives W back only when
// the changes that it has made early, c among them, are in the log.
func (l *loop) precedes(c, owner *change, dir inode.Ino) bool {
	return c.s != nil && owner.s != c.s && l.rights.held(dir, c.s)&inode.W != 0
}

// unlockNames frees c's names and lets those that wait for them try again.
func (l *loop) unlockNames(c *change) {
	if !c.locked {
		return
	}
	c.locked = false
	for _, k := range c.names {
		lock := l.unlockName(k, c)
		if lock == nil {
			continue // the same name twice
		}
		for _, next := range lock.queue {
			l.later(func() { l.lockNames(next) })
		}
	}
}

// unlockName takes c's lock out of those on a name.
func (l *loop) unlockName(k nameKey, c *change) *nameLock {
	top := l.names[k]
	if top == nil {
		return nil
	}
	if top.owner == c {
		if top.under != nil {
			l.names[k] = top.under
		} else {
			delete(l.names, k)
		}
		return top
	}
	for above := top; above.under != nil; above = above.under {
		if lock := above.under; lock.owner == c {
			above.under = lock.under
			return lock
		}
	}
	return nil
}

// mark notes that c is about to change ino.
func (l *loop) mark(c *change, ino inode.Ino) {
	for _, m := range c.marked {
		if m == ino {
			return
		}
	}
	c.marked = append(c.marked, ino)
	l.marks[ino]++
	if c.s != nil {
		l.marksBy[inoSession{ino, c.s.id}]++
	}
}

// unmark takes all of c's marks back.
func (l *loop) unmark(c *change) {
	for _, ino := range c.marked {
		if l.marks[ino]--; l.marks[ino] == 0 {
			delete(l.marks, ino)
		}
		if c.s != nil {
			k := inoSession{ino, c.s.id}
			if l.marksBy[k]--; l.marksBy[k] == 0 {
				delete(l.marksBy, k)
			}
		}
		for _, q := range l.acquires[ino] {
			l.later(q.again)
		}
		delete(l.acquires, ino)
	}
	c.marked = c.marked[:0]
}

// marked tells whether somebody other than s is about to change ino.
func (l *loop) marked(ino inode.Ino, s *session) bool {
	n := l.marks[ino]
	return n != 0 && n != l.marksBy[inoSession{ino, s.id}]
}

// nameMarked tells whether somebody other than s is about to change a name.
func (l *loop) nameMarked(dir inode.Ino, name string, s *session) bool {
	for lock := l.names[nameKey{dir, name}]; lock != nil; lock = lock.under {
		if lock.owner.s != s {
			return true
		}
	}
	return false
}

// step goes on with a change: recalls what stands in its way, or logs it.
func (l *loop) step(c *change) {
	if c.s != nil && c.s.state == sessionClosed {
		l.drop(c, status.Errorf(status.Stale, "session %d has ended", c.s.id))
		return
	}
	w := &waiter{run: func() { l.step(c) }}
	if !c.told {
		c.told = true
		for _, k := range c.names {
			l.recallName(w, c.s, k)
		}
	}
	if c.touch != nil {
		for _, ino := range c.touch() {
			l.mark(c, ino)
		}
	}
	for _, ino := range c.marked {
		l.recallAll(w, c.s, ino, inode.R|inode.W)
	}
	if w.left > 0 {
		return
	}
	op, err := c.op()
	if err == errParked {
		return
	}
	if err != nil {
		l.drop(c, err)
		return
	}
	if op == nil {
		l.applied(c, state.Result{})
		return
	}
	l.append(c, op)
}

// applied ends a change whose entry was applied.
func (l *loop) applied(c *change, res state.Result) {
	l.over(c)
	c.done(res)
	l.unlockNames(c)
}

// drop ends a change that will not happen.
func (l *loop) drop(c *change, err error) {
	l.over(c)
	c.fail(err)
	l.unlockNames(c)
}

// over takes c's marks back before the reply is made, so that the reply can
// grant rights, and forgets its number: from now on the state remembers it.
func (l *loop) over(c *change) {
	l.unmark(c)
	if c.s != nil && c.once.Seq != 0 && c.s.pending[c.once.Seq] == c {
		delete(c.s.pending, c.once.Seq)
	}
}
