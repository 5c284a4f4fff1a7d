package chunkd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/varvefs/varve/segment"
)

// TestCutShortCreation: a directory in which a crash has left a superblock that was never
// written is made a disk at the next start, also beside one that is in use.
func TestCutShortCreation(t *testing.T) {
	dirs := []string{filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "disk")}
	leave := func(dir string) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "superblock"), make([]byte, 64<<10), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range dirs {
		leave(dirs[i])
		s, err := Start(testConfig(t, nil, dirs[:i+1]...))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range s.shelf.all() {
			if !d.ok() || d.store.Identity().Server != s.shelf.server || d.store.Space() == (segment.Space{}) {
				t.Errorf("disk %s is of no use", d.path)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
