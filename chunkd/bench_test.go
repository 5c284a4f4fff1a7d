package chunkd

import (
	"sync"
	"testing"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/wire"
)

// benchWrites keeps depth writes of size bytes under way on one connection.
func benchWrites(b *testing.B, depth, size int, durable bool, chain func(m *testMaster) []wire.Replica) {
	m := newMaster(b)
	cfg := testConfig(b, m)
	cfg.SegmentSize, cfg.Limit = 16<<20, 2<<30
	s := startWith(b, cfg)
	ready(b, s)
	u := use(b, s)
	hops := chain(m)
	d := data(size, 1)
	slots := make(chan struct{}, depth)
	var wg sync.WaitGroup
	b.SetBytes(int64(size))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		off := uint32(i*size) % (32 << 20)
		w := wire.Write{Chunk: chunk.ID(1 + i%4), Create: true, Off: off, Sync: durable, Chain: hops}
		u.fill(&w, d)
		slots <- struct{}{}
		wg.Add(1)
		u.c.Start(&w, d, func(r *link.Reply) {
			var reply wire.WriteReply
			if err := r.Decode(&reply); err != nil || reply.Failed != 0 {
				b.Errorf("%v %+v", err, reply)
			}
			r.Free()
			<-slots
			wg.Done()
		})
		i++
	}
	wg.Wait()
}

func alone(*testMaster) []wire.Replica { return nil }

func BenchmarkWriteSync4K(b *testing.B) { benchWrites(b, 32, 4096, true, alone) }
func BenchmarkWrite4K(b *testing.B)     { benchWrites(b, 32, 4096, false, alone) }
func BenchmarkWrite1M(b *testing.B)     { benchWrites(b, 8, 1<<20, false, alone) }
func BenchmarkChain1M(b *testing.B) {
	benchWrites(b, 8, 1<<20, false, func(m *testMaster) []wire.Replica {
		cfg := testConfig(b, m)
		cfg.SegmentSize, cfg.Limit = 16<<20, 2<<30
		s := startWith(b, cfg)
		ready(b, s)
		return []wire.Replica{replica(s)}
	})
}

// benchReads reads size bytes at a time from a chunk that was written before.
func benchReads(b *testing.B, size uint32) {
	s := start(b, newMaster(b))
	u := use(b, s)
	for off := uint32(0); off < 32<<20; off += 1 << 20 {
		u.write(wire.Write{Chunk: 1, Create: true, Off: off}, data(1<<20, 1))
	}
	u.sync(1)
	token := sign(wire.Token{Chunk: 1, Version: 1})
	b.SetBytes(int64(size))
	b.SetParallelism(4)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		buf := make([]byte, size)
		var reply wire.ReadReply
		for i := uint32(0); pb.Next(); i++ {
			m := wire.Read{Chunk: 1, Min: 1, Version: 1, Off: i * 7919 * 4096 % (30 << 20), Len: size, Token: token}
			if _, err := u.c.CallData(bg, &m, buf, &reply); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkRead4K(b *testing.B) { benchReads(b, 4096) }
func BenchmarkRead1M(b *testing.B) { benchReads(b, 1<<20) }
