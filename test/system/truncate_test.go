package system

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestTruncateUnsynced cuts files whose size the master does not know yet, makes
// them long again, and looks from another mount for bytes that should be gone.
func TestTruncateUnsynced(t *testing.T) {
	c := start(t)
	other := c.second()
	const mib = 1 << 20
	for _, x := range []struct {
		name               string
		long, short, again int // MiB
		sync               bool
	}{
		{"one chunk", 3, 1, 3, false},
		{"one chunk, synced", 3, 1, 3, true},
		{"into the first of two", 70, 50, 70, false},
		{"to the border", 70, 64, 70, false},
		{"to nothing", 2, 0, 2, false},
	} {
		name := filepath.Join(c.mnt, x.name)
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		data := bytes.Repeat([]byte("x"), mib)
		for i := range x.long {
			if _, err := f.WriteAt(data, int64(i)*mib); err != nil {
				t.Fatal(err)
			}
		}
		if x.sync {
			err = f.Sync()
		}
		if err == nil {
			err = f.Truncate(int64(x.short) * mib)
		}
		if err == nil {
			err = f.Close()
		}
		if err == nil {
			err = os.Truncate(name, int64(x.again)*mib)
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(other, x.name))
		want := append(bytes.Repeat([]byte("x"), x.short*mib), make([]byte, (x.again-x.short)*mib)...)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v; byte %d is the first that is wrong", x.name, len(got), err, firstDifference(got, want))
		}
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
