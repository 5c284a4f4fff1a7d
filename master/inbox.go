package master

import "sync"

// inbox is how everybody else reaches the loop: functions that the loop runs in
// the order in which they came. It is not bounded by itself; link holds a peer
// that asks and does not listen, and every peer has shown the cluster key.
type inbox struct {
	mu     sync.Mutex
	queue  []func(*loop)
	rung   bool // wake has been told of the queue
	closed bool
	wake   chan struct{} // one element: the queue may not be empty
}

// putMost is how many functions wait for ring at most.
const putMost = 128

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

// post hands f to the loop; false: the loop has ended and f never runs.
func (b *inbox) post(f func(*loop)) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return false
	}
	b.queue = append(b.queue, f)
	b.call()
	b.mu.Unlock()
	return true
}

// put is post for one of several functions that the loop is to see in one turn:
// the last is followed by ring.
func (b *inbox) put(f func(*loop)) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.queue = append(b.queue, f)
	if len(b.queue) >= putMost {
		b.call()
	}
	return true
}

// ring makes the loop see what was put.
func (b *inbox) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) > 0 {
		b.call()
	}
}

// call wakes the loop. mu is held.
func (b *inbox) call() {
	if b.rung {
		return
	}
	b.rung = true
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take exchanges the queue for an empty one.
func (b *inbox) take(empty []func(*loop)) []func(*loop) {
	b.mu.Lock()
	full := b.queue
	b.queue, b.rung = empty[:0], false
	b.mu.Unlock()
	return full
}

// close makes post refuse from now on.
func (b *inbox) close() {
	b.mu.Lock()
	b.closed = true
	b.queue = nil
	b.mu.Unlock()
}
