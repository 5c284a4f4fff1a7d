package master

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/varvefs/varve/status"
)

func TestBadStarts(t *testing.T) {
	dir := t.TempDir()
	m := startMaster(t, testConfig(t, dir))
	bad := func(what string, change func(*Config), want string) {
		t.Helper()
		cfg := testConfig(t, filepath.Join(t.TempDir(), "new"))
		change(&cfg)
		other, err := Start(cfg)
		if err == nil {
			other.Close()
			t.Fatalf("%s: it started", what)
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q does not say %q", what, err, want)
		}
	}
	bad("no key", func(c *Config) { c.Key = nil }, "key")
	bad("unknown sync", func(c *Config) { c.Sync = "never" }, "never")
	bad("port in use", func(c *Config) { c.ClientAddr = m.ClientAddr().String() }, "address already in use")
	bad("other port in use", func(c *Config) { c.ServerAddr = m.ServerAddr().String() }, "address already in use")
	bad("directory in use", func(c *Config) { c.Dir = dir }, "use")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatalf("closed twice: %v", err)
	}
	if err := m.Ready(); status.CodeOf(err) != status.Closed {
		t.Errorf("ready after the end: %v", err)
	}
	if s := m.Status(); len(s.Problems) == 0 {
		t.Error("the status of a stopped master has no problem")
	}

	images, _ := filepath.Glob(filepath.Join(dir, "image.*"))
	for _, name := range images {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bad("damaged images", func(c *Config) { c.Dir = dir }, "damaged")
	for _, name := range images {
		os.Remove(name)
	}
	bad("no image, but a changelog", func(c *Config) { c.Dir = dir }, "no image")
}

// TestImageHurries: a stop does not wait until the writer of an image has rested.
func TestImageHurries(t *testing.T) {
	im := &images{hurry: make(chan struct{})}
	close(im.hurry)
	begun := time.Now()
	im.rest(time.Hour)
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("it rested for %v", took)
	}
}
