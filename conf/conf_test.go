package conf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "varve.toml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestPrecedence(t *testing.T) {
	name := write(t, "[mount]\nwrite-buffer = \"64MiB\"\nmax-dirty = \"200ms\"\n[chunkd]\ndirs = [\"/a\", \"/b\"]\n")
	f, err := Load(name, []string{"VARVE_MOUNT_WRITE_BUFFER=32MiB", "HOME=/root"})
	if err != nil {
		t.Fatal(err)
	}
	if f.Mount.WriteBuffer != 32<<20 || time.Duration(f.Mount.MaxDirty) != 200*time.Millisecond {
		t.Errorf("got %v, %v", f.Mount.WriteBuffer, f.Mount.MaxDirty)
	}
	if len(f.Chunkd.Dirs) != 2 || f.Chunkd.Listen != "0.0.0.0:9422" {
		t.Errorf("got %v", f.Chunkd)
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"[master]\nnmae = \"x\"\n":             ":2: unknown key \"master.nmae\"; the keys of [master] are dir, name",
		"[mastr]\ndir = \"x\"\n":               "unknown key \"mastr",
		"\n[mount]\nwrite-buffer = \"much\"\n": ":3: ",
		"[mount]\nwrite-buffer = \"1KiB\"\n":   "1KiB is less than 8MiB",
		"[chunkd]\nbackend = \"magic\"\n":      "\"magic\" is not one of auto, uring, posix",
		"[master]\nclients = \"nowhere\"\n":    "\"nowhere\" is not HOST:PORT",
		"[cluster]\nmasters = [\"alone\"]\n":   "\"alone\" is not HOST:PORT",
		"[master]\nimages-kept = 1000\n":       "1000 is more than 100",
		"[master]\nimages-kept = \"three\"\n":  ":2: ",
		"[master\n":                            ":1: ",
	} {
		_, err := Load(write(t, text), nil)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "varve.toml") {
			t.Errorf("%q: got %v, want ...%s...", text, err, want)
		}
	}
	if _, err := Load("", []string{"VARVE_MASTER_SYNC=never"}); err == nil || !strings.Contains(err.Error(), "VARVE_MASTER_SYNC") {
		t.Errorf("got %v", err)
	}
}

// TestSample reads the sample back with its comment signs taken off: it must be the defaults.
func TestSample(t *testing.T) {
	var lines []string
	for _, l := range strings.Split(Sample(), "\n") {
		if key, _, ok := strings.Cut(strings.TrimPrefix(l, "# "), " = "); ok && !strings.Contains(key, " ") {
			l = strings.TrimPrefix(l, "# ")
		}
		lines = append(lines, l)
	}
	f, err := Load(write(t, strings.Join(lines, "\n")), nil)
	if err != nil {
		t.Fatal(err)
	}
	a, b := f.Settings(""), Default().Settings("")
	for i := range a {
		if a[i].String() != b[i].String() {
			t.Errorf("%s.%s: %q, default %q", a[i].Section, a[i].Key, a[i], b[i])
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "4096": 4096, "1K": 1024, "1kb": 1000, "1.5GiB": 3 << 29, "64 MiB": 64 << 20, "2T": 2 << 40} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
		if back, err := ParseSize(want.String()); err != nil || back != want {
			t.Errorf("%v: back %v, %v", want, back, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1XB", "nan", "1e30"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: got %d", text, got)
		}
	}
}
