package segment

import "github.com/varvefs/varve/status"

// writeFailed handles an I/O error of a frame. mu is held.
func (s *Store) writeFailed(f *frame, err error) {
	s.stat.failures.Inc()
	s.fail(err)
}

// fail gives the disk up: nothing more is accepted, and all that waits is told. mu is
// held.
func (s *Store) fail(err error) {
	if s.failed != nil {
		return
	}
	s.failed = status.Errorf(status.DiskFailed, "disk %016x: %v", s.super.id.Disk, err)
	s.log.Error("disk failed", "disk", s.super.id.Disk, "error", err)
	for i := range s.heads {
		h := &s.heads[i]
		for _, f := range h.flight {
			s.finish(f, s.failed)
		}
		h.flight = nil
		if h.open != nil {
			s.finish(h.open, s.failed)
			h.open = nil
		}
	}
	s.announce(Event{Kind: Failed, Err: err})
	s.changed.Broadcast()
}
