package segment

import (
	"bytes"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine/sim"
)

// TestCrowdedChunk: a chunk that random writes have cut into very many extents keeps them
// while it is written, and few of them when it has come to rest.
func TestCrowdedChunk(t *testing.T) {
	const blocks = 3 * crowdedMost
	d := sim.New(sim.Config{Mode: sim.Manual})
	cfg := Config{Disk: d, SegmentSize: 2 << 20, ContainerSegments: 8, Limit: 64 << 20, Create: &testIdentity, Log: testLog, step: d.Step}
	s := mustOpen(t, cfg)
	want := make([]byte, blocks*blockSize)
	for i := range uint32(blocks) {
		off := i * 2659 % blocks * blockSize // all of them, scattered
		data := fill(blockSize, uint64(i))
		copy(want[off:], data)
		if _, err := s.Write(Write{Chunk: 1, Version: 1, Create: true, Off: off, Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync([]chunk.ID{1}); err != nil {
		t.Fatal(err)
	}
	extents := func() uint32 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.index.find(1).body.n
	}
	for s.merge() {
	}
	if n := extents(); n < blocks/2 {
		t.Fatalf("%d extents are left of a chunk that is being written", n)
	}
	s.mu.Lock()
	s.crowded[1] = time.Now().Add(-2 * crowdedRest)
	s.unlock()
	for s.merge() {
	}
	if n := extents(); n > crowdedMost {
		t.Errorf("%d extents are left of a chunk at rest", n)
	}
	got := make([]byte, len(want))
	if _, err := s.Read(1, 1, 1, 0, got, nil); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the merged chunk reads wrong: %v", err)
	}
	checkBooks(t, "crowded", s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
