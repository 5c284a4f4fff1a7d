package chunkd

import (
	"testing"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/wire"
)

// TestAllocs holds a read and a write, from the client's call to its answer, to their
// number of allocations. Client, link and server count together: they are one process here.
func TestAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s := start(t, newMaster(t))
	u := use(t, s)
	block := data(4096, 1)
	w := wire.Write{Chunk: 1, Create: true, Sync: true}
	u.fill(&w, block)
	write := func(off uint32) {
		w.Off = off
		u.write(w, block)
	}
	for i := range uint32(256) {
		write(i * 4096)
	}
	token := sign(wire.Token{Chunk: 1, Version: 1})
	buf := make([]byte, 4096)
	var reply wire.ReadReply
	i := uint32(0)
	for _, c := range []struct {
		name string
		most float64
		call func()
	}{
		{"read 4 KiB", 6, func() {
			i += 7
			m := wire.Read{Chunk: chunk.ID(1), Min: 1, Version: 1, Off: i % 256 * 4096, Len: 4096, Token: token}
			if _, err := u.c.CallData(bg, &m, buf, &reply); err != nil {
				t.Fatal(err)
			}
		}},
		{"write 4 KiB, durable", 13, func() { i += 7; write(i % 256 * 4096) }},
	} {
		// What runs beside the calls allocates by the second, the more the slower the disk is:
		// the calls' own are in each round, so the least of some is nearest to them.
		n := testing.AllocsPerRun(100, c.call)
		for range 4 {
			n = min(n, testing.AllocsPerRun(100, c.call))
		}
		t.Logf("%s: %v allocations", c.name, n)
		if n > c.most {
			t.Errorf("%s: %v allocations, at most %v are allowed", c.name, n, c.most)
		}
	}
}
