package segment

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine/open"
	"github.com/varvefs/varve/engine/posix"
)

// dirSum sums up all files of a directory.
func dirSum(t *testing.T, dir string) map[string]uint32 {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	sums := make(map[string]uint32)
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sums[name] = chunk.Sum(b)
	}
	return sums
}

// TestCheck: an offline check finds nothing in a good store and the damage in a bad one,
// names the chunk, and changes no byte.
func TestCheck(t *testing.T) {
	dir, _, at := inspectedStore(t)
	before := dirSum(t, dir)
	var told uint32
	rep, err := Check(dir, func(n, segments uint32) {
		if told != n || n >= segments {
			t.Errorf("segment %d of %d after %d others", n, segments, told)
		}
		told++
	})
	if err != nil {
		t.Fatal(err)
	}
	if told != rep.Segments {
		t.Errorf("told of %d segments of %d", told, rep.Segments)
	}
	if rep.Damages != 0 || rep.Chunks != 1 || len(rep.Problems) > 0 || rep.Segments == 0 || rep.Cluster != "test" {
		t.Fatalf("a good store: %+v", rep)
	}
	f, err := os.OpenFile(filepath.Join(dir, containerName(0)), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("spoilt"), at+100); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	spoilt := dirSum(t, dir)
	if rep, err = Check(dir, nil); err != nil {
		t.Fatal(err)
	}
	if rep.Damages != 1 || len(rep.Damaged) != 1 || rep.Damaged[0] != chunk.ID(1).String() {
		t.Fatalf("a bad store: %+v", rep)
	}
	after := dirSum(t, dir)
	for name, sum := range spoilt {
		if after[name] != sum {
			t.Errorf("%s was changed", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files, before there were %d", len(after), len(before))
	}
	if _, err := Check(t.TempDir(), nil); err == nil {
		t.Error("an empty directory is a good store")
	}
}

// TestCheckInUse: a store that is in use is refused.
func TestCheckInUse(t *testing.T) {
	dir, _, _ := inspectedStore(t)
	d, err := posix.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := Check(dir, nil); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("check of a store in use: %v", err)
	}
}

func TestInspectIndex(t *testing.T) {
	dir, seg, _ := inspectedStore(t)
	var out bytes.Buffer
	if err := InspectIndex(dir, &out, true, 1); err != nil {
		t.Fatal(err)
	}
	var v chunkView
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	if v.Chunk != 1 || v.Length != 9000 || len(v.Extents) != 1 || v.Extents[0].Segment != seg || v.Extents[0].Len != 9000 {
		t.Errorf("%+v", v)
	}
	out.Reset()
	if err := InspectIndex(dir, &out, false, 0); err != nil || !strings.Contains(out.String(), "version 1 writes 1 length 9000 extents 1") {
		t.Errorf("%v: %s", err, out.String())
	}
	if err := InspectIndex(dir, &out, false, 77); err == nil {
		t.Error("a chunk that is not there is printed")
	}
}

// TestOfflineDevice: a store on a device is checked and printed as one in a directory is, not
// while it is in use, and no byte changes.
func TestOfflineDevice(t *testing.T) {
	t.Run("file", func(t *testing.T) { dev := testDevice(t); testOffline(t, dev, dev) })
	t.Run("loop", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("making a loop device needs root")
		}
		under := testDevice(t)
		out, err := exec.Command("losetup", "--find", "--show", under).CombinedOutput()
		if err != nil {
			t.Skipf("no loop device to be had: %v: %s", err, out)
		}
		dev := strings.TrimSpace(string(out))
		t.Cleanup(func() {
			if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
				t.Errorf("losetup --detach %s: %v: %s", dev, err, out)
			}
		})
		testOffline(t, dev, under)
	})
}

// testOffline tests a device whose bytes are those of the file under.
func testOffline(t *testing.T, dev, under string) {
	_, seg, _ := inspectedStoreIn(t, dev)
	before := dirSum(t, filepath.Dir(under))
	rep, err := Check(dev, nil)
	if err != nil || rep.Chunks != 1 || rep.Damages != 0 {
		t.Errorf("check: %+v, %v", rep, err)
	}
	var out bytes.Buffer
	if err := Inspect(dev, &out, false, true); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"table of the device", "  superblock 2097152+65536", fmt.Sprintf("segment %d in %s:segments-00000: sealed", seg, dev)} {
		if !strings.Contains(out.String(), want) && !strings.Contains(strings.ReplaceAll(out.String(), ": open ", ": sealed "), want) {
			t.Errorf("inspect does not print %q: %.2000s", want, out.String())
		}
	}
	out.Reset()
	if err := Inspect(dev, &out, true, true); err != nil || !strings.Contains(out.String(), `"table_generation"`) {
		t.Errorf("%v: %.2000s", err, out.String())
	}
	out.Reset()
	if err := InspectIndex(dev, &out, false, 1); err != nil || !strings.Contains(out.String(), "length 9000") {
		t.Errorf("%v: %s", err, out.String())
	}
	if after := dirSum(t, filepath.Dir(under)); !maps.Equal(before, after) {
		t.Error("the device was changed")
	}
	d, err := open.Open(dev, open.POSIX, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := Check(dev, nil); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("check of a device in use: %v", err)
	}
	if _, err := Check(filepath.Join(t.TempDir(), "nothing"), nil); err == nil {
		t.Error("check of nothing")
	}
}
