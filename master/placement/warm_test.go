package placement

import (
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/varvefs/varve/chunk"
)

// TestWarm: lists that are taken in as chunks are asked for, and bit by bit, say
// the same as lists that are reported at once.
func TestWarm(t *testing.T) {
	const n = 5000
	rnd := rand.New(rand.NewPCG(7, 8))
	lists := map[chunk.Server]map[chunk.ID]chunk.Version{}
	for s := chunk.Server(1); s <= 3; s++ {
		lists[s] = map[chunk.ID]chunk.Version{}
		for range n {
			lists[s][chunk.ID(1+rnd.IntN(n+10))] = chunk.Version(rnd.IntN(3))
		}
	}
	make := func() *Placement {
		p := New(Config{}, alike(n+1))
		p.Start(0, []chunk.Server{1, 2, 3})
		for s := chunk.Server(1); s <= 3; s++ {
			p.ServerUp(0, ServerInfo{ID: s, Total: 1 << 40, Free: 1 << 39})
		}
		return p
	}
	atOnce, warm := make(), make()
	for s := chunk.Server(1); s <= 3; s++ {
		for id, v := range lists[s] {
			atOnce.Report(0, s, []Copy{{id, v}}, false)
		}
		warm.Warm(0, s, maps.Clone(lists[s]))
	}
	same := func(id chunk.ID) {
		t.Helper()
		a, b := map[CopyInfo]bool{}, map[CopyInfo]bool{}
		for _, c := range atOnce.Copies(id) {
			a[c] = true
		}
		for _, c := range warm.Copies(id) {
			b[c] = true
		}
		if !maps.Equal(a, b) {
			t.Fatalf("chunk %d has copies %v, told at once %v", id, b, a)
		}
	}
	for more := true; more; more = warm.Warming(100) {
		id := chunk.ID(1 + rnd.IntN(n))
		same(id)
		if len(warm.Usable(id)) != len(atOnce.Usable(id)) {
			t.Fatalf("chunk %d: %v usable, told at once %v", id, warm.Usable(id), atOnce.Usable(id))
		}
		if rnd.IntN(4) == 0 {
			id := chunk.ID(1 + rnd.IntN(n))
			atOnce.Lost(2, []chunk.ID{id})
			warm.Lost(2, []chunk.ID{id})
			atOnce.Report(0, 3, []Copy{{id, 1}}, false)
			warm.Report(0, 3, []Copy{{id, 1}}, false)
		}
	}
	for id := chunk.ID(1); id <= n+10; id++ {
		same(id)
	}
	for s := chunk.Server(1); s <= 3; s++ {
		atOnce.Report(0, s, nil, true)
		warm.Report(0, s, nil, true)
	}
	if a, b := atOnce.Stats(), warm.Stats(); a != b {
		t.Fatalf("%+v, told at once %+v", b, a)
	}
}
