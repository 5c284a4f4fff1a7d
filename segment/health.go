package segment

import (
	"fmt"
	"time"
)

// A disk that answers, but far too late, is worse than one that fails: everybody waits
// for it. The watcher looks every second at the operations in flight and at those that
// ended since, and calls the disk slow when that happens again and again. An operation
// that does not end at all makes the disk a failed one.

const (
	slowAfter = 2 * time.Second  // an operation that takes longer is slow
	failAfter = 60 * time.Second // an operation that takes longer never ends
	slowEnter = 3                // slow seconds of the last slowWindow that make a disk slow
	slowSpan  = 10               // seconds
	slowLeave = 30               // seconds without a slow one that make it a good one again
)

// health is how quick the disk is. Guarded by Store.mu.
type health struct {
	slow   bool
	why    string         // what was slow last
	worst  time.Duration  // the longest operation that ended since the last look
	recent [slowSpan]bool // the last looks: was one slow
	at     int            // next of recent
	good   int            // looks since the last slow one
	reads  []*reader      // under way
	enter  time.Duration  // slowAfter
	giveUp time.Duration  // failAfter
}

// readBegins notes that the I/O of a read begins; letGo that it has ended. mu is held.
func (s *Store) readBegins(r *reader) {
	h := &s.health
	r.began, r.slot, r.watched = time.Now(), len(h.reads), true
	h.reads = append(h.reads, r)
	r.queue = s.queues && len(h.reads) > readsAlone
}

// readEnded takes a read off. mu is held.
func (s *Store) readEnded(r *reader, took time.Duration) {
	h := &s.health
	h.worst = max(h.worst, took)
	last := len(h.reads) - 1
	h.reads[r.slot], h.reads[last].slot = h.reads[last], r.slot
	h.reads[last] = nil
	h.reads = h.reads[:last]
	r.watched = false
}

// Slow tells whether the disk takes unusually long for what it does, and what it was that
// took so long. Such a disk is best left alone by those who can choose.
func (s *Store) Slow() (why string, slow bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health.why, s.health.slow
}

// watch is the watcher.
func (s *Store) watch() {
	defer s.workers.Done()
	tick := time.NewTicker(min(time.Second, s.health.enter/2))
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case now := <-tick.C:
			s.mu.Lock()
			s.look(now)
			s.unlock()
		}
	}
}

// oldest is the longest time that an operation in flight has taken so far. mu is held.
func (s *Store) oldest(now time.Time) (d time.Duration, what string) {
	note := func(began time.Time, kind string) {
		if t := now.Sub(began); t > d {
			d, what = t, kind
		}
	}
	for i := range s.heads {
		for _, f := range s.heads[i].flight {
			if f.launched && !f.written {
				note(f.began, "write")
			}
		}
	}
	for _, r := range s.health.reads {
		note(r.began, "read")
	}
	return d, what
}

// look judges the time since the last look. mu is held.
func (s *Store) look(now time.Time) {
	h := &s.health
	took, what := s.oldest(now)
	if took > h.giveUp && s.failed == nil {
		s.fail(fmt.Errorf("a %s has not ended for %v; the disk or its driver hangs", what, took.Round(time.Second)))
		return
	}
	if what = "a " + what + " that is under way"; h.worst > took {
		took, what = h.worst, "an operation"
	}
	h.worst = 0
	bad := took > h.enter
	h.recent[h.at] = bad
	h.at = (h.at + 1) % slowSpan
	if h.good++; bad {
		h.good = 0
		h.why = fmt.Sprintf("%s took %v", what, took.Round(time.Millisecond))
		s.stat.slowTicks.Inc()
	}
	n := 0
	for _, b := range h.recent {
		if b {
			n++
		}
	}
	switch {
	case !h.slow && n >= slowEnter:
		h.slow = true
		s.log.Warn("disk is slow, nothing new is placed on it", "disk", fmt.Sprintf("%016x", s.diskID), "why", h.why)
	case h.slow && h.good >= slowLeave:
		h.slow, h.why = false, ""
		s.log.Info("disk is as quick as before", "disk", fmt.Sprintf("%016x", s.diskID))
	}
}
