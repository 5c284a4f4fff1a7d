// Package locks is the table of advisory locks: record locks of fcntl(2) over
// byte ranges and whole-file locks of flock(2), with queues of waiters.
//
// The master's loop owns a Table and is its only caller; the package is pure:
// no clock, no I/O, no goroutine. Record locks and flock locks do not see each
// other, as on Linux. An owner is a session and the owner number that the kernel
// of that mount gave; locks of one owner never conflict with each other.
package locks

import (
	"cmp"
	"slices"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
)

// Type of a lock.
type Type uint8

// The numbers are those of wire.LockRead, LockWrite and LockFree.
const (
	Read Type = iota
	Write
	Free
)

// maxPerInode bounds the locks and waiters of one inode: a hostile mount must
// not make the table grow without end.
const maxPerInode = 1 << 16

// Owner is who holds a lock.
type Owner struct {
	Session uint64
	Number  uint64 // given by the mount's kernel
}

// Lock is one lock that is held or wanted. A flock lock always covers 0..max.
type Lock struct {
	Owner Owner
	Pid   uint32
	Type  Type
	Start uint64 // first byte
	End   uint64 // last byte, inclusive
}

// Request asks for a lock.
type Request struct {
	Ino   inode.Ino
	Flock bool
	Lock
	Wait  bool   // queue when the lock is held by others
	Token uint64 // with the session, names a waiting request for Cancel
	Tag   any    // the caller's, handed back when the wait is over
}

// Woken is a request whose wait is over: status.OK when it has the lock now.
type Woken struct {
	Tag  any
	Code status.Code
}

// file holds the locks of one inode and one kind.
type file struct {
	held    []Lock    // ascending by Start
	waiting []Request // first come first
}

type key struct {
	ino   inode.Ino
	flock bool
}

type waitKey struct{ session, token uint64 }

// Table holds all locks.
type Table struct {
	files map[key]*file
	waits map[waitKey]key     // where a waiting request is
	owner map[Owner][]waitKey // requests that an owner waits for; record locks only
	held  int
}

// New makes an empty table.
func New() *Table {
	return &Table{files: map[key]*file{}, waits: map[waitKey]key{}, owner: map[Owner][]waitKey{}}
}

// Len gives the numbers of held locks and of waiting requests.
func (t *Table) Len() (held, waiting int) { return t.held, len(t.waits) }

// overlaps tells whether two locks share a byte.
func (l *Lock) overlaps(o *Lock) bool { return l.Start <= o.End && o.Start <= l.End }

// conflicts tells whether l keeps want from being granted.
func (l *Lock) conflicts(want *Lock) bool {
	return l.Owner != want.Owner && l.overlaps(want) && (l.Type == Write || want.Type == Write)
}

// Test finds a lock that keeps r from being granted.
func (t *Table) Test(r *Request) (Lock, bool) {
	if f := t.files[r.key()]; f != nil {
		if i := f.conflict(&r.Lock); i >= 0 {
			return f.held[i], true
		}
	}
	return Lock{}, false
}

func (r *Request) key() key { return key{r.Ino, r.Flock} }

// conflict is the index of the first held lock in want's way, or -1.
func (f *file) conflict(want *Lock) int {
	for i := range f.held {
		if f.held[i].Start > want.End {
			break
		}
		if f.held[i].conflicts(want) {
			return i
		}
	}
	return -1
}

// Set carries out r. The code is OK (done), NotWaited (others hold it and r.Wait
// is not set), Deadlock, Invalid, NoSpace (too many locks on the inode), or
// Again: r waits, and its Tag will be among the Woken of a later call. woken
// are the requests whose wait this call has ended.
func (t *Table) Set(r Request) (code status.Code, woken []Woken) {
	if r.Flock {
		r.Start, r.End = 0, ^uint64(0)
	}
	if r.Start > r.End || r.Type > Free {
		return status.Invalid, nil
	}
	k := r.key()
	f := t.files[k]
	if f == nil {
		if r.Type == Free {
			return status.OK, nil
		}
		f = &file{}
		t.files[k] = f
	}
	defer t.sweep(k, f)
	if r.Type == Free {
		t.replace(f, r.Lock)
		return status.OK, t.wake(k, f)
	}
	if len(f.held)+len(f.waiting) >= maxPerInode {
		return status.NoSpace, nil
	}
	if f.conflict(&r.Lock) < 0 {
		t.replace(f, r.Lock)
		return status.OK, t.wake(k, f) // a write lock turned into a read lock lets readers in
	}
	if r.Flock && f.holds(r.Owner) {
		// flock(2): converting a lock first gives the old one up, also when
		// the new one cannot be had. Two upgraders would wait for ever otherwise.
		t.replace(f, Lock{Owner: r.Owner, Type: Free, End: ^uint64(0)})
		defer func() { woken = append(woken, t.wake(k, f)...) }()
	}
	if !r.Wait {
		return status.NotWaited, nil
	}
	if !r.Flock && t.deadlock(f, &r) {
		return status.Deadlock, nil
	}
	w := waitKey{r.Owner.Session, r.Token}
	if _, used := t.waits[w]; used {
		return status.Invalid, nil
	}
	f.waiting = append(f.waiting, r)
	t.waits[w] = k
	if !r.Flock {
		t.owner[r.Owner] = append(t.owner[r.Owner], w)
	}
	return status.Again, nil
}

func (f *file) holds(o Owner) bool {
	return slices.ContainsFunc(f.held, func(l Lock) bool { return l.Owner == o })
}

// replace puts l in the place of whatever its owner held on its bytes: older
// locks are cut or split, neighbours of the same type joined. A Free lock only
// clears.
func (t *Table) replace(f *file, l Lock) {
	before := len(f.held)
	kept := f.held[:0:0]
	for _, h := range f.held {
		if h.Owner != l.Owner {
			kept = append(kept, h)
			continue
		}
		if h.Type == l.Type && h.touches(&l) {
			l.Start, l.End = min(l.Start, h.Start), max(l.End, h.End)
			continue
		}
		if !h.overlaps(&l) {
			kept = append(kept, h)
			continue
		}
		if h.Start < l.Start {
			left := h
			left.End = l.Start - 1
			kept = append(kept, left)
		}
		if h.End > l.End {
			right := h
			right.Start = l.End + 1
			kept = append(kept, right)
		}
	}
	if l.Type != Free {
		kept = append(kept, l)
	}
	slices.SortFunc(kept, byStart)
	f.held = kept
	t.held += len(kept) - before
}

func byStart(a, b Lock) int { return cmp.Compare(a.Start, b.Start) }

// touches tells whether two locks overlap or are neighbours.
func (l *Lock) touches(o *Lock) bool {
	return l.overlaps(o) || l.End != ^uint64(0) && l.End+1 == o.Start || o.End != ^uint64(0) && o.End+1 == l.Start
}

// wake grants what can be granted now, first come first.
func (t *Table) wake(k key, f *file) (woken []Woken) {
	for again := true; again; {
		again = false
		for i := 0; i < len(f.waiting); i++ {
			r := f.waiting[i]
			if f.conflict(&r.Lock) >= 0 {
				continue
			}
			t.unqueue(f, i)
			t.replace(f, r.Lock)
			woken = append(woken, Woken{r.Tag, status.OK})
			again = true // a conversion may have freed bytes for an earlier one
			break
		}
	}
	return woken
}

// unqueue removes the i-th waiting request.
func (t *Table) unqueue(f *file, i int) {
	r := &f.waiting[i]
	w := waitKey{r.Owner.Session, r.Token}
	delete(t.waits, w)
	if list := t.owner[r.Owner]; !r.Flock {
		if list = slices.DeleteFunc(list, func(x waitKey) bool { return x == w }); len(list) > 0 {
			t.owner[r.Owner] = list
		} else {
			delete(t.owner, r.Owner)
		}
	}
	f.waiting = slices.Delete(f.waiting, i, i+1)
}

// sweep forgets a file without locks.
func (t *Table) sweep(k key, f *file) {
	if len(f.held) == 0 && len(f.waiting) == 0 {
		delete(t.files, k)
	}
}

// Cancel ends the wait of a request; its Tag comes back, or nil when it does not wait.
func (t *Table) Cancel(session, token uint64) (tag any, found bool) {
	k, ok := t.waits[waitKey{session, token}]
	if !ok {
		return nil, false
	}
	f := t.files[k]
	i := slices.IndexFunc(f.waiting, func(r Request) bool { return r.Owner.Session == session && r.Token == token })
	if i < 0 {
		panic("BUG: a waiting lock request is not in its file's queue")
	}
	tag = f.waiting[i].Tag
	t.unqueue(f, i)
	t.sweep(k, f)
	return tag, true
}

// DropWaits forgets a session's waiting requests: their connection is gone. It
// returns their Tags.
func (t *Table) DropWaits(session uint64) (tags []any) {
	var list []waitKey
	for w := range t.waits {
		if w.session == session {
			list = append(list, w)
		}
	}
	slices.SortFunc(list, func(a, b waitKey) int { return cmp.Compare(a.token, b.token) })
	for _, w := range list {
		tag, _ := t.Cancel(session, w.token)
		tags = append(tags, tag)
	}
	return tags
}

// CloseSession removes all locks and waiting requests of a session. Its own
// waiting requests are among the woken with Interrupted.
func (t *Table) CloseSession(session uint64) (woken []Woken) {
	var keys []key
	for k, f := range t.files {
		if slices.ContainsFunc(f.held, func(l Lock) bool { return l.Owner.Session == session }) ||
			slices.ContainsFunc(f.waiting, func(r Request) bool { return r.Owner.Session == session }) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, compareKeys)
	for _, k := range keys {
		f := t.files[k]
		for i := len(f.waiting) - 1; i >= 0; i-- {
			if f.waiting[i].Owner.Session == session {
				woken = append(woken, Woken{f.waiting[i].Tag, status.Interrupted})
				t.unqueue(f, i)
			}
		}
		before := len(f.held)
		f.held = slices.DeleteFunc(f.held, func(l Lock) bool { return l.Owner.Session == session })
		t.held += len(f.held) - before
		woken = append(woken, t.wake(k, f)...)
		t.sweep(k, f)
	}
	return woken
}

// compareKeys makes the order of wake-ups independent of the map's.
func compareKeys(a, b key) int {
	if a.ino == b.ino && a.flock != b.flock {
		if b.flock {
			return -1
		}
		return 1
	}
	return cmp.Compare(a.ino, b.ino)
}

// Forget removes all locks of an inode that is gone; its waiters end with Stale.
func (t *Table) Forget(ino inode.Ino) (woken []Woken) {
	for _, k := range []key{{ino, false}, {ino, true}} {
		f := t.files[k]
		if f == nil {
			continue
		}
		for i := len(f.waiting) - 1; i >= 0; i-- {
			woken = append(woken, Woken{f.waiting[i].Tag, status.Stale})
			t.unqueue(f, i)
		}
		t.held -= len(f.held)
		delete(t.files, k)
	}
	return woken
}
