package perf

import "testing"

// TestFootprint holds what an extent takes with its sums to what memory is planned with, and a
// fifth more.
func TestFootprint(t *testing.T) {
	for _, w := range []footprintRow{{64 << 10, 300_000, 1280}, {4 << 10, 800_000, 5120}} {
		s, bytes, err := w.fill(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		planned := w.planned * float64(w.extent) / (1 << 20)
		t.Logf("%.1f bytes an extent of %d KiB, %.1f planned", bytes/float64(w.extents), w.extent>>10, planned)
		if bytes > 1.2*planned*float64(w.extents) {
			t.Errorf("%.1f bytes an extent of %d KiB, %.1f planned", bytes/float64(w.extents), w.extent>>10, planned)
		}
		rows, err := w.collecting(t.Context(), s, 300e6)
		if err != nil || len(rows) != 2 {
			t.Fatal(rows, err)
		}
		t.Log(rows)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
