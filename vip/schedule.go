package vip

import "time"

// burst are the times after taking an address, or after a reason to doubt that
// all neighbours know, at which it is announced.
var burst = []time.Duration{
	0, 50 * time.Millisecond, 150 * time.Millisecond, 350 * time.Millisecond, 750 * time.Millisecond,
	1500 * time.Millisecond, 3 * time.Second, 5 * time.Second,
}

// slow is the pause between announcements after the burst.
const slow = 15 * time.Second

// schedule says when an address is to be announced next. Times are of the boot clock.
type schedule struct {
	begin time.Duration // of the burst
	next  int           // index in burst; len(burst) and more: slow ones
}

// restart begins a new burst.
func (s *schedule) restart(now time.Duration) { *s = schedule{begin: now} }

// at is when the next announcement is due.
func (s *schedule) at() time.Duration {
	if s.next < len(burst) {
		return s.begin + burst[s.next]
	}
	return s.begin + burst[len(burst)-1] + time.Duration(s.next-len(burst)+1)*slow
}

// done notes an announcement made at now. Times that were missed are skipped:
// a host that slept has no reason to shout several times at once.
func (s *schedule) done(now time.Duration) {
	for s.at() <= now {
		s.next++
	}
}
