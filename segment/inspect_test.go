package segment

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine/open"
	"github.com/varvefs/varve/engine/posix"
)

// inspectedStore makes a store of a few frames in a directory and closes it. It returns
// the directory, the segment of the frames, and where the data of chunk 1 lies in the
// first container.
func inspectedStore(t *testing.T) (dir string, seg uint32, at int64) {
	return inspectedStoreIn(t, t.TempDir())
}

func inspectedStoreIn(t *testing.T, dir string) (_ string, seg uint32, at int64) {
	d, err := open.Open(dir, open.POSIX, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, smallConfig(d))
	wait := func(tk Ticket, err error) {
		t.Helper()
		if err == nil {
			err = tk.Wait()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	wait(s.Write(Write{Chunk: 1, Version: 1, Create: true, Data: fill(9000, 1)}))
	wait(s.Write(Write{Chunk: 2, Version: 3, Create: true, Off: 7, Data: []byte("tiny")}))
	wait(s.Write(Write{Chunk: 2, Version: 3, What: WriteTrim, Off: 9}))
	s.mu.Lock()
	e := s.index.unpacked(&s.index.find(1).body)[0]
	seg, at = e.seg, s.segs[e.seg].base+int64(e.pos)
	s.unlock()
	if err := s.SetVersion(2, 4); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete([]chunk.ID{2}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, seg, at
}

func TestInspect(t *testing.T) {
	dir, segment, _ := inspectedStore(t)
	var out bytes.Buffer
	if err := Inspect(dir, &out, false, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`superblock generation \d+: disk 000000000000d15c server 0000000000000007 cluster "test" epoch 0`,
		fmt.Sprintf(`segment %d in .*segments-00000: open small incarnation \d+ end \d+ frames 6`, segment),
		`data chunk 0000000000000001 lsn \d+ version 1 writes 1 bytes 0\+9000 at 4096 sums 3`,
		`data chunk 0000000000000002 lsn \d+ version 3 writes 1 bytes 7\+4 at \d+ sums 1`,
		`zero chunk 0000000000000002 lsn \d+ version 3 writes 2 bytes 9\+67108855`,
		`state chunk 0000000000000002 lsn \d+ version 4 writes 0 hide 0 base 0`,
		`delete chunk 0000000000000002`,
		`segment 7 in .*: (blank|free|open)`,
	} {
		if !regexp.MustCompile(want).Match(out.Bytes()) {
			t.Errorf("no line matches %s in\n%s", want, &out)
		}
	}
	out.Reset()
	if err := Inspect(dir, &out, true, false); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) < 9 {
		t.Fatalf("%d objects", len(lines))
	}
	var seg segmentView
	if err := json.Unmarshal([]byte(lines[1+segment]), &seg); err != nil || len(seg.Frames) != 6 || seg.Frames[0].Entries[0].Kind != "data" {
		t.Errorf("first segment: %+v, %v", seg, err)
	}
}

func TestInspectDamage(t *testing.T) {
	dir, _, at := inspectedStore(t)
	f, err := os.OpenFile(filepath.Join(dir, containerName(0)), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("decay"), at+900); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Inspect(dir, &out, false, false); err != nil {
		t.Fatal(err)
	}
	if err := Inspect(dir, &out, false, true); err == nil || !strings.Contains(out.String(), "DAMAGED: chunk 0000000000000001") {
		t.Fatalf("damage is not found: %v", err)
	}
	if err := Inspect(t.TempDir(), &out, false, false); err == nil {
		t.Fatal("an empty directory is inspected")
	}
}

// TestInspectCheckpoint: checkpoints are printed, and damage in one is found.
func TestInspectCheckpoint(t *testing.T) {
	dir := t.TempDir()
	d, err := posix.Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, smallConfig(d))
	for id := range chunk.ID(50) {
		if _, err := s.Write(Write{Chunk: id + 1, Version: 1, Create: true, Data: fill(5000, uint64(id))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.checkpoint(false); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Inspect(dir, &out, false, true); err != nil || !strings.Contains(out.String(), "checkpoint") {
		t.Fatalf("%v: %s", err, out.String())
	}
	names, err := filepath.Glob(filepath.Join(dir, "checkpoint-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("spoilt"), blockSize+40); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	out.Reset()
	if err := Inspect(dir, &out, true, true); err == nil || !strings.Contains(out.String(), "checksum of page") {
		t.Errorf("damage is not found: %v: %s", err, out.String())
	}
}
