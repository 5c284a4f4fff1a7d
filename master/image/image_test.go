package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/status"
)

func must(t testing.TB, s *state.State, session uint64, op state.Op) state.Result {
	t.Helper()
	r := s.Apply(&state.Entry{Time: s.Time() + 1e9, Session: session, Seq: 0, Op: op})
	if r.Code != status.OK {
		t.Fatalf("%s: %v", op, r.Code)
	}
	return r
}

// small has a little of everything.
func small(t testing.TB) *state.State {
	s := state.New(1)
	ses := must(t, s, 0, &state.SessionOpen{Host: "host", Mount: "/mnt", Path: "/"}).Session
	must(t, s, 0, &state.SetCluster{ID: "cluster"})
	must(t, s, 0, &state.ServerSeen{ID: 7, Addr: "10.0.0.7:9422", Labels: "ssd"})
	d := must(t, s, 0, &state.Make{Parent: inode.Root, Name: "dir", What: inode.Dir, Mode: 0o755}).Ino
	f := must(t, s, ses, &state.Make{Parent: d, Name: "file", What: inode.File, Mode: 0o644, Lease: true})
	must(t, s, ses, &state.Lease{Ino: f.Ino, First: 5, Count: 2})
	must(t, s, ses, &state.Commit{Files: []state.CommitFile{{
		Ino: f.Ino, Size: 77, Mtime: 3, Ended: []state.LeaseEnd{{Index: 0, Chunk: f.Chunks[0].ID, Version: 1, Written: true}},
	}}})
	must(t, s, 0, &state.Link{Ino: f.Ino, Parent: inode.Root, Name: "again"})
	must(t, s, 0, &state.Make{Parent: inode.Root, Name: "link", What: inode.Symlink, Target: "dir/file"})
	must(t, s, 0, &state.Make{Parent: inode.Root, Name: "dev", What: inode.CharDev, Rdev: 259})
	must(t, s, 0, &state.SetXattr{Ino: f.Ino, Name: "user.x", Value: bytes.Repeat([]byte("v"), 600)})
	must(t, s, ses, &state.Make{Parent: d, Name: "held", What: inode.File, Hold: true})
	must(t, s, ses, &state.Remove{Parent: d, Name: "held", Hold: []uint64{ses}})
	must(t, s, 0, &state.Make{Parent: d, Name: "gone", What: inode.File})
	must(t, s, 0, &state.Remove{Parent: d, Name: "gone"})
	s.Apply(&state.Entry{Time: s.Time(), Session: ses, Seq: 3, Op: &state.Nop{}})
	return s
}

func encoded(t testing.TB, s *state.State, m Meta) []byte {
	t.Helper()
	v := s.Freeze()
	defer v.Release()
	var b bytes.Buffer
	if err := Write(&b, v, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	m := Meta{Index: 9, Term: 2, Time: 77}
	a := encoded(t, small(t), m)
	s, got, err := Read(bytes.NewReader(a))
	if err != nil || got != m {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, encoded(t, s, m)) {
		t.Fatal("a read image is written differently again")
	}
	if _, ok := s.Replied(1, 3); !ok {
		t.Fatal("the replies are lost")
	}
	// The same entries give the same bytes, read or not.
	b := small(t)
	must(t, b, 0, &state.Make{Parent: inode.Root, Name: "new", What: inode.File})
	s.Apply(&state.Entry{Time: b.Time(), Op: &state.Make{Parent: inode.Root, Name: "new", What: inode.File}})
	if !bytes.Equal(encoded(t, s, m), encoded(t, b, m)) {
		t.Fatal("a read state goes on differently")
	}
}

// TestEmpty: a file system without a single file.
func TestEmpty(t *testing.T) {
	s, _, err := Read(bytes.NewReader(encoded(t, state.New(5), Meta{})))
	if err != nil || s.Totals().Inodes != 1 {
		t.Fatal(err)
	}
}

// TestEveryByte flips each byte, cuts at each length, and adds one: always an
// error that names a section, never a panic.
func TestEveryByte(t *testing.T) {
	good := encoded(t, small(t), Meta{Index: 1})
	wrong := func(what string, b []byte) {
		t.Helper()
		_, _, err := Read(bytes.NewReader(b))
		var damage *DamageError
		if !errors.As(err, &damage) || damage.Section == "" {
			t.Fatalf("%s: %v", what, err)
		}
	}
	step := 1
	if testing.Short() {
		step = 7
	}
	for i := 0; i < len(good); i += step {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		wrong(fmt.Sprintf("byte %d of %d flipped", i, len(good)), bad)
		wrong(fmt.Sprintf("cut at %d of %d", i, len(good)), good[:i])
	}
	wrong("one byte more", append(bytes.Clone(good), 0))
	wrong("twice", append(bytes.Clone(good), good...))
	wrong("nothing", nil)
}

// brokenReader fails in the middle: that is no damage.
type brokenReader struct{ r io.Reader }

func (b *brokenReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p[:min(len(p), 100)])
	if err == io.EOF {
		err = fs.ErrClosed
	}
	return n, err
}

func TestReadError(t *testing.T) {
	good := encoded(t, small(t), Meta{})
	_, _, err := Read(&brokenReader{bytes.NewReader(good[:500])})
	var damage *DamageError
	if !errors.Is(err, fs.ErrClosed) || errors.As(err, &damage) {
		t.Fatal(err)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	if _, _, _, err := Load(dir, slog.Default()); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	s := small(t)
	save := func(index uint64) File {
		t.Helper()
		v := s.Freeze()
		defer v.Release()
		f, err := Save(dir, v, Meta{Index: index}, 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	// What an interrupted Save left, and files of others.
	stale := filepath.Join(dir, "image.0000000000000001.tmp")
	other := filepath.Join(dir, "image.txt")
	for _, path := range []string{stale, other} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	save(5)
	must(t, s, 0, &state.Make{Parent: inode.Root, Name: "six", What: inode.File})
	save(6)
	must(t, s, 0, &state.Make{Parent: inode.Root, Name: "seven", What: inode.File})
	last := save(0x17)
	if _, err := os.Stat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("the stale file is still there")
	}
	if _, err := os.Stat(other); err != nil {
		t.Fatal("a file of somebody else is gone")
	}
	list, err := List(dir)
	if err != nil || len(list) != 2 || list[0] != last || list[1].Index != 6 {
		t.Fatalf("%+v, %v", list, err)
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	got, m, f, err := Load(dir, logger)
	if err != nil || m.Index != 0x17 || f != last || log.Len() != 0 {
		t.Fatalf("%+v, %+v, %v, %s", m, f, err, &log)
	}
	if _, ok := got.Lookup(inode.Root, "seven"); !ok {
		t.Fatal("an older state was loaded")
	}
	damage(t, last.Path)
	got, m, _, err = Load(dir, logger)
	if err != nil || m.Index != 6 || !strings.Contains(log.String(), last.Path) {
		t.Fatalf("%+v, %v, %s", m, err, &log)
	}
	if _, ok := got.Lookup(inode.Root, "seven"); ok {
		t.Fatal("the damaged image was loaded")
	}
	damage(t, list[1].Path)
	if _, _, _, err = Load(dir, logger); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), list[1].Path) {
		t.Fatalf("two damaged images give %v", err)
	}
}

func damage(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 4
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRenamed: an image under another index's name would skip or repeat entries.
func TestRenamed(t *testing.T) {
	dir := t.TempDir()
	v := small(t).Freeze()
	defer v.Release()
	f, err := Save(dir, v, Meta{Index: 5}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(f.Path, filepath.Join(dir, "image.0000000000000009")); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := Load(dir, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("it is loaded")
	}
}

// TestSaveFails: without the directory nothing is left and nothing is removed.
func TestSaveFails(t *testing.T) {
	v := state.New(0).Freeze()
	defer v.Release()
	if _, err := Save(filepath.Join(t.TempDir(), "none"), v, Meta{}, 1, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// TestSaveWhileApplying writes an image in another goroutine, as the master does.
func TestSaveWhileApplying(t *testing.T) {
	s, dir := small(t), t.TempDir()
	mk := func(from, to int) {
		for i := from; i < to; i++ {
			must(t, s, 1, &state.Make{Parent: inode.Root, Name: fmt.Sprint("f", i), What: inode.File, Lease: true})
		}
	}
	mk(0, 2000)
	want := encoded(t, s, Meta{Index: 3})
	v := s.Freeze()
	done := make(chan error, 1)
	go func() {
		defer v.Release()
		_, err := Save(dir, v, Meta{Index: 3}, 2, nil)
		done <- err
	}()
	mk(2000, 4000)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "image.0000000000000003"))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the image is not the state as it was frozen (%v)", err)
	}
}

func TestDump(t *testing.T) {
	var b bytes.Buffer
	if err := Dump(&b, bytes.NewReader(encoded(t, small(t), Meta{Index: 12, Term: 3}))); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"image index=12 term=3", "cluster=cluster", "server 0000000000000007 addr=10.0.0.7:9422", `session 1 host="host"`,
		`path="/dir/file"`, `xattr="user.x":600`, `target="dir/file"`, "rdev=259", `path="(held by [1])"`,
		"chunk 0 0000000000000001 version=1\n", "chunk 5 0000000000000002 version=1 lease=1 min=1 fresh=true", "totals inodes=6",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, &b)
		}
	}
}

// FuzzRead reads anything.
func FuzzRead(f *testing.F) {
	good := encoded(f, small(f), Meta{Index: 1})
	f.Add(good)
	f.Add(good[:headerSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		s, _, err := Read(bytes.NewReader(b))
		if err == nil && s == nil {
			t.Fatal("neither a state nor an error")
		}
	})
}

// BenchmarkImage writes, reads and freezes a tree; figures are per file of one chunk.
func BenchmarkImage(b *testing.B) {
	const files = 200000
	s := state.New(0)
	ses := must(b, s, 0, &state.SessionOpen{}).Session
	for i := range files {
		must(b, s, ses, &state.Make{Parent: inode.Root, Name: fmt.Sprintf("file-%08d", i), What: inode.File, Lease: true})
	}
	var img []byte
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			img = encoded(b, s, Meta{})
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/files, "ns/file")
		b.ReportMetric(float64(len(img))/files, "B/file")
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := Read(bytes.NewReader(img)); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/files, "ns/file")
	})
	b.Run("freeze", func(b *testing.B) {
		for b.Loop() {
			s.Freeze().Release()
		}
	})
}

// TestRest: whoever serves beside a Save is left time after each piece.
func TestRest(t *testing.T) {
	v := small(t).Freeze()
	defer v.Release()
	calls := 0
	f, err := Save(t.TempDir(), v, Meta{Index: 5}, 1, func(worked time.Duration) {
		if calls++; worked <= 0 {
			t.Errorf("worked for %v", worked)
		}
	})
	if want := int((f.Size + pieceSize - 1) / pieceSize); err != nil || calls != want {
		t.Fatalf("%d rests for %d bytes, want %d: %v", calls, f.Size, want, err)
	}
}
