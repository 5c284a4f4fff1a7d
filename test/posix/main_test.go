package posix_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"github.com/varvefs/varve/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// notPosix lists tests of the suite that ask for what POSIX does not promise.
var notPosix = map[string]string{
	"FcntlFlockLocksFile": "record locks of one process never exclude each other; go-fuse skips it, too",
}

// TestGoFuse runs the POSIX suite of go-fuse.
func TestGoFuse(t *testing.T) {
	c := rig.Start(t, rig.Options{})
	mnt := c.Mount(t)
	for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
		t.Run(name, func(t *testing.T) {
			if why := notPosix[name]; why != "" {
				t.Skip(why)
			}
			dir := filepath.Join(mnt, name)
			must(t, os.Mkdir(dir, 0o755))
			posixtest.All[name](t, dir)
			must(t, os.RemoveAll(dir))
		})
	}
}

// must ends the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// want compares a result.
func want[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

// wantText compares a file's bytes.
func wantText(t testing.TB, path, text string) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	if string(b) != text {
		t.Errorf("%s: got %d bytes %.80q, want %d bytes %.80q", path, len(b), b, len(text), text)
	}
}

// open opens a file until the test ends.
func open(t testing.TB, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o644)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}
