package segment

import (
	"testing"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/open"
)

// TestAllocs holds what is done for every request in a steady state to its number of
// allocations: unlike time, that can be counted on a busy machine. The one of a write is
// its frame, which all writes share that travel in it.
func TestAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	d, err := open.Open(t.TempDir(), open.POSIX, testLog)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s := mustOpen(t, Config{Disk: d, SegmentSize: 16 << 20, ContainerSegments: 4, Limit: 512 << 20, Create: &testIdentity, Log: testLog})
	defer s.Close()
	block := engine.Alloc(blockSize)
	copy(block, fill(blockSize, 1))
	large := engine.Alloc(512 << 10)
	copy(large, fill(len(large), 2))
	sums, largeSums := chunk.AppendSums(nil, 0, block), chunk.AppendSums(nil, 0, large)
	i := uint32(0)
	write := func(id chunk.ID, data []byte, sums []uint32, many uint32) {
		i += 7
		tk, err := s.Write(Write{Chunk: id, Version: 1, Create: true, Off: i % many * uint32(len(data)), Data: data, Sums: sums})
		if err == nil {
			err = tk.Wait()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 512 { // all places of the chunk have their extents
		write(1, block, sums, 512)
	}
	for range 16 {
		write(2, large, largeSums, 16)
	}
	buf := engine.Alloc(512 << 10)
	var got []uint32
	read := func(id chunk.ID, off, n uint32) {
		var err error
		if got, err = s.Read(id, 1, 1, off, buf[:n], got[:0]); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		most float64
		call func()
	}{
		{"read a block", 0, func() { i += 7; read(1, i%512*blockSize, blockSize) }},
		{"read part of a block", 0, func() { i += 7; read(1, i%512*blockSize+100, 1000) }},
		{"read 128 KiB of single blocks", 2, func() { i += 7; read(1, i%256*blockSize, 128<<10) }},
		{"read 512 KiB", 0, func() { i += 7; read(2, i%8<<19, 512<<10) }},
		{"write a block with its sum and wait", 1, func() { write(1, block, sums, 512) }},
		{"write a block and wait", 2, func() { write(1, block, nil, 512) }},
		{"write 512 KiB with sums and wait", 1, func() { write(2, large, largeSums, 16) }},
	} {
		n := testing.AllocsPerRun(200, c.call)
		t.Logf("%s: %v allocations", c.name, n)
		if n > c.most {
			t.Errorf("%s: %v allocations, at most %v are allowed", c.name, n, c.most)
		}
	}
}
