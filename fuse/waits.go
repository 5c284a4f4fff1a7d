package fuse

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/varvefs/varve/client"
	"github.com/varvefs/varve/inode"
)

// A program that waits in a system call for us cannot be killed: the kernel lets it go when we
// have answered, not before. All it does is to tell, with an INTERRUPT, that the program has a
// signal, once for each request and whatever the signal. Most are of no concern: a handler will
// run when the call is through, and programs do not expect that a file system breaks off a call
// (Go's runtime sends its own threads signals all the time). So whoever was interrupted is looked
// at, then and again and again as long as it waits, and only when a fatal signal is pending its
// request is given up: its context ends, and when its handler does not return on that, since what
// it waits for is not the request's own affair or its outcome is open, the kernel gets EINTR
// and the handler goes on for nobody.

const (
	lookEvery = 100 * time.Millisecond // between looks at those that were interrupted
	// exitPatience is how often in a row a FLUSH is found to be of a program that is ending, and
	// told that by no INTERRUPT, before the program needs to wait no longer: the data is here, and
	// will be written as that of any closed file.
	exitPatience = 10
)

// waits are the requests that wait for something.
type waits struct {
	some atomic.Bool // whether m or hots has any, for those who would only look
	// answer tells the kernel of a request that its caller was interrupted.
	answer func(request uint64)
	fate   func(thread uint32) fate

	mu      sync.Mutex
	m       map[uint64]*request // by number
	hots    map[uint64]bool     // whether a request was interrupted that go-fuse knows nothing of
	looking bool                // the next look is due
	ended   bool                // the mount is no more
	left    int                 // whose handlers go on for nobody
	moved   chan struct{}       // closed when one of those returns; nil: nobody waits for it
}

// request is the context of one request, and the Caller that the client knows. Its context ends with
// the mount or with the program that has made the request.
type request struct {
	context.Context // the mount's
	f               *fileSystem
	unique, node    uint64
	thread          uint32 // that waits; 0: not of our namespace of processes, or none
	flush           bool
	cancel          <-chan struct{} // go-fuse's; closed by an INTERRUPT; nil: it is not with go-fuse

	verdict atomic.Int32 // given once: last, or the look that finds the program killed

	// Guarded by waits.mu.
	waiting     bool // in waits.m
	interrupted bool
	left        bool          // the kernel has an answer
	exits       int           // looks that found the program ending
	done        chan struct{} // nil: nobody has asked
}

// What request.verdict becomes.
const (
	toBeHeard int32 = iota + 1
	unheard
)

// context is what the answer to a request is looked for in.
func (f *fileSystem) context(cancel <-chan struct{}, h *gofuse.InHeader) *request {
	return &request{Context: f.ctx, f: f, unique: h.Unique, node: h.NodeId, thread: h.Pid, cancel: cancel}
}

// begin makes known that the request waits.
func (r *request) begin() {
	w := &r.f.waits
	w.mu.Lock()
	defer w.mu.Unlock()
	w.add(r)
}

// Waits is client.Caller's.
func (r *request) Waits() {
	r.begin()
	r.f.turns.yield(r.unique)
}

// WaitsDisk is client.Caller's.
func (r *request) WaitsDisk() {
	r.begin()
	r.f.turns.beginDisk(r.unique)
}

// HasRead is client.Caller's.
func (r *request) HasRead() { r.f.turns.endDisk(r.unique) }

// Over ends with the mount.
func (r *request) Over() <-chan struct{} { return r.Context.Done() }

// Done is context.Context's.
func (r *request) Done() <-chan struct{} {
	w := &r.f.waits
	w.mu.Lock()
	defer w.mu.Unlock()
	w.add(r)
	if r.done == nil {
		r.done = make(chan struct{})
		if w.ended || r.verdict.Load() == unheard {
			close(r.done)
		}
	}
	return r.done
}

// Err is context.Context's.
func (r *request) Err() error {
	if r.verdict.Load() == unheard {
		return client.ErrKilled
	}
	return r.Context.Err()
}

// Value is context.Context's.
func (r *request) Value(key any) any {
	if _, mine := key.(client.CallerKey); mine {
		return r
	}
	return r.Context.Value(key)
}

// killed is asked by a handler when it has what it will answer. No: then somebody will hear it. Yes: then
// perhaps nobody, and the kernel, which has been told nothing or an error, must be told what has changed.
func (r *request) killed() bool { return !r.verdict.CompareAndSwap(0, toBeHeard) }

// steady is a request's context for what has to be done even if its program is being killed.
type steady struct{ *request }

// Done is context.Context's.
func (r steady) Done() <-chan struct{} { return r.request.Context.Done() }

// Err is context.Context's.
func (r steady) Err() error { return r.request.Context.Err() }

// add notes that a request waits. mu is held.
func (w *waits) add(r *request) {
	if r.waiting || r.left {
		return
	}
	if w.m == nil {
		w.m = make(map[uint64]*request)
	}
	w.m[r.unique] = r
	w.some.Store(true)
	r.waiting = true
	select {
	case <-r.cancel:
		w.note(r)
	default:
		if w.hots[r.unique] {
			w.note(r)
		}
	}
	w.watch(r)
}

// hot begins a request that go-fuse knows nothing of.
func (w *waits) hot(unique uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hots == nil {
		w.hots = make(map[uint64]bool)
	}
	w.hots[unique] = false
	w.some.Store(true)
}

// interruptHot is called for every INTERRUPT, and says whether it is about such a request.
func (w *waits) interruptHot(unique uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.hots[unique]; !ok {
		return false
	}
	w.hots[unique] = true
	w.interrupted(unique)
	return true
}

// over ends a request: its handler has returned. left: the kernel has an answer already.
func (w *waits) over(unique uint64) (left bool) {
	if !w.some.Load() {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.m[unique]
	delete(w.hots, unique)
	delete(w.m, unique)
	w.some.Store(len(w.m)+len(w.hots) > 0)
	if r == nil {
		return false
	}
	if r.left {
		w.left--
		if w.moved != nil {
			close(w.moved)
			w.moved = nil
		}
	}
	return r.left
}

// interrupt is called for an INTERRUPT that go-fuse has found the request of.
func (w *waits) interrupt(unique uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.interrupted(unique)
}

// interrupted has a look taken at a request if it waits; else add will see that it was interrupted. mu is held.
func (w *waits) interrupted(unique uint64) {
	if r := w.m[unique]; r != nil {
		w.note(r)
		w.watch(r)
	}
}

// note notes that a request was interrupted, and has its thread looked at. mu is held.
func (w *waits) note(r *request) {
	if !r.interrupted && r.thread != 0 {
		r.interrupted = true
		go w.look([]*request{r})
	}
}

// watched says whether a request's thread is to be looked at from time to time. mu is held.
func (r *request) watched() bool { return r.thread != 0 && !r.left && (r.interrupted || r.flush) }

// watch has a look taken at all that are watched, if r is. mu is held.
func (w *waits) watch(r *request) {
	if r.watched() && !w.looking {
		w.looking = true
		time.AfterFunc(lookEvery, w.lookAround)
	}
}

// lookAround looks at all that are watched, as long as there are any.
func (w *waits) lookAround() {
	w.mu.Lock()
	var list []*request
	for _, r := range w.m {
		if r.watched() {
			list = append(list, r)
		}
	}
	w.looking = false
	w.mu.Unlock()
	w.look(list)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.m {
		w.watch(r)
	}
}

// look looks at the threads of requests and gives up those of the killed.
func (w *waits) look(list []*request) {
	for _, r := range list {
		fate := w.fate(r.thread)
		w.mu.Lock()
		if w.m[r.unique] == r && !r.left && r.doomed(fate) {
			w.giveUp(r)
		}
		w.mu.Unlock()
	}
}

// doomed says whether a request is to be given up when its thread was found like this. mu is held.
func (r *request) doomed(fate fate) bool {
	switch fate {
	case killed:
		return true
	case exiting:
		r.exits++
		return r.interrupted || r.exits > exitPatience
	}
	return false
}

// giveUp ends the context of a request, and when that was in vain tells the kernel. mu is held, so that
// the handler has not returned when the kernel is told.
func (w *waits) giveUp(r *request) {
	switch {
	case r.verdict.CompareAndSwap(0, unheard):
		if r.done != nil && !w.ended {
			close(r.done)
		}
	case r.verdict.Load() == unheard:
		r.left = true
		w.left++
		w.answer(r.unique)
	}
}

// end gives up all, with the mount.
func (w *waits) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	for _, r := range w.m {
		if r.done != nil && r.verdict.Load() != unheard {
			close(r.done)
		}
	}
}

// awaitLeft returns when no handler goes on for nobody that is about the inode of a RELEASE: it
// may use the open file.
func (f *fileSystem) awaitLeft(release *gofuse.InHeader) {
	for moved := f.waits.leftAt(release.NodeId); moved != nil; moved = f.waits.leftAt(release.NodeId) {
		f.turns.yield(release.Unique)
		select {
		case <-moved:
		case <-f.ctx.Done():
			return
		}
	}
}

// leftAt returns what is closed when fewer handlers go on for nobody, nil when none does that is about an inode.
func (w *waits) leftAt(node uint64) <-chan struct{} {
	if !w.some.Load() {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left == 0 {
		return nil
	}
	for _, r := range w.m {
		if r.left && r.node == node {
			if w.moved == nil {
				w.moved = make(chan struct{})
			}
			return w.moved
		}
	}
	return nil
}

// entryName is a name in a directory.
type entryName struct {
	dir  inode.Ino
	name string
}

// forget makes the kernel ask again for what a request may have changed whose answer it does not know: an
// inode and names in directories. Not in the handler: the kernel may want the request answered first.
func (f *fileSystem) forget(ino inode.Ino, names ...entryName) {
	go func() {
		for _, n := range names {
			f.notify.Entry(n.dir, n.name)
			f.notify.Attr(n.dir)
		}
		if ino != 0 {
			f.notify.Data(ino)
		}
	}()
}
