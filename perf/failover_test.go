package perf

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What the load says was acknowledged is there, and what is taken away is noticed.
func TestFailoverRecord(t *testing.T) {
	dir := t.TempDir()
	o := FailoverOptions{Dir: dir, Workers: 2, Data: 1, Keep: 5, Sync: 3, Pace: time.Microsecond, Duration: time.Minute, Record: filepath.Join(t.TempDir(), "record")}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { _, err := Failover(ctx, o); ended <- err }()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if list, _ := filepath.Glob(filepath.Join(dir, "w1", "f00002*")); len(list) > 0 || time.Now().After(deadline) || len(ended) > 0 {
			break
		}
	}
	cancel()
	if err := <-ended; errors.Is(err, unix.EINVAL) {
		t.Skip("no direct I/O here: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	r, err := ReadFailoverRecord(o.Record)
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.Check(dir)
	if err != nil || len(c.Lost)+len(c.Returned) > 0 {
		t.Fatalf("%+v %v", c, err)
	}
	if n := len(r.There); r.Done < 400 || r.Moved == 0 || r.Failed > 0 || n == 0 || n > 2*(o.Keep+2) {
		t.Fatalf("%d changes, %d failed (%s), %d left, %d pieces moved", r.Done, r.Failed, r.Error, n, r.Moved)
	}
	if err := os.Remove(filepath.Join(dir, r.There[0])); err != nil {
		t.Fatal(err)
	}
	if c, err := r.Check(dir); err != nil || len(c.Lost) != 1 || c.Lost[0] != r.There[0] {
		t.Errorf("%+v %v", c, err)
	}
}

func TestLongest(t *testing.T) {
	at := time.Unix(1000, 0)
	ms := func(n int) time.Time { return at.Add(time.Duration(n) * time.Millisecond) }
	gaps := []FailoverGap{{From: ms(0), Millis: 50}, {From: ms(100), Millis: 30}, {From: ms(500), Millis: 200}}
	for _, c := range []struct {
		from, to int
		want     float64
	}{{0, 1000, 200}, {60, 400, 30}, {40, 400, 50}, {140, 400, 0}, {600, 601, 200}} {
		if got := Longest(gaps, ms(c.from), ms(c.to)).Millis; got != c.want {
			t.Errorf("%d..%d: %v, not %v", c.from, c.to, got, c.want)
		}
	}
}
