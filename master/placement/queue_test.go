package placement

import (
	"math/rand/v2"
	"testing"
)

func TestQueue(t *testing.T) {
	var q queue
	var want []uint32
	rng := rand.New(rand.NewPCG(1, 2))
	next := uint32(0)
	for round := range 200 {
		for range rng.IntN(2 * queueBlock) {
			q.push(next)
			want = append(want, next)
			next++
		}
		out := rng.IntN(len(want) + 1)
		if round%10 == 9 {
			out = len(want)
		}
		for _, w := range want[:out] {
			if got := q.pop(); got != w {
				t.Fatalf("round %d: %d comes out, not %d", round, got, w)
			}
		}
		if want = want[out:]; q.len() != len(want) {
			t.Fatalf("round %d: %d are in it, not %d", round, q.len(), len(want))
		}
		if most := len(want)/queueBlock + 2; len(q.blocks) > most {
			t.Fatalf("round %d: %d blocks for %d numbers", round, len(q.blocks), len(want))
		}
	}
}
