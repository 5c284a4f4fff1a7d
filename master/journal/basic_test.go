package journal

import (
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func config(dir string) Config {
	return Config{Dir: dir, ID: 1, FileSize: 16 * page, Log: quiet()}
}

func mustOpen(t testing.TB, cfg Config) *Log {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return l
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// collect reads Committed until done says so.
func collect(t testing.TB, l *Log, done func(c Committed) bool) []Committed {
	t.Helper()
	var all []Committed
	deadline := time.After(20 * time.Second)
	for {
		select {
		case batch, ok := <-l.Committed():
			if !ok {
				t.Fatalf("the log ended: %v", l.Err())
			}
			for _, c := range batch {
				all = append(all, c)
				if done(c) {
					return all
				}
			}
		case <-deadline:
			t.Fatalf("nothing more was committed; so far %d entries", len(all))
		}
	}
}

// caughtUp is true for the first entry of the log's own term.
func caughtUp(l *Log) func(Committed) bool {
	return func(c Committed) bool { return c.Data == nil && c.Err == nil && c.Term == l.Status().Term }
}

// fill proposes n entries named from..from+n-1 and waits for them.
func fill(t testing.TB, l *Log, from, n int) []Committed {
	t.Helper()
	for i := from; i < from+n; i++ {
		if err := l.Propose([]byte(fmt.Sprintf("entry %d", i)), i); err != nil {
			t.Fatal(err)
		}
	}
	return collect(t, l, func(c Committed) bool { return c.Tag == from+n-1 })
}

// texts returns the data of all entries that have some.
func texts(cs []Committed) []string {
	var out []string
	for _, c := range cs {
		if c.Data != nil {
			out = append(out, string(c.Data))
		}
	}
	return out
}

func expect(t testing.TB, got []string, n int) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d entries came back, want %d", len(got), n)
	}
	for i, s := range got {
		if s != fmt.Sprintf("entry %d", i) {
			t.Fatalf("entry %d came back as %q", i, s)
		}
	}
}

func TestProposeAndReopen(t *testing.T) {
	for _, mode := range []string{SyncFsync, SyncQuorum} {
		t.Run(mode, func(t *testing.T) {
			cfg := config(t.TempDir())
			cfg.SyncMode = mode
			n := 0
			for round := range 4 {
				l := mustOpen(t, cfg)
				if lead := <-l.Leading(); !lead.Leader || lead.Term != uint64(round+1) {
					t.Fatalf("round %d: leadership %+v", round, lead)
				}
				expect(t, texts(collect(t, l, caughtUp(l))), n)
				for _, c := range fill(t, l, n, 100) {
					if c.Tag == nil || c.Err != nil {
						t.Fatalf("committed %+v", c)
					}
				}
				n += 100
				if s := l.Status(); s.Leader != 1 || s.First != 1 || s.Last != s.Commit || s.Last != uint64(n+round+1) {
					t.Fatalf("status %+v after %d entries", s, n)
				}
				mustClose(t, l)
			}
		})
	}
}
