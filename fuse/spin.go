package fuse

import (
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// spin decides whether to wait awake for the next request. A program that calls
// again and again is answered without a thread having to be woken; what that
// costs is processor time that nobody may need. So it is done for a bounded time,
// and only as long as it mostly pays: like the halt polling of KVM, which shares
// its reason. It belongs to the one whose turn it is to read.
type spin struct {
	most   time.Duration
	credit int       // of the last tries, failures count against successes
	rest   int       // waits to be slept through
	since  time.Time // begin of this wait
	turns  int

	hits, misses *metrics.Counter
}

const (
	creditMost = 4  // so many failures in a row end it
	restFor    = 64 // sleeping waits, until it is tried again
	turnsClock = 8  // tries between looks at the clock
)

func (s *spin) init(most time.Duration, set *metrics.Set) {
	if set == nil {
		set = metrics.NewSet()
	}
	s.most, s.credit = most, creditMost
	s.hits = set.GetOrCreateCounter(`varve_fuse_spins_total{result="request"}`)
	s.misses = set.GetOrCreateCounter(`varve_fuse_spins_total{result="none"}`)
}

// begin says whether to wait awake; then end must be called.
func (s *spin) begin() bool {
	if s.credit == 0 {
		if s.rest--; s.rest > 0 {
			return false
		}
		s.credit = 1
	}
	s.since, s.turns = time.Now(), 0
	return true
}

// more says whether it is time for another try.
func (s *spin) more() bool {
	if s.turns++; s.turns%turnsClock != 0 {
		return true
	}
	return time.Since(s.since) < s.most
}

// end notes whether a request came.
func (s *spin) end(came bool) {
	if came {
		s.credit = min(s.credit+1, creditMost)
		s.hits.Inc()
	} else {
		if s.credit--; s.credit == 0 {
			s.rest = restFor
		}
		s.misses.Inc()
	}
}
