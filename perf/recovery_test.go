package perf

import "testing"

// TestRecovery: a store whose frames are holes but for their headers opens, both ways.
func TestRecovery(t *testing.T) {
	rows, err := recovery(t.Context(), "posix", t.TempDir(), []int64{256 << 20, 2 << 30})
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 10 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		if t.Logf("%s: %.1f %s", row.Name, row.Value, row.Unit); row.Value <= 0 {
			t.Errorf("%s: %v", row.Name, row.Value)
		}
	}
}
