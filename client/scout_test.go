package client

import (
	"net"
	"testing"
	"time"
)

// Attempts to reach a master are close together at first, and far apart after long
// in which none was heard of; a connection that lived, or news, begins anew.
func TestPace(t *testing.T) {
	var p pace
	sum, n := time.Duration(0), 0
	for sum < scoutWeary {
		sum += p.next(0, sum)
		if n++; n == 3 && sum > 200*time.Millisecond {
			t.Errorf("the first three pauses are %v", sum)
		}
	}
	if p.slow() {
		t.Errorf("pauses of %v in the first minute", p.wait)
	}
	for range 3 {
		p.next(0, scoutWeary+time.Second)
	}
	if p.wait != scoutSlow || !p.slow() {
		t.Errorf("pauses of %v after a minute", p.wait)
	}
	if p.next(0, 0); p.wait != scoutLongest {
		t.Errorf("a pause of %v after news", p.wait)
	}
	if p.next(time.Hour, 0); p.wait != backoffMin {
		t.Errorf("a pause of %v after a connection", p.wait)
	}
	if p.next(time.Millisecond, 0); p.wait != 2*backoffMin {
		t.Errorf("a pause of %v after a connection that ended at once", p.wait)
	}
}

// A scout that has rested for long is called when another master is reached.
func TestStir(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tries := make(chan time.Time, 1000)
	go func() { // accepts, and says nothing
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			nc.Close()
			tries <- time.Now()
		}
	}()
	c := startCluster(t, 1, false)
	cl := c.connect(nil)
	s := cl.ses
	s.mu.Lock()
	s.stirred -= int64(2 * scoutWeary)
	s.mu.Unlock()
	s.scoutFor(l.Addr().String(), nil)
	last := <-tries
	for at := range tries {
		if at.Sub(last) > scoutSlow-50*time.Millisecond {
			break
		}
		last = at
	}
	_, before := s.quiet()
	s.stir()
	select {
	case <-before:
	default:
		t.Fatal("nobody was called")
	}
	<-tries
	if quiet, _ := s.quiet(); quiet > scoutWeary {
		t.Errorf("no news for %v", quiet)
	}
}
