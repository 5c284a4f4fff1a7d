package segment

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/posix"
)

// The benchmarks run on whatever disk the temporary directory is on; compare them with
// each other and with BenchmarkRawSync, not between machines.

func benchDisk(b *testing.B) engine.Disk {
	d, err := posix.Open(b.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { d.Close() })
	return d
}

func benchStore(b *testing.B) *Store {
	s, err := Open(Config{Disk: benchDisk(b), ContainerSegments: 4, Limit: 4 << 30, Create: &testIdentity})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	for s.preparedSegments() < preparedAhead {
	}
	return s
}

func (s *Store) preparedSegments() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.written)
}

// BenchmarkRawSync is what the disk alone takes for a frame with one block.
func BenchmarkRawSync(b *testing.B) {
	f, err := benchDisk(b).Create("raw", 64<<20)
	if err != nil {
		b.Fatal(err)
	}
	if err := f.Zero(0, 64<<20); err != nil {
		b.Fatal(err)
	}
	if err := engine.Do(f, engine.Sync, nil, 0); err != nil {
		b.Fatal(err)
	}
	buf := engine.Alloc(8192)
	off := int64(0)
	for b.Loop() {
		if err := engine.Do(f, engine.WriteSync, buf, off); err != nil {
			b.Fatal(err)
		}
		off = (off + 8192) % (64 << 20)
	}
}

// BenchmarkWriteWait is one writer that waits for each block.
func BenchmarkWriteWait(b *testing.B) {
	s := benchStore(b)
	data := fill(blockSize, 1)
	sums := chunk.AppendSums(nil, 0, data)
	i := uint32(0)
	b.ReportAllocs()
	for b.Loop() {
		t, err := s.Write(Write{Chunk: 1, Version: 1, Create: true, Off: i % 4096 * blockSize, Data: data, Sums: sums})
		if err == nil {
			err = t.Wait()
		}
		if err != nil {
			b.Fatal(err)
		}
		i += 7
	}
}

// BenchmarkWriters is 64 writers that wait for each block.
func BenchmarkWriters(b *testing.B) {
	s := benchStore(b)
	data := fill(blockSize, 1)
	sums := chunk.AppendSums(nil, 0, data)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range 64 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				t, err := s.Write(Write{Chunk: chunk.ID(1 + i%16), Version: 1, Create: true, Off: uint32(i) * 7 % 4096 * blockSize, Data: data, Sums: sums})
				if err == nil {
					err = t.Wait()
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkStream writes blocks of 1 MiB one behind the other, copied or lent.
func BenchmarkStream(b *testing.B) {
	data := fill(1<<20, 1)
	sums := chunk.AppendSums(nil, 0, data)
	stream := func(b *testing.B, write func(s *Store, w Write) (Ticket, error)) {
		s := benchStore(b)
		b.SetBytes(1 << 20)
		i := 0
		var last Ticket
		for b.Loop() {
			t, err := write(s, Write{Chunk: chunk.ID(1 + i/64%8), Version: 1, Create: true, Off: uint32(i%64) << 20, Data: data, Sums: sums})
			if err != nil {
				b.Fatal(err)
			}
			last = t
			i++
		}
		if err := last.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("copied", func(b *testing.B) {
		stream(b, func(s *Store, w Write) (Ticket, error) { return s.Write(w) })
	})
	b.Run("lent", func(b *testing.B) {
		rooms := make(chan []byte, 2*maxFlight)
		for range cap(rooms) {
			room := engine.Alloc(HeadRoom + len(data))
			copy(room[HeadRoom:], data)
			rooms <- room
		}
		stream(b, func(s *Store, w Write) (Ticket, error) {
			room := <-rooms
			w.Data, w.Room, w.Done = room[HeadRoom:], room, func() { rooms <- room }
			return s.Write(w)
		})
	})
}

// BenchmarkRead reads random blocks.
func BenchmarkRead(b *testing.B) {
	s := benchStore(b)
	data := fill(1<<20, 1)
	var last Ticket
	for i := range 64 {
		t, err := s.Write(Write{Chunk: 1, Version: 1, Create: true, Off: uint32(i) << 20, Data: data})
		if err != nil {
			b.Fatal(err)
		}
		last = t
	}
	if err := last.Wait(); err != nil {
		b.Fatal(err)
	}
	buf := engine.Alloc(blockSize)
	var sums []uint32
	i := uint32(0)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if sums, err = s.Read(1, 1, 1, i%chunk.Blocks*blockSize, buf, sums[:0]); err != nil {
			b.Fatal(err)
		}
		i += 7919
	}
}
