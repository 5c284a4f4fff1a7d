package enginetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/varvefs/varve/engine"
)

// benchFile is the size of the file that the benchmarks work on, in bytes. All of it is
// written beforehand.
const benchFile = 64 << 20

// Bench measures a backend: reads in the calling goroutine, and submitted operations at
// several depths.
func Bench(b *testing.B, fresh func(t testing.TB) Place) {
	d := open(b, fresh(b))
	f := create(b, d, "bench", benchFile)
	must(b, f.Zero(0, benchFile))
	must(b, engine.Do(f, engine.Sync, nil, 0))
	for _, size := range []int{4096, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("ReadAt/%dK", size>>10), func(b *testing.B) { benchReadAt(b, f, size) })
	}
	for _, kind := range []engine.Kind{engine.Read, engine.WriteSync} {
		for _, callers := range []int{1, 2, 4, 8, 32} {
			b.Run(fmt.Sprintf("Wait/%s/4K/callers=%d", kind, callers), func(b *testing.B) {
				benchWait(b, f, kind, 4096, callers)
			})
		}
	}
	for _, kind := range []engine.Kind{engine.Read, engine.Write, engine.WriteSync} {
		for _, size := range []int{4096, 64 << 10, 1 << 20} {
			for _, depth := range []int{1, 8, 32} {
				b.Run(fmt.Sprintf("Submit/%s/%dK/depth=%d", kind, size>>10, depth), func(b *testing.B) {
					benchSubmit(b, f, kind, size, depth)
				})
			}
		}
	}
}

func benchReadAt(b *testing.B, f engine.File, size int) {
	buf := engine.Alloc(size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		must(b, f.ReadAt(buf, offset(size)))
	}
}

// benchWait has callers goroutines that submit one op each and wait for it, as a group
// commit with little to do.
func benchWait(b *testing.B, f engine.File, kind engine.Kind, size, callers int) {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			done := make(chan struct{}, 1)
			op := &engine.Op{Kind: kind, Buf: pattern(size, 0, 1), Done: func(*engine.Op) { done <- struct{}{} }}
			ops := []*engine.Op{op}
			for left.Add(-1) >= 0 {
				op.Off = offset(size)
				f.Submit(ops...)
				<-done
				if op.Err != nil {
					b.Error(op.Err)
					return
				}
			}
		}()
	}
	wg.Wait()
}

// benchSubmit keeps depth ops in flight, each submitted again out of its Done.
func benchSubmit(b *testing.B, f engine.File, kind engine.Kind, size, depth int) {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	var mu sync.Mutex
	var first error
	left := b.N
	var wg sync.WaitGroup
	next := func(ops []*engine.Op) {
		mu.Lock()
		if err := ops[0].Err; err != nil && first == nil {
			first = err
		}
		more := left > 0
		left--
		mu.Unlock()
		if !more {
			wg.Done()
			return
		}
		ops[0].Off = offset(size)
		f.Submit(ops...)
	}
	lanes := make([][]*engine.Op, depth)
	for i := range lanes {
		op := &engine.Op{Kind: kind, Buf: pattern(size, 0, 1)}
		lane := []*engine.Op{op}
		op.Done = func(*engine.Op) { next(lane) }
		lanes[i] = lane
	}
	wg.Add(depth)
	b.ResetTimer()
	for _, lane := range lanes {
		next(lane)
	}
	wg.Wait()
	must(b, first)
}

// offset is a random place for size bytes.
func offset(size int) int64 { return rand.Int64N(int64(benchFile/size)) * int64(size) }
