package link

import (
	"sync"
	"testing"

	"github.com/varvefs/varve/wire"
)

// BenchmarkCall is the latency of one small call on an idle connection.
func BenchmarkCall(b *testing.B) {
	c := dial(b, listen(b, echo), nil)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Call(bg, &wire.Ping{}, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCalls is the rate of small calls from many goroutines.
func BenchmarkCalls(b *testing.B) {
	c := dial(b, listen(b, echo), nil)
	b.SetParallelism(64)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := c.Call(bg, &wire.Ping{}, nil, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkWrite1M keeps 8 writes of 1 MiB under way.
func BenchmarkWrite1M(b *testing.B) {
	c := dial(b, listen(b, HandlerFunc(func(c *Conn, r *Request) { r.Reply(nil, nil, nil); r.Free() })), nil)
	data := make([]byte, 1<<20)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for b.Loop() {
		slots <- struct{}{}
		wg.Add(1)
		c.Start(&wire.Write{}, data, func(r *Reply) { r.Free(); <-slots; wg.Done() })
	}
	wg.Wait()
}

// BenchmarkRead1M reads 1 MiB at a time into the same buffer, 4 at once.
func BenchmarkRead1M(b *testing.B) {
	c := dial(b, listen(b, echo), nil)
	b.SetBytes(1 << 20)
	b.SetParallelism(2)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		into := make([]byte, 1<<20)
		for pb.Next() {
			if _, err := c.CallData(bg, &wire.Read{Len: 1 << 20}, into, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}
