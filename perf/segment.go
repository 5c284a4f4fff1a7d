package perf

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/open"
	"github.com/varvefs/varve/segment"
)

// segmentRow is one workload on a store whose chunks are written.
type segmentRow struct {
	name    string
	unit    string
	size    int // bytes of one operation
	writers int // callers at the same time, each waiting for its own operation
	read    bool
	fio     []string // the same load on a raw file
}

var segmentRows = []segmentRow{
	{"stream write 1 MiB, 8 callers", "MB/s", 1 << 20, 8, false, []string{"--rw=write", "--bs=1m", "--iodepth=8"}},
	{"rand write 4 KiB durable, 64 callers", "IOPS", 4096, 64, false, []string{"--rw=randwrite", "--bs=4k", "--iodepth=64", "--sync=dsync"}},
	{"rand write 4 KiB durable, 1 caller", "IOPS", 4096, 1, false, []string{"--rw=randwrite", "--bs=4k", "--iodepth=1", "--sync=dsync"}},
	{"rand read 64 KiB, 32 callers", "IOPS", 64 << 10, 32, true, []string{"--rw=randread", "--bs=64k", "--iodepth=32"}},
	{"rand read 4 KiB, 32 callers", "IOPS", 4096, 32, true, []string{"--rw=randread", "--bs=4k", "--iodepth=32"}},
	{"rand read 4 KiB, 1 caller", "IOPS", 4096, 1, true, []string{"--rw=randread", "--bs=4k", "--iodepth=1"}},
}

// Segment measures a new store in o.Dir/perf-segment, and fio on a prewritten
// file beside it. Every write waits until it is durable. Then it measures what recovery
// takes, and on a store in memory what cleaning costs.
func Segment(ctx context.Context, backend string, o Options) (*Report, error) {
	dir := filepath.Join(o.Dir, "perf-segment")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("%w; remove what an earlier run left", err)
	}
	defer os.RemoveAll(dir)
	disk, err := open.Open(dir, backend, nil)
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	store, err := segment.Open(segment.Config{Disk: disk, Create: &segment.Identity{Server: 1, Cluster: "perf"}})
	if err != nil {
		return nil, err
	}
	defer store.Close()
	load := &segmentLoad{store: store, chunks: max(1, o.Size/chunk.Size)}
	if err := load.fill(); err != nil {
		return nil, err
	}
	r := newReport("segment", disk.Backend())
	for _, w := range segmentRows {
		row, err := load.run(ctx, w, o.Duration)
		if err != nil {
			return r, fmt.Errorf("%s: %w", w.name, err)
		}
		r.Rows = append(r.Rows, row)
	}
	if o.Fio {
		if err := fioBeside(ctx, r, o); err != nil {
			return r, err
		}
	}
	for _, more := range []func() ([]Row, error){
		func() ([]Row, error) { return recovery(ctx, backend, o.Dir, recoverySizes) },
		func() ([]Row, error) { return cleaning(ctx) },
	} {
		rows, err := more()
		r.Rows = append(r.Rows, rows...)
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// fioBeside fills the fio column from one prewritten file.
func fioBeside(ctx context.Context, r *Report, o Options) error {
	name := filepath.Join(o.Dir, "perf-fio")
	defer os.Remove(name)
	file := []string{"--filename=" + name, fmt.Sprintf("--size=%d", o.Size)}
	if _, err := fioRun(ctx, "prepare", "MB/s", append(file, "--rw=write", "--bs=1m", "--iodepth=8", "--end_fsync=1")...); err != nil {
		return err
	}
	for i, w := range segmentRows {
		args := append(append([]string{"--time_based", "--runtime=" + seconds(o.Duration)}, file...), w.fio...)
		var err error
		if r.Rows[i].Fio, err = fioRun(ctx, "perf", w.unit, args...); err != nil {
			return err
		}
	}
	return nil
}

// segmentLoad works on chunks 1..chunks of a store.
type segmentLoad struct {
	store  *segment.Store
	chunks int64
}

// fill writes every chunk once, as streams do.
func (l *segmentLoad) fill() error {
	buf := engine.Alloc(1 << 20)
	rand.NewChaCha8([32]byte{1}).Read(buf)
	for id := int64(1); id <= l.chunks; id++ {
		for off := uint32(0); off < chunk.Size; off += uint32(len(buf)) {
			if err := l.write(id, off, buf, off == 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *segmentLoad) write(id int64, off uint32, buf []byte, create bool) error {
	t, err := l.store.Write(segment.Write{Chunk: chunk.ID(id), Version: 1, Create: create, Off: off, Len: uint32(len(buf)),
		Data: buf, Sums: chunk.AppendSums(nil, off, buf)})
	if err != nil {
		return err
	}
	return t.Wait()
}

func (l *segmentLoad) run(ctx context.Context, w segmentRow, d time.Duration) (Row, error) {
	lats := make([][]time.Duration, w.writers)
	errs := make([]error, w.writers)
	var wg sync.WaitGroup
	begin, cpu := time.Now(), cpuTime()
	for i := range w.writers {
		wg.Go(func() {
			buf := engine.Alloc(w.size)
			rng := rand.New(rand.NewPCG(uint64(i), 9))
			for last := time.Now(); errs[i] == nil && last.Sub(begin) < d && ctx.Err() == nil; {
				id := 1 + rng.Int64N(l.chunks)
				off := uint32(rng.IntN(chunk.Size/w.size) * w.size)
				if w.read {
					_, errs[i] = l.store.Read(chunk.ID(id), 1, 1, off, buf, nil)
				} else {
					errs[i] = l.write(id, off, buf, false)
				}
				now := time.Now()
				lats[i] = append(lats[i], now.Sub(last))
				last = now
			}
		})
	}
	wg.Wait()
	took, used := time.Since(begin), cpuTime()-cpu
	var all []time.Duration
	for _, l := range lats {
		all = append(all, l...)
	}
	n := float64(len(all))
	row := Row{Name: w.name, Unit: w.unit, Value: n / took.Seconds(), CPU: used.Seconds() * 1e6 / n, P50: percentile(all, 0.5), P99: percentile(all, 0.99)}
	if w.unit == "MB/s" {
		row.Value *= float64(w.size) / 1e6
	}
	return row, errors.Join(errors.Join(errs...), ctx.Err())
}
