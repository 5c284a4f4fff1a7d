package segment

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/status"
)

// Sync returns when everything accepted so far of these chunks is durable. Chunks that
// do not exist count as durable.
func (s *Store) Sync(ids []chunk.ID) error {
	s.mu.Lock()
	var frames []*frame
	for _, id := range ids {
		if r := s.index.find(id); r != nil {
			if f := s.frameOf(r); f != nil && (len(frames) == 0 || frames[len(frames)-1] != f) {
				frames = append(frames, f)
			}
		}
	}
	err := s.failed
	s.unlock()
	if err != nil {
		return err
	}
	for _, f := range frames {
		if err := (Ticket{f}).Wait(); err != nil {
			return err
		}
	}
	return nil
}

// frameOf returns the frame with the last entry of a chunk, nil if it is durable. mu is
// held.
func (s *Store) frameOf(r *record) *frame {
	h := &s.heads[r.head]
	if h.open != nil && r.seq == h.seq+1 {
		return h.open
	}
	for _, f := range h.flight {
		if !f.seal && f.seq == r.seq {
			return f
		}
	}
	return nil
}

// SetVersion gives a chunk another version, durably, and starts counting its writes
// anew. Errors: status.NoChunk.
func (s *Store) SetVersion(id chunk.ID, v chunk.Version) error {
	s.mu.Lock()
	f, err := s.logState(id, func(r *record, e *entry) error {
		if r == nil || !r.alive() {
			return status.Errorf(status.NoChunk, "chunk %v", id)
		}
		e.version, e.writes, e.hide, e.base = v, 0, r.hide, r.base
		if v == r.version {
			e.writes = r.writes
		}
		return nil
	})
	s.unlock()
	if err != nil {
		return err
	}
	return Ticket{f}.Wait()
}

// logState logs an entry that fill completes; it may refuse. mu is held.
func (s *Store) logState(id chunk.ID, fill func(*record, *entry) error) (*frame, error) {
	f, _, err := s.reserve(&part{chunk: id}, true, 0, 0)
	if err != nil {
		return nil, err
	}
	e := entry{kind: kindState, chunk: id}
	if err := fill(s.index.find(id), &e); err != nil {
		f.undo(0, 0, 0)
		return nil, err
	}
	e.lsn = s.nextLSN()
	s.log1(f, &e, nil)
	s.want(f)
	return f, nil
}

// Delete removes chunks, durably. Chunks that do not exist are no error.
func (s *Store) Delete(ids []chunk.ID) error {
	frames := make(map[*frame]struct{})
	s.mu.Lock()
	for _, id := range ids {
		f, err := s.delete(id)
		if err != nil {
			s.unlock()
			return err
		}
		if f != nil {
			frames[f] = struct{}{}
		}
	}
	s.wakeKeeper()
	s.unlock()
	for f := range frames {
		if err := (Ticket{f}).Wait(); err != nil {
			return err
		}
	}
	return nil
}

// delete logs the end of one chunk and returns the frame that makes it durable, nil if
// there is nothing to do. mu is held.
func (s *Store) delete(id chunk.ID) (*frame, error) {
	r := s.index.find(id)
	if r == nil || !r.alive() {
		if r != nil { // perhaps a deletion that is on its way
			return s.frameOf(r), nil
		}
		return nil, nil
	}
	f, _, err := s.reserve(&part{chunk: id}, true, 0, 0)
	if err != nil {
		return nil, err
	}
	if r := s.index.find(id); r == nil || !r.alive() {
		f.undo(0, 0, 0)
		return s.delete(id)
	}
	s.log1(f, &entry{kind: kindDelete, chunk: id, lsn: s.nextLSN()}, nil)
	s.want(f)
	return f, nil
}
