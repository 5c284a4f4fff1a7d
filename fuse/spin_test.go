package fuse

import (
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

func TestSpinEndsWhenItDoesNotPay(t *testing.T) {
	var s spin
	s.init(time.Hour, nil)
	for range 100 {
		if !s.begin() {
			t.Fatal("it sleeps though requests come")
		}
		s.end(true)
	}
	tries := 0
	for range 10 * restFor {
		if s.begin() {
			tries++
			s.end(false)
		}
	}
	if most := creditMost + 10; tries > most || tries < creditMost+2 {
		t.Errorf("%d waits awake in vain of %d, want about %d", tries, 10*restFor, most)
	}
	for i := 0; !s.begin(); i++ {
		if i > restFor {
			t.Fatal("it is not tried again")
		}
	}
	s.end(true)
	for range creditMost {
		if !s.begin() {
			t.Fatal("it sleeps though requests come again")
		}
		s.end(true)
	}
}

func TestSpinIsBounded(t *testing.T) {
	var s spin
	s.init(time.Millisecond, nil)
	if !s.begin() {
		t.Fatal("it does not begin")
	}
	for s.more() {
	}
	if d := time.Since(s.since); d < time.Millisecond {
		t.Errorf("it gave up after %v", d)
	}
	s.end(false)
}

// TestFrames moves what may wait long, and has a small answer, out of large frames.
func TestFrames(t *testing.T) {
	var r requests
	r.large.New = func() any { return newFrame(maxRequest + headroom) }
	r.small.New = func() any { return newFrame(smallFrame) }
	for _, c := range []struct {
		opcode byte
		length int
		small  bool
	}{
		{opcode: 33, length: 88, small: true},   // SETLKW
		{opcode: 16, length: 4200, small: true}, // WRITE
		{opcode: 16, length: smallFrame + 1},
		{opcode: opcodeRead, length: 80},
		{opcode: opcodeReadDirPlus, length: 80},
	} {
		b := newFrame(maxRequest + headroom)
		b.in[4], b.in[60] = c.opcode, 7
		got := r.fit(b, c.length)
		if small := len(got.in) == smallFrame; small != c.small || got.in[60] != 7 {
			t.Errorf("opcode %d, %d bytes: small is %v", c.opcode, c.length, small)
		}
	}
	out := make([]byte, 64)
	if n := refuse(out, 9, gofuse.EIO); n != 16 || out[0] != 16 || int8(out[4]) != -5 || out[8] != 9 {
		t.Errorf("an error is answered as %v", out[:n])
	}
}
