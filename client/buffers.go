package client

import (
	"context"
	"sync"

	"github.com/varvefs/varve/buffer"
	"github.com/varvefs/varve/status"
)

// blockSize is the most that one write to a chunkserver carries, in bytes.
// Extents never cross a multiple of it.
const blockSize = 1 << 20

// fullEnough is the size from which on an extent that has reached the end of its
// block is sent without waiting for what may still come before it, in bytes.
const fullEnough = 64 << 10

// Buffers have 4 KiB, 16 KiB, ... 1 MiB: an extent that grows moves seldom.
const (
	smallestBuffer = 4 << 10
	bufferStep     = 4
)

// sharedBuffer is memory of unwritten data. Extents that were split share it; the
// count of sharers is guarded by the mutex of the node that the data is of.
type sharedBuffer struct {
	b      []byte
	users  int
	budget *budget
}

var sharedBuffers = sync.Pool{New: func() any { return new(sharedBuffer) }}

// newBuffer returns a buffer of at least n bytes, n <= blockSize, for one user.
func (b *budget) newBuffer(n int) *sharedBuffer {
	size := smallestBuffer
	for size < n {
		size *= bufferStep
	}
	s := sharedBuffers.Get().(*sharedBuffer)
	s.b, s.users, s.budget = buffer.Get(size), 1, b
	b.add(int64(size))
	return s
}

// release ends the use by one extent.
func (s *sharedBuffer) release() {
	s.users--
	if s.users > 0 {
		return
	}
	if s.users < 0 {
		panic("BUG: a buffer is released twice")
	}
	s.budget.add(-int64(len(s.b)))
	buffer.Put(s.b)
	*s = sharedBuffer{}
	sharedBuffers.Put(s)
}

// budget bounds the memory of data that is not yet durable. It is a gate, not
// a limit to the byte: who passes may exceed it by what he writes.
type budget struct {
	limit    int64
	pressure chan struct{}   // one element: somebody wants memory
	over     <-chan struct{} // closed with the client; may be nil

	mu   sync.Mutex
	used int64
	free chan struct{} // closed when memory comes free while somebody waits
}

func newBudget(limit int64) *budget {
	return &budget{limit: limit, pressure: make(chan struct{}, 1)}
}

func (b *budget) add(n int64) {
	b.mu.Lock()
	b.used += n
	if b.used < b.limit && b.free != nil {
		close(b.free)
		b.free = nil
	}
	tight := n > 0 && b.used > b.limit/2
	b.mu.Unlock()
	if tight {
		b.press()
	}
}

func (b *budget) press() {
	select {
	case b.pressure <- struct{}{}:
	default:
	}
}

// inUse is the memory in use, in bytes.
func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// wait returns when there is memory. The caller holds no lock and no use of a right.
func (b *budget) wait(ctx context.Context) error {
	for {
		b.mu.Lock()
		if b.used < b.limit {
			b.mu.Unlock()
			return nil
		}
		if b.free == nil {
			b.free = make(chan struct{})
		}
		free := b.free
		b.mu.Unlock()
		b.press()
		Waits(ctx)
		select {
		case <-free:
		case <-ctx.Done():
			return ctxError(ctx)
		case <-b.over:
			return status.Errorf(status.Closed, "the client is closed")
		}
	}
}
