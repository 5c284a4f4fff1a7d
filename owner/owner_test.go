package owner

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// ownerOf is the user that a path belongs to.
func ownerOf(t *testing.T, path string) (uid, gid uint32) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return st.Uid, st.Gid
}

// What root makes in nobody's directory is nobody's; in its own it stays root's.
func TestGive(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("gives files away; needs root")
	}
	const nobody = 65534
	for _, uid := range []int{nobody, 0} {
		dir := t.TempDir()
		if err := os.Chown(dir, uid, uid); err != nil {
			t.Fatal(err)
		}
		inner := filepath.Join(dir, "log")
		for range 2 {
			if err := MkdirAll(inner+"/", 0o750); err != nil {
				t.Fatal(err)
			}
		}
		f, err := os.Create(filepath.Join(inner, "members"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := Give(f); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{inner, f.Name()} {
			if u, g := ownerOf(t, path); int(u) != uid || int(g) != uid {
				t.Errorf("%s belongs to %d:%d, its directory to %d", path, u, g, uid)
			}
		}
	}
}
