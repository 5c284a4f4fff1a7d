package open

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/host"
	"github.com/varvefs/varve/engine/uring"
)

// logTo returns a logger and what it has written.
func logTo() (*slog.Logger, *bytes.Buffer) {
	b := new(bytes.Buffer)
	return slog.New(slog.NewTextHandler(b, nil)), b
}

// try opens, writes and reads back one block, and closes.
func try(t *testing.T, backend, want string) (logged string) {
	t.Helper()
	log, text := logTo()
	d, err := Open(t.TempDir(), backend, log)
	if err != nil {
		t.Fatal(err)
	}
	if d.Backend() != want {
		t.Errorf("%q gave %s, want %s", backend, d.Backend(), want)
	}
	f, err := d.Create("f", 8192)
	if err != nil {
		t.Fatal(err)
	}
	buf := engine.Alloc(4096)
	if err := engine.Do(f, engine.WriteSync, buf, 4096); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	return text.String()
}

func refuse(t *testing.T, err error) {
	old := onRing
	onRing = func(*host.Dir) (engine.Disk, error) { return nil, err }
	t.Cleanup(func() { onRing = old })
}

func TestPOSIX(t *testing.T) {
	if s := try(t, POSIX, "posix"); s != "" {
		t.Errorf("logged %q", s)
	}
}

func TestFallBack(t *testing.T) {
	refuse(t, errors.New("no ring today"))
	for _, backend := range []string{"", Auto} {
		if s := try(t, backend, "posix"); !strings.Contains(s, "level=WARN") || !strings.Contains(s, "no ring today") {
			t.Errorf("logged %q", s)
		}
	}
	dir := t.TempDir()
	if _, err := Open(dir, URing, nil); err == nil || !strings.Contains(err.Error(), "no ring today") {
		t.Errorf("uring: %v", err)
	}
	if d, err := Open(dir, POSIX, nil); err != nil {
		t.Errorf("the directory was left locked: %v", err)
	} else {
		d.Close()
	}
}

func TestNotBuilt(t *testing.T) {
	refuse(t, uring.ErrNotBuilt)
	if s := try(t, Auto, "posix"); !strings.Contains(s, "level=INFO") {
		t.Errorf("logged %q", s)
	}
}

// TestReal asks for what this build and machine have.
func TestReal(t *testing.T) {
	d, err := uring.Open(t.TempDir(), nil)
	if err != nil {
		t.Logf("no io_uring here: %v", err)
		try(t, Auto, "posix")
		return
	}
	d.Close()
	if s := try(t, Auto, "uring"); s != "" {
		t.Errorf("logged %q", s)
	}
	try(t, URing, "uring")
}

func TestBadBackend(t *testing.T) {
	if _, err := Open(t.TempDir(), "floppy", nil); err == nil {
		t.Error("no error")
	}
	if _, err := Open(t.TempDir()+"/nobody", Auto, nil); err == nil {
		t.Error("no error for a directory that is not there")
	}
}
