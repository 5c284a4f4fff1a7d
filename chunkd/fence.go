package chunkd

import (
	"sync"
	"sync/atomic"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/status"
)

const shards = 256

// fence says what may still be done to a chunk.
type fence struct {
	high    atomic.Uint64 // highest epoch seen; changed under raise
	raise   sync.Mutex
	persist func(epoch uint64) error
	shard   [shards]shard
}

// shard guards the chunks whose number falls on it: whoever checks a copy's
// version and then changes the copy holds it in between.
type shard struct {
	mu     sync.Mutex
	busy   map[chunk.ID]struct{}      // an order is changing this copy
	closed map[chunk.ID]chunk.Version // writes at this version and below are refused
}

func newFence(epoch uint64, persist func(uint64) error) *fence {
	f := &fence{persist: persist}
	f.high.Store(epoch)
	for i := range f.shard {
		f.shard[i].busy = make(map[chunk.ID]struct{})
		f.shard[i].closed = make(map[chunk.ID]chunk.Version)
	}
	return f
}

func (f *fence) of(id chunk.ID) *shard {
	return &f.shard[(uint64(id)*0x9e3779b97f4a7c15)>>56%shards]
}

// admit refuses an epoch below the highest one seen and makes a higher one
// durable before it returns. Only epochs of authenticated masters come here.
func (f *fence) admit(epoch uint64) error {
	if epoch > f.high.Load() {
		f.raise.Lock()
		defer f.raise.Unlock()
		if epoch > f.high.Load() {
			if err := f.persist(epoch); err != nil {
				return err
			}
			f.high.Store(epoch)
		}
	}
	return f.check(epoch)
}

// check refuses an epoch below the highest one seen.
func (f *fence) check(epoch uint64) error {
	if high := f.high.Load(); epoch < high {
		return status.Errorf(status.OldEpoch, "epoch %d, when %d has begun", epoch, high)
	}
	return nil
}

// begin marks a copy as being changed by an order; check (may be nil) decides
// under the lock whether it may be. The caller ends with end.
func (f *fence) begin(id chunk.ID, check func() error) error {
	s := f.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, busy := s.busy[id]; busy {
		return status.Errorf(status.Busy, "chunk %v: another order is under way", id)
	}
	if check != nil {
		if err := check(); err != nil {
			return err
		}
	}
	s.busy[id] = struct{}{}
	return nil
}

func (f *fence) end(id chunk.ID) {
	s := f.of(id)
	s.mu.Lock()
	delete(s.busy, id)
	s.mu.Unlock()
}

// shut refuses writes to a copy at its present version, which current tells under
// the lock, and below from now on.
func (f *fence) shut(id chunk.ID, current func() (chunk.Version, error)) error {
	s := f.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := current()
	if err == nil {
		s.closed[id] = max(s.closed[id], v)
	}
	return err
}

// forget drops what shut noted, when the copy has got a new version or is gone.
func (f *fence) forget(id chunk.ID) {
	s := f.of(id)
	s.mu.Lock()
	delete(s.closed, id)
	s.mu.Unlock()
}

// writable tells whether a write at version v may go on. The shard is locked.
func (s *shard) writable(id chunk.ID, v chunk.Version) error {
	if _, busy := s.busy[id]; busy {
		return status.Errorf(status.StaleVersion, "chunk %v: an order of the master is changing it", id)
	}
	if c, ok := s.closed[id]; ok {
		if v <= c {
			return status.Errorf(status.NoLease, "chunk %v: the lease on version %v has ended", id, v)
		}
		delete(s.closed, id)
	}
	return nil
}
