package chunkd

import "sync"

// lane runs functions in the order of their coming, at most limit at once. Its
// queue is bounded by the requests that clients have under way: an entry holds
// no data.
type lane struct {
	limit int

	mu      sync.Mutex
	queue   []func()
	running int
}

// run starts f or queues it. It never blocks.
func (l *lane) run(f func()) {
	l.mu.Lock()
	if l.running >= l.limit {
		l.queue = append(l.queue, f)
		l.mu.Unlock()
		return
	}
	l.running++
	l.mu.Unlock()
	go l.work(f)
}

func (l *lane) work(f func()) {
	for {
		f()
		l.mu.Lock()
		if len(l.queue) == 0 {
			l.running--
			l.mu.Unlock()
			return
		}
		f = l.queue[0]
		l.queue[0] = nil
		if l.queue = l.queue[1:]; len(l.queue) == 0 {
			l.queue = nil
		}
		l.mu.Unlock()
	}
}
