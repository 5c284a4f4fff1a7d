package buffer

import (
	"context"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// After a burst of large buffers the pools hold them, and the collector, which by its goal waits
// until as much again has been allocated, does not come for long: the process keeps hundreds of
// megabytes, and all small objects meanwhile lie in memory that is new to it. Where a page fault
// is expensive, in a virtual machine, that costs far more than to collect.

const (
	settleEvery = time.Second
	calmBytes   = 8 << 20  // in large buffers, in settleEvery, up to which nothing is going on
	burstBytes  = 64 << 20 // in large buffers, since the last time, from which it is worth while
	smallGoal   = 64 << 20 // of the collector, that can stay
)

// given is how many bytes Get has ever given out in large buffers.
var given atomic.Uint64

// Settle collects what bursts leave behind, as soon as they are over, until ctx ends.
func Settle(ctx context.Context) {
	t := time.NewTicker(settleEvery)
	defer t.Stop()
	goal := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
	var b burst
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		metrics.Read(goal)
		if b.over(given.Load(), goal[0].Value.Uint64()) {
			runtime.GC() // the pools keep for one cycle what they held
			runtime.GC()
		}
	}
}

// burst knows how much was given.
type burst struct{ last, settled uint64 }

// over says whether it is time to collect.
func (b *burst) over(given, goal uint64) bool {
	calm := given-b.last <= calmBytes
	b.last = given
	if !calm || goal <= smallGoal || given-b.settled < burstBytes {
		return false
	}
	b.settled = given
	return true
}
