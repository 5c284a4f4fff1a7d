package perf

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestCleaning holds what a store writes at most for overwrites of a small one, which has
// a larger part of its room set aside than a large one.
func TestCleaning(t *testing.T) {
	for _, w := range []cleaningRow{{"uniform", 0.80, 0, false}, {"zipf 1.1", 0.95, 1.1, false}, {"files", 0.95, 0, true}} {
		row, err := w.run(t.Context(), 48)
		if err != nil {
			t.Fatal(err)
		}
		if t.Logf("%s: %.2f", row.Name, row.Value); row.Value < 1 || row.Value > 4 {
			t.Errorf("%s: %.2f", row.Name, row.Value)
		}
	}
}

// TestLeast holds the theory to the figures that are known of it.
func TestLeast(t *testing.T) {
	for fill, want := range map[float64]float64{0.5: 1.26, 0.8: 2.69, 0.9: 5.2} {
		if got := leastAmplification(fill); math.Abs(got/want-1) > 0.02 {
			t.Errorf("%v: %.2f, not %v", fill, got, want)
		}
	}
}

// TestZipf: the first draw is as much more likely than the tenth as it should be.
func TestZipf(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	draw, seen := zipf(100, 1), make(map[int]int)
	for range 100000 {
		seen[draw(rnd)]++
	}
	place := rand.New(rand.NewPCG(1, 2)).Perm(100)
	if first, tenth := seen[place[0]], seen[place[9]]; first < 8*tenth || first > 12*tenth {
		t.Errorf("the first was drawn %d times, the tenth %d times", first, tenth)
	}
}
