package host

import (
	"sync"
	"sync/atomic"

	"github.com/varvefs/varve/engine"
)

// Pool is a bounded set of goroutines that carry out operations on Files with plain
// system calls. Its workers start when they are needed and stay until Close. Its lock is
// a leaf and is not held while an operation or a Done runs.
type Pool struct {
	max  int
	busy atomic.Int64 // ops that are queued or under way; changes only under mu

	mu      sync.Mutex
	work    sync.Cond // on mu: the queue has work, or the pool is closed
	queue   engine.List
	workers int // running goroutines
	idle    int // workers that wait for work and have not been signalled
	closed  bool
	gone    sync.WaitGroup
}

// NewPool makes a pool of at most max workers.
func NewPool(max int) *Pool {
	p := &Pool{max: max}
	p.work.L = &p.mu
	return p
}

// Busy is the number of ops that are queued or under way.
func (p *Pool) Busy() int { return int(p.busy.Load()) }

// Submit queues ops of f, which the caller has entered once for each of them; see
// [engine.File].
func (p *Pool) Submit(f *File, ops []*engine.Op) {
	p.mu.Lock()
	wake, start := p.add(f, ops)
	p.mu.Unlock()
	p.call(wake, start)
}

// TrySubmit is Submit if every op finds a worker at once; otherwise it does nothing and
// reports false.
func (p *Pool) TrySubmit(f *File, ops []*engine.Op) bool {
	if len(ops) > p.max {
		return false
	}
	p.mu.Lock()
	if int(p.busy.Load())+len(ops) > p.max {
		p.mu.Unlock()
		return false
	}
	wake, start := p.add(f, ops)
	p.mu.Unlock()
	p.call(wake, start)
	return true
}

// add queues ops and returns how many idle workers to wake and how many to start.
func (p *Pool) add(f *File, ops []*engine.Op) (wake, start int) {
	for _, op := range ops {
		p.queue.Push(f, op)
	}
	p.busy.Add(int64(len(ops)))
	wake = min(len(ops), p.idle)
	start = min(len(ops)-wake, p.max-p.workers)
	p.idle -= wake
	p.workers += start
	p.gone.Add(start)
	return wake, start
}

func (p *Pool) call(wake, start int) {
	for range wake {
		p.work.Signal()
	}
	for range start {
		go p.serve()
	}
}

// Close ends the workers. Every op must be done.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.work.Broadcast()
	p.gone.Wait()
}

// serve carries out queued ops until the pool is closed.
func (p *Pool) serve() {
	defer p.gone.Done()
	for op := p.next(false); op != nil; op = p.next(true) {
		f := op.Target().(*File)
		err := op.Check(f.Size())
		if err == nil {
			err = f.Transfer(op.Kind, op.Buf, op.Off)
		}
		op.Finish(f.Name(), err)
		f.Leave()
	}
}

// next waits for an op; nil when the pool is closed. With done set the worker has just
// finished one.
func (p *Pool) next(done bool) *engine.Op {
	p.mu.Lock()
	defer p.mu.Unlock()
	if done {
		p.busy.Add(-1)
	}
	for {
		if op := p.queue.Pop(); op != nil {
			return op
		}
		if p.closed {
			return nil
		}
		p.idle++ // whoever signals takes it off again
		p.work.Wait()
	}
}
