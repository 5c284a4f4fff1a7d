package segment

import "time"

// The cleaner and those who write share the disk and the room. While there is room, the
// cleaner steps back when frames take longer than they do without it. When room gets short
// it does not, and data is let in as fast as it makes room, so that nobody has to wait
// for a whole segment.

// pacing is guarded by Store.mu.
type pacing struct {
	cleaning bool          // a segment is being emptied
	credit   int64         // bytes of data that may come in while room is short
	gain     float64       // bytes of room that a moved byte gives
	latency  time.Duration // of a frame with small writes, lately
	calm     time.Duration // the same while nothing was being cleaned
	last     time.Time     // when such a frame was done
	rest     time.Duration // for each time that cleaning takes: how often that long it rests
}

const (
	creditMost = 4 << 20                // bytes
	gainLeast  = 1.0 / 20               // from the fullest segment that is worth emptying
	gainMost   = 64                     // from one that is nearly dead
	restMost   = 16                     // times
	restLong   = 50 * time.Millisecond  // at a time, at most
	idleAfter  = 100 * time.Millisecond // without a frame nobody is disturbed
)

// emptying notes that a segment begins to be emptied. mu is held.
func (s *Store) emptying(g *segment) {
	p := &s.pacing
	p.cleaning = true
	p.gain = max(gainLeast, min(gainMost, float64(s.payload()-g.live)/float64(max(g.live, 1))))
	p.credit = max(0, min(p.credit, creditMost))
}

// rested notes that no segment is being emptied. mu is held.
func (s *Store) rested() {
	s.pacing.cleaning = false
	s.changed.Broadcast()
}

// earn lets data in for n bytes that were moved. mu is held.
func (s *Store) earn(n uint32) {
	p := &s.pacing
	poor := p.credit <= 0
	p.credit = min(p.credit+int64(float64(n)*p.gain), creditMost)
	if poor && p.credit > 0 {
		s.changed.Broadcast()
	}
}

// mayEnter tells whether data may come in now: always, unless room is short and the cleaner
// at work. mu is held.
func (s *Store) mayEnter() bool {
	p := &s.pacing
	return !p.cleaning || s.step != nil || p.credit > 0 || s.freeSegments() > s.pressed()
}

// enter takes n bytes of data into account. mu is held.
func (s *Store) enter(n uint32) { s.pacing.credit = max(s.pacing.credit-int64(n), -creditMost) }

// timed notes how long a frame of small writes took. mu is held.
func (s *Store) timed(f *frame) {
	if f.seal || f.head.n != headSmall || f.count == 0 {
		return
	}
	p := &s.pacing
	p.last = time.Now()
	took := p.last.Sub(f.began)
	p.latency += (took - p.latency) / 16
	if !p.cleaning {
		p.calm += (took - p.calm) / 64
	}
}

// ease rests after a piece of cleaning that began at the given time, if there is room enough
// and somebody is disturbed. mu is not held.
func (s *Store) ease(began time.Time) {
	if s.step != nil {
		return
	}
	took := time.Since(began)
	s.mu.Lock()
	p := &s.pacing
	switch {
	case s.freeSegments() <= s.pressed() || time.Since(p.last) > idleAfter:
		p.rest = 0
	case p.latency > 2*p.calm:
		p.rest = min(max(1, 2*p.rest), restMost)
	default:
		p.rest /= 2
	}
	pause := min(took*p.rest, restLong)
	s.unlock()
	if pause > 0 {
		select {
		case <-s.stop:
		case <-time.After(pause):
		}
	}
}
