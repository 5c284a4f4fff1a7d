package segment

import (
	"cmp"
	"math"
	"slices"
)

// Which segment is emptied next. Dead ones at once: in a file system most room comes back
// from whole files. While there is still some room to write to, those that give most room for
// what has to be read and written, which is what is alive, times the root of their age:
// what is old and still alive will stay so, what is young will soon be dead by itself. The
// root, because bytes that die at a rate r cost r/(1-u) to keep if their segments are emptied
// when the part u is alive; some more room for them saves r/(1-u)^2, and room is shared best
// when that is the same for all. When room gets short, the emptiest.

// victim picks the segment to empty, nil if none is worth it. mu is held.
func (s *Store) victim() *segment {
	if s.usable() != nil {
		return nil
	}
	var unsealed []*segment
	for _, g := range s.segs {
		if g.unsealed {
			unsealed = append(unsealed, g)
		}
	}
	var emptiest *segment
	var full []*segment
	for _, g := range s.segs {
		if !g.emptiable() || g.follows(unsealed) {
			continue
		}
		if g.unsealed || g.evict && s.freeSegments() > metaFloor {
			return g
		}
		if emptiest == nil || g.live < emptiest.live {
			emptiest = g
		}
		full = append(full, g)
	}
	if s.index.live < s.leastLive {
		s.progress()
	}
	free := s.freeSegments()
	switch {
	case emptiest == nil:
	case emptiest.live < s.cheap():
		return emptiest
	case free > s.pressed() && free < s.lowWater():
		if g := s.worthiest(full); g != nil {
			return g
		}
		return s.pressing(emptiest)
	case free < s.lowWater():
		s.plan = nil
		return s.pressing(emptiest)
	}
	return nil
}

// pressing returns the emptiest segment if to empty it gains anything, or notes that
// nothing does. mu is held.
func (s *Store) pressing(emptiest *segment) *segment {
	if emptiest.live < s.payload()/20*19 && s.futile < len(s.segs) {
		return emptiest
	}
	if s.freeSegments() <= dataFloor {
		s.stuck = true
		s.changed.Broadcast()
	}
	return nil
}

const (
	planned  = 8       // segments that are picked together, to be emptied in the order of their age
	worthMax = 4.0 / 5 // part of a segment that may be alive for it to be worth while without need
)

// worthiest returns the next of the segments that are worth most. Several are picked at a
// time and emptied from the oldest to the youngest, so that what is kept lies beside what
// is as old. mu is held.
func (s *Store) worthiest(full []*segment) *segment {
	limit := int64(float64(s.payload()) * worthMax)
	for len(s.plan) > 0 {
		g := s.plan[0]
		s.plan = s.plan[1:]
		if slices.Contains(full, g) && g.live < limit {
			return g
		}
	}
	type worth struct {
		g     *segment
		value float64
	}
	var list []worth
	for _, g := range full {
		if g.live < limit {
			u := float64(g.live) / float64(s.payload())
			list = append(list, worth{g, (1 - u) / u * math.Sqrt(float64(s.lsn-g.born()))})
		}
	}
	slices.SortFunc(list, func(a, b worth) int { return cmp.Compare(b.value, a.value) })
	for _, w := range list[:min(planned, len(list))] {
		s.plan = append(s.plan, w.g)
	}
	slices.SortFunc(s.plan, func(a, b *segment) int { return cmp.Compare(a.born(), b.born()) })
	if len(s.plan) == 0 {
		return nil
	}
	g := s.plan[0]
	s.plan = s.plan[1:]
	return g
}

// born is about the LSN at which the contents of g were written, before any cleaning.
func (g *segment) born() uint64 {
	if g.inherited > 0 {
		return uint64(g.ages / float64(g.inherited))
	}
	return g.lsn
}

// inherit notes that n bytes of a segment go on living in g.
func (g *segment) inherit(from *segment, n uint32) {
	g.ages += float64(n) * float64(from.born())
	g.inherited += int64(n)
}
