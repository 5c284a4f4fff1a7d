package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/varvefs/varve/master/journal/files"
	"github.com/varvefs/varve/status"
)

// names lists the log files in a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	numbers, err := listFiles(files.Host(dir))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(numbers)
}

func TestOneMaster(t *testing.T) {
	cfg := config(t.TempDir())
	l := mustOpen(t, cfg)
	_, err := Open(cfg)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Fatalf("a second Open: %v", err)
	}
	mustClose(t, l)
	mustClose(t, mustOpen(t, cfg))
}

func TestBadConfig(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"ID is 0":           func(c *Config) { c.ID = 0 },
		"not among":         func(c *Config) { c.Peers = []uint64{2, 3} },
		"need a transport":  func(c *Config) { c.Peers = []uint64{1, 2} },
		"sync mode \"now\"": func(c *Config) { c.SyncMode = "now" },
		"file size 5000":    func(c *Config) { c.FileSize = 5000 },
	} {
		cfg := config(t.TempDir())
		change(&cfg)
		if l, err := Open(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v %v", want, l, err)
		}
	}
}

// Compact removes files, keeps back logs, and what is kept can be opened from an
// older image.
func TestCompact(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.FileSize = 8 * page
	l := mustOpen(t, cfg)
	var at []Committed // by entry
	for i := range 100 {
		got := fill(t, l, i, 1)
		at = append(at, got[len(got)-1])
	}
	all := names(t, cfg.Dir)
	if err := l.Compact(l.Status().Last + 1); err == nil {
		t.Fatal("compacted at an entry that there is not")
	}
	image, before := at[79], l.Status().Bytes
	if err := l.Compact(image.Index); err != nil {
		t.Fatal(err)
	}
	if err := l.Compact(image.Index); err != nil { // again
		t.Fatal(err)
	}
	if after := l.Status().Bytes; after == 0 || after >= before || after%uint64(cfg.FileSize) != 0 {
		t.Fatalf("%d bytes were to be read before, %d after", before, after)
	}
	first := l.Status().First
	if left := names(t, cfg.Dir); left == all || first == 1 || first > image.Index {
		t.Fatalf("of files %s there are %s, first entry %d", all, left, first)
	}
	fill(t, l, 100, 40) // goes on in files that were used before
	mustClose(t, l)

	for _, applied := range []Committed{image, at[70], at[99], at[first-2+1]} {
		if applied.Index < first {
			continue
		}
		cfg.Applied, cfg.AppliedTerm = applied.Index, applied.Term
		l = mustOpen(t, cfg)
		got := collect(t, l, caughtUp(l))
		mustClose(t, l)
		if got[0].Index != applied.Index+1 || len(texts(got)) != 140-applied.Tag.(int)-1 {
			t.Fatalf("behind entry %d come %d entries from %d on", applied.Index, len(texts(got)), got[0].Index)
		}
	}
	cfg.Applied, cfg.AppliedTerm = 3, 1
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "the changelog starts with entry") {
		t.Fatalf("an image that is too old: %v", err)
	}
	cfg.Applied, cfg.AppliedTerm = image.Index, image.Term+5
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "do not belong together") {
		t.Fatalf("an image of another log: %v", err)
	}
}

// An image may be ahead of the log: quorum mode and a power cut. The log goes on
// behind the image, and what it had before is void.
func TestImageAhead(t *testing.T) {
	cfg := config(t.TempDir())
	l := mustOpen(t, cfg)
	fill(t, l, 0, 10)
	mustClose(t, l)
	cfg.Applied, cfg.AppliedTerm = 500, 7
	for round := range 3 {
		l = mustOpen(t, cfg)
		got := collect(t, l, caughtUp(l))
		if got[0].Index != 501 || got[0].Term < 8 || len(texts(got)) != round*5 {
			t.Fatalf("round %d: behind the image comes %+v, %d entries", round, got[0], len(texts(got)))
		}
		fill(t, l, round*5, 5)
		mustClose(t, l)
	}
	cfg.Applied, cfg.AppliedTerm = 4, 1
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "goes on behind an image of entry 500") {
		t.Fatalf("an image from before: %v", err)
	}
}

// A new log behind an image, as after a restore to another machine.
func TestImageAlone(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.Applied, cfg.AppliedTerm = 1000, 3
	l := mustOpen(t, cfg)
	if got := collect(t, l, caughtUp(l)); got[0].Index != 1001 || got[0].Term != 4 {
		t.Fatalf("first comes %+v", got[0])
	}
	fill(t, l, 0, 5)
	mustClose(t, l)
	l = mustOpen(t, cfg)
	expect(t, texts(collect(t, l, caughtUp(l))), 5)
	mustClose(t, l)
}

// Proposals are taken while nobody reads Committed, as a loop does that proposes
// and reads on one goroutine.
func TestSlowReader(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.FileSize = 256 * page
	l := mustOpen(t, cfg)
	const n = 4 * maxQueue
	for i := range n {
		if err := l.Propose([]byte(fmt.Sprintf("entry %d", i)), i); err != nil {
			t.Fatal(err)
		}
	}
	got := collect(t, l, func(c Committed) bool { return c.Tag == n-1 })
	expect(t, texts(got), n)
	mustClose(t, l)
}

func TestManyProposers(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.FileSize = 256 * page
	cfg.Metrics = metrics.NewSet()
	l := mustOpen(t, cfg)
	const proposers, each = 16, 50
	var wg sync.WaitGroup
	for p := range proposers {
		wg.Go(func() {
			for i := range each {
				if err := l.Propose([]byte(fmt.Sprintf("%d %d", p, i)), [2]int{p, i}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	next := [proposers]int{}
	left := proposers * each
	collect(t, l, func(c Committed) bool {
		if tag, ok := c.Tag.([2]int); ok {
			if p := tag[0]; tag[1] != next[p] || string(c.Data) != fmt.Sprintf("%d %d", p, next[p]) {
				t.Fatalf("proposer %d: %q with tag %v came, want %d", p, c.Data, tag, next[p])
			}
			next[tag[0]]++
			left--
		}
		return left == 0
	})
	wg.Wait()
	mustClose(t, l)
	if frames := l.m.frames.Get(); frames >= proposers*each {
		t.Errorf("%d frames for %d entries: none shared a write", frames, proposers*each)
	}
	var text bytes.Buffer
	cfg.Metrics.WritePrometheus(&text)
	if !strings.Contains(text.String(), "varve_journal_entries_total 801") {
		t.Errorf("metrics:\n%s", text.String())
	}
}

// Entries of all sizes, some larger than a frame, read back from the files when
// memory keeps only a little.
func TestSizes(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.FileSize = 4 << 20
	l := mustOpen(t, cfg)
	l.st.mu.Lock()
	l.st.keep = 10_000
	l.st.mu.Unlock()
	sizes := []int{1, 4000, 4096, 5000, 1 << 20, 1<<20 + 1, 3 << 20, 7, l.maxData(), 100_000, 2}
	for i, n := range sizes {
		if err := l.Propose(bytes.Repeat([]byte{byte(i + 1)}, n), i); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Propose(make([]byte, l.maxData()+1), nil); !errors.Is(err, status.TooBig) {
		t.Errorf("an entry that is too large: %v", err)
	}
	verify := func(got []Committed) {
		t.Helper()
		i := 0
		for _, c := range got {
			if c.Data == nil {
				continue
			}
			if len(c.Data) != sizes[i] || c.Data[0] != byte(i+1) || c.Data[len(c.Data)-1] != byte(i+1) {
				t.Fatalf("entry %d has %d bytes, want %d", i, len(c.Data), sizes[i])
			}
			i++
		}
		if i != len(sizes) {
			t.Fatalf("%d entries, want %d", i, len(sizes))
		}
	}
	verify(collect(t, l, func(c Committed) bool { return c.Tag == len(sizes)-1 }))
	last := l.Status().Last
	for lo := uint64(1); lo <= last; {
		ents, err := l.st.Entries(lo, last+1, 1<<20)
		if err != nil || len(ents) == 0 || ents[0].GetIndex() != lo {
			t.Fatalf("entries from %d: %d, %v", lo, len(ents), err)
		}
		lo += uint64(len(ents))
	}
	mustClose(t, l)
	l = mustOpen(t, cfg)
	verify(collect(t, l, caughtUp(l)))
	mustClose(t, l)
}

func TestClosed(t *testing.T) {
	l := mustOpen(t, config(t.TempDir()))
	mustClose(t, l)
	mustClose(t, l)
	if err := l.Propose([]byte("x"), nil); !errors.Is(err, status.Closed) {
		t.Errorf("Propose: %v", err)
	}
	for range l.Committed() {
	}
}

// The commit index reaches the disk by itself when the log is idle, so that
// damage to the last entries is not taken for a torn tail.
func TestWitness(t *testing.T) {
	cfg := config(t.TempDir())
	l := mustOpen(t, cfg)
	fill(t, l, 0, 3)
	want := l.Status().Commit
	path := filepath.Join(cfg.Dir, fileName(1))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s := scanFile(b, 1)
		if last := s.frames[len(s.frames)-1]; last.Hard.Commit == want && last.Records == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no witness was written")
		}
	}
	mustClose(t, l)
}

func TestDump(t *testing.T) {
	cfg := config(t.TempDir())
	l := mustOpen(t, cfg)
	fill(t, l, 0, 2)
	if err := l.Propose([]byte("one|two"), "x"); err != nil {
		t.Fatal(err)
	}
	collect(t, l, func(c Committed) bool { return c.Tag == "x" })
	text := func(b []byte) string { return strings.ReplaceAll(string(b), "|", "\n") }
	var live bytes.Buffer
	deadline := time.Now().Add(10 * time.Second)
	for spare := "ready, not used yet"; !strings.Contains(live.String(), spare); { // made in the background
		live.Reset()
		if err := Dump(cfg.Dir, &live, text); err != nil {
			t.Fatalf("%v\n%s", err, live.String())
		}
		if time.Now().After(deadline) {
			t.Fatalf("no file was made ready:\n%s", live.String())
		}
	}
	mustClose(t, l)
	for _, want := range []string{
		"file 0000000000000001.wal: begun 2", "by voter 1 of [1], behind entry 0 of term 0",
		"term 1, vote for 1", "entry 1 term 1: a leader's first", "entry 2 term 1: 7 bytes\n\tentry 0\n",
		"entry 4 term 1: 7 bytes\n\tone\n\ttwo\n", "ready, not used yet",
	} {
		if !strings.Contains(live.String(), want) {
			t.Errorf("the dump lacks %q:\n%s", want, live.String())
		}
	}
	var closed bytes.Buffer
	last := "\nlast entry: term 1, index 4; committed up to index 4; now in term 1\n"
	if err := Dump(cfg.Dir, &closed, text); err != nil || !strings.HasSuffix(closed.String(), last) {
		t.Errorf("%v; the last line is not %q:\n%s", err, last, closed.String())
	}
	path := filepath.Join(cfg.Dir, fileName(1))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := scanFile(b, 1)
	b[s.frames[2].off+100] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	var bad *CorruptError
	var out bytes.Buffer
	if err := Dump(cfg.Dir, &out, text); !errors.As(err, &bad) || bad.Offset != s.frames[2].off || !strings.Contains(out.String(), "!! ") {
		t.Fatalf("damage: %v\n%s", err, out.String())
	}
	if err := Dump(t.TempDir(), &out, text); err == nil {
		t.Error("an empty directory was dumped")
	}
}
