package perf

import "testing"

// TestFootprint holds what an extent of 64 KiB takes with its sums to what memory is planned
// with, 80 bytes, and what a store takes by itself.
func TestFootprint(t *testing.T) {
	w := footprintRow{extent: 64 << 10, extents: 60_000}
	s, bytes, err := w.fill(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n := bytes / float64(w.extents); n < 80 || n > 140 {
		t.Errorf("%.0f bytes an extent", n)
	}
	rows, err := w.collecting(t.Context(), s, 300e6)
	if err != nil || len(rows) != 2 {
		t.Fatal(rows, err)
	}
	t.Log(bytes/float64(w.extents), rows)
}
