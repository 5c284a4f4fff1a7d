package buffer

import (
	"context"
	"runtime"
	"testing"
	"time"
)

func TestBurst(t *testing.T) {
	const mb = 1 << 20
	var b burst
	for i, s := range []struct {
		given, goal uint64
		over        bool
	}{
		{10 * mb, 4 * mb, false},      // little
		{200 * mb, 4 * mb, false},     // a burst,
		{201 * mb, 4 * mb, false},     // that the collector has dealt with
		{600 * mb, 500 * mb, false},   // another one,
		{900 * mb, 500 * mb, false},   // which goes on
		{901 * mb, 500 * mb, true},    // and is over
		{902 * mb, 500 * mb, false},   // what is left is in use
		{909 * mb, 500 * mb, false},   // and used again slowly,
		{917 * mb, 500 * mb, false},   //
		{966 * mb, 500 * mb, false},   // faster,
		{967 * mb, 500 * mb, true},    // until it is worth a look
		{2000 * mb, 1000 * mb, false}, // and so on
		{2000 * mb, 1000 * mb, true},
	} {
		if got := b.over(s.given, s.goal); got != s.over {
			t.Errorf("step %d: over is %v", i, got)
		}
	}
}

// TestSettle lets many buffers go back to the pools: the memory is free again though nobody allocates.
func TestSettle(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Settle(ctx)
	}()
	var bs [][]byte
	for range 300 {
		bs = append(bs, Get(1<<20))
	}
	runtime.GC() // sees them all in use, and sets its goal by that
	for _, b := range bs {
		Put(b)
	}
	bs = nil
	var m runtime.MemStats
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if runtime.ReadMemStats(&m); m.HeapAlloc < 100<<20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d MB are still in use", m.HeapAlloc>>20)
		}
	}
	cancel()
	<-done
}
