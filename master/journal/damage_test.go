package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/varvefs/varve/master/journal/files"
)

// sample makes a log with entries 0..n-1, a frame each, and returns the bytes of
// its only file and where its frames are.
func sample(t *testing.T, n int) (b []byte, s scan) {
	t.Helper()
	cfg := config(t.TempDir())
	l := mustOpen(t, cfg)
	for i := range n {
		fill(t, l, i, 1)
	}
	mustClose(t, l)
	b, err := os.ReadFile(filepath.Join(cfg.Dir, fileName(1)))
	if err != nil {
		t.Fatal(err)
	}
	s = scanFile(b, 1)
	if s.why != errBlank || len(s.stray) > 0 {
		t.Fatalf("the sample is bad at %d: %v", s.end, s.why)
	}
	return b, s
}

// memDir is a directory in memory where there is one: thousands of logs are
// opened here, and what a sync costs is not the question. It has no O_DIRECT,
// which tests that way too.
func memDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "journal")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// reopen opens a log that has only the given bytes.
func reopen(t *testing.T, b []byte) ([]string, Config, error) {
	t.Helper()
	cfg := config(filepath.Join(memDir(t), "log"))
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, fileName(1)), b, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(cfg)
	if err != nil {
		return nil, cfg, err
	}
	got := texts(collect(t, l, caughtUp(l)))
	mustClose(t, l)
	return got, cfg, nil
}

// forget removes a log that is no longer needed, for there are many.
func forget(cfg Config) { _ = os.RemoveAll(cfg.Dir) }

// step is the distance of the offsets that are tried: every byte of heads and
// records, some bytes of the padding.
func step(s *scan, off int) int {
	in := off % page
	if in >= 160 && in < page-8 && !testing.Short() {
		return 509
	}
	if testing.Short() {
		return 61
	}
	return 1
}

// entriesBefore counts the entries with data in frames that end at or before end.
func entriesBefore(t *testing.T, s *scan, end int64) int {
	t.Helper()
	n := 0
	for i := range s.frames {
		f := &s.frames[i]
		if f.off+int64(f.Length) > end {
			break
		}
		err := decodeRecords(&f.frame, f.records, func(r *record) error {
			if len(r.Data) > 0 {
				n++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func TestZeroedTail(t *testing.T) {
	b, s := sample(t, 5)
	for off := page; off < int(s.end); off += step(&s, off) {
		torn := append([]byte(nil), b...)
		clear(torn[off:])
		got, cfg, err := reopen(t, torn)
		if err != nil {
			t.Fatalf("zeros from %d on: %v", off, err)
		}
		n := entriesBefore(t, &s, int64(off))
		expect(t, got, n)
		if off%page == 7 { // goes on where it was cut, for good
			l := mustOpen(t, cfg)
			collect(t, l, caughtUp(l))
			fill(t, l, n, 3)
			mustClose(t, l)
			l = mustOpen(t, cfg)
			expect(t, texts(collect(t, l, caughtUp(l))), n+3)
			mustClose(t, l)
		}
		forget(cfg)
	}
}

func TestTruncatedFile(t *testing.T) {
	b, s := sample(t, 3)
	for off := 0; off < int(s.end)+page; off += step(&s, off) {
		_, cfg, err := reopen(t, b[:off])
		forget(cfg)
		var bad *CorruptError
		if !errors.As(err, &bad) {
			t.Fatalf("cut to %d of %d bytes: %v", off, len(b), err)
		}
	}
}

func TestFlippedByte(t *testing.T) {
	b, s := sample(t, 5)
	all := entriesBefore(t, &s, s.end)
	for off := 0; off < int(s.end); off += step(&s, off) {
		flipped := append([]byte(nil), b...)
		flipped[off] ^= 0x40
		got, cfg, err := reopen(t, flipped)
		forget(cfg)
		where, last := int64(0), false
		for i := range s.frames {
			if f := &s.frames[i]; f.off <= int64(off) {
				where, last = f.off, i == len(s.frames)-1
				if int64(off) >= f.off+int64(f.Length) { // padding
					where = -1
				}
			}
		}
		var bad *CorruptError
		switch {
		case where < 0:
			if err != nil {
				t.Fatalf("a flipped byte of padding at %d: %v", off, err)
			}
			expect(t, got, all)
		case last: // cannot be told from a torn tail; it is a witness without entries
			if err != nil {
				t.Fatalf("a flipped byte in the last frame at %d: %v", off, err)
			}
			expect(t, got, all)
		case !errors.As(err, &bad) || bad.Offset != where:
			t.Fatalf("a flipped byte at %d in the frame at %d: %v", off, where, err)
		}
	}
}

// Damage in a file that another one continues is found even at its very end.
func TestDamagedOlderFile(t *testing.T) {
	cfg := config(t.TempDir())
	l := mustOpen(t, cfg)
	for i := range 40 {
		fill(t, l, i, 1)
	}
	mustClose(t, l)
	path := filepath.Join(cfg.Dir, fileName(1))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := scanFile(b, 1)
	last := s.frames[len(s.frames)-1]
	b[last.off+frameHead+3] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(cfg)
	var bad *CorruptError
	if !errors.As(err, &bad) || bad.File != path || bad.Offset != last.off {
		t.Fatalf("Open: %v, want damage in %s at %d", err, path, last.off)
	}
	// An image that holds all of that file makes it unimportant.
	h, err := os.ReadFile(filepath.Join(cfg.Dir, fileName(2)))
	if err != nil {
		t.Fatal(err)
	}
	head, err := decodeHeader(h)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Applied, cfg.AppliedTerm = head.Before.Index, head.Before.Term
	l = mustOpen(t, cfg)
	got := texts(collect(t, l, caughtUp(l)))
	mustClose(t, l)
	if want := fmt.Sprintf("entry %d", head.Before.Index-1); len(got) == 0 || got[0] != want {
		t.Fatalf("behind the image come %d entries, want %q first", len(got), want)
	}
	// And a file that is missing is not passed over either.
	if err := os.Remove(filepath.Join(cfg.Dir, fileName(1))); err != nil {
		t.Fatal(err)
	}
	cfg.Applied, cfg.AppliedTerm = 0, 0
	if _, err = Open(cfg); err == nil {
		t.Fatal("a log without its first file was opened")
	}
}

func TestWriteError(t *testing.T) {
	broken := errors.New("this disk is broken")
	cfg := config(t.TempDir())
	var f *flaky
	l, err := openHooked(cfg, func(path string, direct bool) (files.File, error) {
		inner, err := openFile(path, direct)
		f = &flaky{File: inner, err: broken}
		return f, err
	})
	if err != nil {
		t.Fatal(err)
	}
	collect(t, l, caughtUp(l))
	fill(t, l, 0, 3)
	f.bad.Store(true)
	if err := l.Propose([]byte("lost"), "lost"); err != nil {
		t.Fatal(err)
	}
	for batch := range l.Committed() {
		for _, c := range batch {
			t.Fatalf("committed %+v though it could not be written", c)
		}
	}
	if err := l.Propose([]byte("too late"), nil); !errors.Is(err, broken) {
		t.Fatalf("Propose on a broken log: %v", err)
	}
	if err := l.Close(); !errors.Is(err, broken) {
		t.Fatalf("Close of a broken log: %v", err)
	}
	l = mustOpen(t, cfg)
	expect(t, texts(collect(t, l, caughtUp(l))), 3)
	mustClose(t, l)
}
