package master

import "sync"

// inbox is how everybody else reaches the loop: functions that the loop runs in
// the order in which they came. It is not bounded by itself; link holds a peer
// that asks and does not listen, and every peer has shown the cluster key.
type inbox struct {
	mu     sync.Mutex
	queue  []func(*loop)
	closed bool
	wake   chan struct{} // one element: the queue may not be empty
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

// post hands f to the loop; false: the loop has ended and f never runs.
func (b *inbox) post(f func(*loop)) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return false
	}
	b.queue = append(b.queue, f)
	first := len(b.queue) == 1
	b.mu.Unlock()
	if first {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
	return true
}

// take exchanges the queue for an empty one.
func (b *inbox) take(empty []func(*loop)) []func(*loop) {
	b.mu.Lock()
	full := b.queue
	b.queue = empty[:0]
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
