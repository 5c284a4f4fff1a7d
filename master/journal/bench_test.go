package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/master/journal/files"
)

// BenchmarkCommit is the way of one proposal on an idle log, and beside it the
// bare write that it consists of.
func BenchmarkCommit(b *testing.B) {
	for _, mode := range []string{SyncFsync, SyncQuorum} {
		b.Run(mode, func(b *testing.B) { benchCommit(b, mode, 1) })
		b.Run(mode+"-64", func(b *testing.B) { benchCommit(b, mode, 64) })
	}
	b.Run("bare-write", benchBare)
}

// benchCommit keeps deep proposals in flight.
func benchCommit(b *testing.B, mode string, deep int) {
	cfg := config(b.TempDir())
	cfg.SyncMode, cfg.FileSize = mode, 16<<20
	l := mustOpen(b, cfg)
	collect(b, l, caughtUp(l))
	data := make([]byte, 300)
	took := make([]time.Duration, 0, b.N)
	b.ResetTimer()
	propose := func() {
		if err := l.Propose(data, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
	for range min(deep, b.N) {
		propose()
	}
	for sent := min(deep, b.N); len(took) < b.N; {
		for _, c := range <-l.Committed() {
			took = append(took, time.Since(c.Tag.(time.Time)))
			if sent < b.N {
				propose()
				sent++
			}
		}
	}
	b.StopTimer()
	report(b, took)
	mustClose(b, l)
}

func benchBare(b *testing.B) {
	path := filepath.Join(b.TempDir(), "file")
	if err := files.Host(filepath.Dir(path)).Fill("file", 16<<20); err != nil {
		b.Fatal(err)
	}
	f, err := openFile(path, true)
	if err != nil {
		b.Fatal(err)
	}
	buf := engine.Alloc(page)
	took := make([]time.Duration, 0, b.N)
	b.ResetTimer()
	for i := range b.N {
		begun := time.Now()
		if err := f.WriteSync(buf, int64(i%4096)*page); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begun))
	}
	b.StopTimer()
	report(b, took)
	_ = f.Close()
	_ = os.Remove(path)
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	for _, q := range []int{50, 99} {
		b.ReportMetric(float64(took[len(took)*q/100].Microseconds()), fmt.Sprintf("us-p%d", q))
	}
}
