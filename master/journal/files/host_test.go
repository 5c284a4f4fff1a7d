package files

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk is a directory on a file system of size bytes.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a small file system is mounted; needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("varve-test", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("a small file system cannot be mounted: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// fill takes all the room that is left.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// TestReplaceOnFullDisk: what a voter must be able to write finds room once when the
// disk is full, and again when it was not full in between.
func TestReplaceOnFullDisk(t *testing.T) {
	dir := smallDisk(t, "size=512k")
	h, junk := Host(dir), filepath.Join(dir, "junk")
	replace := func(b []byte) error {
		err := h.Replace("members", b)
		if got, _ := h.Read("members"); err == nil && !bytes.Equal(got, b) {
			t.Fatalf("%d bytes are there, %d were written", len(got), len(b))
		}
		return err
	}
	old := bytes.Repeat([]byte{1}, 5000)
	if err := replace(old); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		fill(t, junk)
		old = bytes.Repeat([]byte{byte(2 + round)}, 20_000)
		if err := replace(old); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := os.Remove(junk); err != nil {
			t.Fatal(err)
		}
		if err := replace(old); err != nil {
			t.Fatal(err)
		}
	}
	fill(t, junk)
	for range 3 { // 64 KiB hold no two of these, and the first one frees what was there
		if err := replace(bytes.Repeat([]byte{9}, 60_000)); errors.Is(err, unix.ENOSPC) {
			if got, _ := h.Read("members"); len(got) != 60_000 && !bytes.Equal(got, old) {
				t.Fatalf("a Replace that failed left %d bytes", len(got))
			}
			if names, _ := h.List(); len(names) > 3 {
				t.Errorf("a Replace that failed leaves %v", names)
			}
			return
		}
	}
	t.Error("a full disk takes everything")
}
