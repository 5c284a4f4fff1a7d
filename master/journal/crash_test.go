package journal

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/varvefs/varve/master/journal/files"
)

// flaky is a file whose writes fail once bad is set.
type flaky struct {
	files.File
	err error
	bad atomic.Bool
}

func (f *flaky) WriteSync(b []byte, off int64) error {
	if f.bad.Load() {
		return f.err
	}
	return f.File.WriteSync(b, off)
}

// tape records all writes to all files of a log, so that the disk can be put
// into any state that a power cut could leave it in.
type tape struct {
	mu    sync.Mutex
	base  map[string][]byte // contents when the file was opened
	notes []note
}

type note struct {
	path string
	off  int64
	b    []byte // nil: a sync
	sync bool   // durable by itself
}

// hooked is a directory of the host whose log files are opened by something else.
type hooked struct {
	files.Host
	open func(path string, direct bool) (files.File, error)
}

func (h hooked) Open(name string, direct bool) (files.File, error) {
	return h.open(h.Path(name), direct)
}

// openHooked is Open with log files that go through opener.
func openHooked(cfg Config, opener func(string, bool) (files.File, error)) (*Log, error) {
	cfg.Files = hooked{files.Host(cfg.Dir), opener}
	return Open(cfg)
}

// openFile opens a log file of the host.
func openFile(path string, direct bool) (files.File, error) {
	return files.Host(filepath.Dir(path)).Open(filepath.Base(path), direct)
}

type taped struct {
	files.File
	path string
	tape *tape
}

func (tp *tape) open(path string, direct bool) (files.File, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := openFile(path, direct)
	tp.mu.Lock()
	defer tp.mu.Unlock()
	if tp.base[path] == nil {
		tp.base[path] = b
	}
	return &taped{File: f, path: path, tape: tp}, err
}

func (f *taped) note(n note) {
	f.tape.mu.Lock()
	defer f.tape.mu.Unlock()
	n.path = f.path
	n.b = bytes.Clone(n.b)
	f.tape.notes = append(f.tape.notes, n)
}

func (f *taped) Write(b []byte, off int64) error {
	f.note(note{b: b, off: off})
	return f.File.Write(b, off)
}

func (f *taped) WriteSync(b []byte, off int64) error {
	f.note(note{b: b, off: off, sync: true})
	return f.File.WriteSync(b, off)
}

func (f *taped) Sync() error {
	err := f.File.Sync()
	f.note(note{})
	return err
}

// cutAt writes to dir what the disk may hold when the power fails while note k
// is carried out: all that was synced before, and any sectors of the rest.
func (tp *tape) cutAt(k int, dir string, rnd *rand.Rand) error {
	const sector = 512
	files := map[string][]byte{}
	for path, b := range tp.base {
		files[path] = bytes.Clone(b)
	}
	durable := map[string]int{} // path -> notes before this one are durable
	for i := range k {
		n := &tp.notes[i]
		if n.b == nil {
			durable[n.path] = i
		}
	}
	for i := range min(k+1, len(tp.notes)) {
		n := &tp.notes[i]
		whole := i < durable[n.path] || n.sync && i < k
		for at := 0; at < len(n.b); at += sector {
			if whole || rnd.IntN(2) == 0 {
				copy(files[n.path][n.off+int64(at):], n.b[at:at+sector])
			}
		}
	}
	for path, b := range files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// durableEntries counts the entries that the notes before k made durable.
func (tp *tape) durableEntries(t *testing.T, k int) int {
	t.Helper()
	last := map[string]int{}
	for i := range k {
		if tp.notes[i].b == nil {
			last[tp.notes[i].path] = i
		}
	}
	count := 0
	for i := range k {
		n := &tp.notes[i]
		if n.b == nil || !(n.sync || i < last[n.path]) {
			continue
		}
		f, err := parseFrame(n.b, int64(len(n.b)))
		if err != nil {
			continue // a header
		}
		err = decodeRecords(&f, n.b[frameHead:f.Length], func(r *record) error {
			if len(r.Data) > 0 {
				count++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return count
}

func TestPowerCut(t *testing.T) {
	for _, mode := range []string{SyncFsync, SyncQuorum} {
		t.Run(mode, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			rnd := rand.New(rand.NewPCG(seed, 1))
			tp := &tape{base: map[string][]byte{}}
			cfg := config(t.TempDir())
			cfg.SyncMode, cfg.SyncDelay = mode, time.Millisecond
			l, err := openHooked(cfg, tp.open)
			if err != nil {
				t.Fatal(err)
			}
			collect(t, l, caughtUp(l))
			for i := 0; i < 60; {
				n := 1 + rnd.IntN(6)
				fill(t, l, i, n)
				i += n
			}
			mustClose(t, l)
			rounds := len(tp.notes)
			for k := 0; k <= rounds; k++ {
				if testing.Short() && k%5 != 0 {
					continue
				}
				cut(t, tp, k, mode, rnd)
			}
		})
	}
}

// cut lets the power fail at note k, recovers, goes on, and lets it fail again.
func cut(t *testing.T, tp *tape, k int, mode string, rnd *rand.Rand) {
	t.Helper()
	cfg := config(t.TempDir())
	cfg.SyncMode = mode
	if err := tp.cutAt(k, cfg.Dir, rnd); err != nil {
		t.Fatal(err)
	}
	second := &tape{base: map[string][]byte{}}
	l, err := openHooked(cfg, second.open)
	if err != nil {
		t.Fatalf("power cut at write %d: %v", k, err)
	}
	got := texts(collect(t, l, caughtUp(l)))
	if want := tp.durableEntries(t, k); len(got) < want {
		t.Fatalf("power cut at write %d: %d entries came back, %d were durable", k, len(got), want)
	}
	n := len(got)
	expect(t, got, n)
	fill(t, l, n, 1)
	mustClose(t, l)

	again := config(t.TempDir())
	again.SyncMode = mode
	for path := range second.base { // files that were full and stay as they are
		names, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*"+suffix))
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(again.Dir, filepath.Base(name)), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	at := rnd.IntN(len(second.notes) + 1)
	if err := second.cutAt(at, again.Dir, rnd); err != nil {
		t.Fatal(err)
	}
	l, err = Open(again)
	if err != nil {
		t.Fatalf("power cut at write %d, then at write %d: %v", k, at, err)
	}
	got = texts(collect(t, l, caughtUp(l)))
	if len(got) < n {
		t.Fatalf("power cut at write %d, then at write %d: %d entries of %d came back", k, at, len(got), n)
	}
	expect(t, got, len(got))
	mustClose(t, l)
}

const childDir = "VARVE_JOURNAL_CHILD_DIR"

// TestMain lets the test binary be the child that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child proposes for ever and prints how many entries are committed.
func child(dir string) error {
	cfg := config(dir)
	cfg.FileSize = 64 * page
	cfg.SyncMode = os.Getenv("VARVE_JOURNAL_CHILD_MODE")
	l, err := Open(cfg)
	if err != nil {
		return err
	}
	n, inflight, ready := 0, 0, false
	for batch := range l.Committed() {
		for _, c := range batch {
			if c.Data != nil {
				if string(c.Data) != fmt.Sprintf("entry %d", n) {
					return fmt.Errorf("entry %d came back as %q", n, c.Data)
				}
				n++
			}
			if c.Tag != nil {
				inflight--
			}
			ready = ready || caughtUp(l)(c)
		}
		fmt.Println(n)
		for ; ready && inflight < 8; inflight++ {
			if err := l.Propose([]byte(fmt.Sprintf("entry %d", n+inflight)), true); err != nil {
				return err
			}
		}
	}
	return l.Err()
}

func TestKill(t *testing.T) {
	for _, mode := range []string{SyncFsync, SyncQuorum} {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			acked := 0
			for round := range 6 {
				if testing.Short() && round > 1 {
					break
				}
				before := acked
				acked = runChild(t, dir, mode, acked)
				if acked <= before {
					t.Fatalf("round %d: %d entries before, %d after", round, before, acked)
				}
			}
			cfg := config(dir)
			cfg.FileSize = 64 * page
			l := mustOpen(t, cfg)
			got := texts(collect(t, l, caughtUp(l)))
			if len(got) < acked {
				t.Fatalf("%d entries were acknowledged, %d came back", acked, len(got))
			}
			expect(t, got, len(got))
			mustClose(t, l)
		})
	}
}

// runChild kills a child after some progress and returns what it had acknowledged.
func runChild(t *testing.T, dir, mode string, from int) int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, "VARVE_JOURNAL_CHILD_MODE="+mode)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acked, target := 0, from+50+rand.IntN(300)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n, err := strconv.Atoi(lines.Text()); err == nil {
			acked = n
		}
		if acked >= target {
			_ = cmd.Process.Kill() // and read on: what it said before counts
			target = 1 << 60
		}
	}
	_ = cmd.Wait()
	if acked < from {
		t.Fatalf("the child gave up at %d of %d entries: %s", acked, from, complaint.String())
	}
	return acked
}
