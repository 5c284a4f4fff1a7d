package perf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/open"
	"github.com/varvefs/varve/segment"
)

// scrubTime is in how long the whole store is read while the scrubber runs: thousands of
// times as fast as a disk is usually scrubbed.
const scrubTime = time.Minute

// stallRow is a state of a store while 64 callers write 4 KiB at random.
type stallRow struct {
	name  string
	fill  float64 // of what the store says that it holds
	clean bool    // the cleaner has to run; else it must not
	scrub bool
}

var stallRows = []stallRow{
	{"30 % full, nothing to clean", 0.30, false, false},
	{"30 % full, scrub", 0.30, false, true},
	{"80 % full, cleaning", 0.80, true, false},
	{"80 % full, cleaning and scrub", 0.80, true, true},
	{"95 % full, cleaning and scrub", 0.95, true, true},
}

// Stalls measures how long durable random writes of 4 KiB by 64 callers take at most, with
// and without the cleaner and the scrubber, on stores of o.Size bytes, and what fio sees of
// the disk before and after, with the same size, depth and sync flag.
func Stalls(ctx context.Context, backend string, o Options) (*Report, error) {
	r := newReport("stalls", backend)
	r.Plot = &Plot{Title: "Latency of a durable 4 KiB write, 64 callers", X: "nines of the part of writes that are faster: 2 is 99 %, 3 is 99.9 %", Y: "us", LogY: true, Tails: true}
	if err := fioStall(ctx, r, o, "fio before"); err != nil {
		return r, err
	}
	for _, w := range stallRows {
		row, err := w.run(ctx, backend, o)
		if err != nil {
			return r, fmt.Errorf("%s: %w", w.name, err)
		}
		r.Rows = append(r.Rows, row)
	}
	return r, fioStall(ctx, r, o, "fio after")
}

// fioStall adds a row of what fio sees.
func fioStall(ctx context.Context, r *Report, o Options, name string) error {
	if !o.Fio {
		return nil
	}
	file := filepath.Join(o.Dir, "perf-fio")
	defer os.Remove(file)
	args := []string{"--filename=" + file, fmt.Sprintf("--size=%d", o.Size/2)}
	if _, err := fioRun(ctx, "prepare", "MB/s", append(args, "--rw=write", "--bs=1m", "--iodepth=8", "--end_fsync=1")...); err != nil {
		return err
	}
	row, err := fioRow(ctx, name, "IOPS", append(args, "--time_based", "--runtime="+seconds(o.Duration), "--rw=randwrite", "--bs=4k", "--iodepth=64", "--sync=dsync")...)
	r.Rows = append(r.Rows, row)
	return err
}

func (w stallRow) run(ctx context.Context, backend string, o Options) (Row, error) {
	dir := filepath.Join(o.Dir, "perf-stalls")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return Row{}, fmt.Errorf("%w; remove what an earlier run left", err)
	}
	defer os.RemoveAll(dir)
	disk, err := open.Open(dir, backend, nil)
	if err != nil {
		return Row{}, err
	}
	defer disk.Close()
	set := metrics.NewSet()
	cfg := segment.Config{Disk: disk, Limit: uint64(o.Size), SegmentSize: uint32(max(2, min(64, o.Size>>28)) << 20), Metrics: set,
		Create: &segment.Identity{Server: 1, Cluster: "perf"}}
	if w.scrub {
		cfg.Scrub = scrubTime
	}
	store, err := segment.Open(cfg)
	if err != nil {
		return Row{}, err
	}
	defer store.Close()
	cleaned := set.GetOrCreateCounter("varve_segment_cleaned_segments_total")
	data := int64(w.fill * float64(store.Space().Total))
	load := &segmentLoad{store: store, blocks: data / (cleaningBlock + 112)}
	if err := load.fillBlocks(ctx); err != nil {
		return Row{}, err
	}
	row := segmentRow{name: w.name, unit: "IOPS", size: cleaningBlock, writers: cleaningWriters, tail: true}
	for w.clean && cleaned.Get() < uint64(o.Size)/uint64(cfg.SegmentSize)/4 { // until cleaning is all that makes room
		if _, err := load.run(ctx, row, time.Second); err != nil {
			return Row{}, err
		}
	}
	if !w.clean { // stop before all that was free is written to
		load.most = (int64(store.Space().Total) - data) / (2 * cleaningBlock) * 3 / 4
	}
	before := cleaned.Get()
	got, err := load.run(ctx, row, o.Duration)
	if n := cleaned.Get() - before; err == nil && w.clean != (n > 0) {
		err = fmt.Errorf("%d segments were cleaned", n)
	}
	return got, err
}

// fillBlocks writes all blocks of the load once.
func (l *segmentLoad) fillBlocks(ctx context.Context) error {
	const piece = 1 << 20
	buf := engine.Alloc(piece)
	sums := chunk.AppendSums(nil, 0, buf)
	for at := int64(0); at < l.blocks*cleaningBlock; at += piece {
		n := min(piece, l.blocks*cleaningBlock-at)
		if err := errors.Join(l.write(1+at/chunk.Size, uint32(at%chunk.Size), buf[:n], sums[:n/cleaningBlock], true), ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}
