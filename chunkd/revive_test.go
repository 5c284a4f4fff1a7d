package chunkd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/wire"
)

// TestDiskPutBack: a disk that is pulled and put back is served and reported again; in
// between its place takes no other disk.
func TestDiskPutBack(t *testing.T) {
	m := newMaster(t)
	dirs := []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
	s := start(t, m, dirs...)
	u := use(t, s)
	const chunks = 6
	for id := chunk.ID(1); id <= chunks; id++ {
		u.write(wire.Write{Chunk: id, Create: true, Sync: true}, data(1<<20, uint64(id)))
	}
	var on []chunk.ID // the first disk
	for id := chunk.ID(1); id <= chunks; id++ {
		if d, _, err := s.shelf.find(id); err == nil && d.path == dirs[0] {
			on = append(on, id)
		}
	}
	if len(on) == 0 || len(on) == chunks {
		t.Fatalf("the first disk has %d of %d chunks", len(on), chunks)
	}
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(dirs[0], away); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the chunks are reported lost", func() bool { lost, _ := m.counts(on[0]); return lost > 0 })

	stranger := filepath.Join(t.TempDir(), "stranger")
	if err := start(t, m, stranger).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(stranger, dirs[0]); err != nil {
		t.Fatal(err)
	}
	place := s.shelf.all()[0]
	eventually(t, "the stranger is refused", func() bool { return place.refused.Load() != nil })
	if why := *place.refused.Load(); !strings.Contains(why, "in the place of disk") {
		t.Errorf("refused with: %s", why)
	}
	if len(s.shelf.alive()) != 1 {
		t.Fatal("another server's disk was taken in")
	}
	if err := os.RemoveAll(dirs[0]); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, dirs[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the disk is back", func() bool { return len(s.shelf.alive()) == 2 })
	for _, id := range on {
		u.want(id, 1, 0, data(1<<20, uint64(id)))
		eventually(t, "its copies are reported", func() bool { _, ok := m.reported(s, id); return ok })
	}
	u.write(wire.Write{Chunk: 50, Create: true, Sync: true}, data(1000, 50))
}

// TestDiskOfOthers: same tells why a disk is not the one that was in its place.
func TestDiskOfOthers(t *testing.T) {
	m := newMaster(t)
	dirs := []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
	s := start(t, m, dirs...)
	eventually(t, "registered", func() bool { return s.Ready() == nil })
	other, err := Start(testConfig(t, nil, filepath.Join(t.TempDir(), "c")))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	mine := s.shelf.all()
	for want, pair := range map[string][2]*disk{
		"in the place of":        {mine[0], mine[1]},
		"belongs to chunkserver": {{path: "x"}, other.shelf.all()[0]},
		"is a copy of":           {{path: "x"}, mine[1]},
	} {
		if err := s.same(pair[0], pair[1]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, have %v", want, err)
		}
	}
}

// TestScrubIsReported: what the scrubber finds reaches the master without any read.
func TestScrubIsReported(t *testing.T) {
	m := newMaster(t)
	cfg := testConfig(t, m, t.TempDir())
	cfg.Scrub = 50 * time.Millisecond
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	u := use(t, s)
	u.write(wire.Write{Chunk: 1, Create: true, Sync: true}, data(100000, 1))
	damage(t, cfg.Dirs[0], data(100000, 1)[:64])
	eventually(t, "the scrubber finds it and the master hears", func() bool { _, bad := m.counts(1); return bad > 0 })
	eventually(t, "the beat tells of the scrubber", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, d := range m.last[s.ID()].Disks {
			if d.Scrub.Found > 0 && d.Scrub.Passes > 0 && d.Scrub.Finished > 0 && d.Damaged > 0 {
				return true
			}
		}
		return false
	})
}

// TestDevice: a device serves as a directory does, and again after a restart; one that is
// missing is not made as a directory.
func TestDevice(t *testing.T) {
	m := newMaster(t)
	dev := filepath.Join(t.TempDir(), "device")
	if err := errors.Join(os.WriteFile(dev, nil, 0o600), os.Truncate(dev, 256<<20)); err != nil {
		t.Fatal(err)
	}
	s := start(t, m, dev)
	u := use(t, s)
	u.write(wire.Write{Chunk: 1, Create: true, Sync: true}, data(1<<20, 1))
	if b := s.shelf.all()[0].backend; !strings.HasSuffix(b, "-raw") {
		t.Errorf("backend %s", b)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = start(t, m, dev)
	use(t, s).want(1, 1, 0, data(1<<20, 1))
	away := dev + ".away"
	if err := os.Rename(dev, away); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the device is missed", func() bool { return len(s.shelf.alive()) == 0 })
	if err := os.Rename(away, dev); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the device is back", func() bool { return len(s.shelf.alive()) == 1 })

	if err := makeDir("/dev/varve-no-such-device"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a device that is not there: %v", err)
	}
}
