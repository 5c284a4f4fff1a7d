package perf

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/varvefs/varve/engine"
)

// Options bound a run.
type Options struct {
	Dir      string        // an existing directory on the disk to measure
	Size     int64         // bytes of the test file
	Duration time.Duration // of each row
	Fio      bool          // measure fio beside, on the same file
	Rounds   int           // how often each row is measured, in turn with fio; the medians count
}

// engineRow is one workload on a prewritten file.
type engineRow struct {
	name  string
	kind  engine.Kind
	size  int // bytes of one operation
	depth int
	rand  bool
	unit  string
	fio   []string
}

var engineRows = []engineRow{
	{"seq write 1 MiB, depth 8", engine.Write, 1 << 20, 8, false, "MB/s", []string{"--rw=write"}},
	{"seq read 1 MiB, depth 8", engine.Read, 1 << 20, 8, false, "MB/s", []string{"--rw=read"}},
	{"rand read 64 KiB, depth 32", engine.Read, 64 << 10, 32, true, "IOPS", []string{"--rw=randread"}},
	{"rand read 4 KiB, depth 32", engine.Read, 4 << 10, 32, true, "IOPS", []string{"--rw=randread"}},
	{"rand read 4 KiB, depth 1", engine.Read, 4 << 10, 1, true, "IOPS", []string{"--rw=randread"}},
	{"rand write 4 KiB DSYNC, depth 64", engine.WriteSync, 4 << 10, 64, true, "IOPS", []string{"--rw=randwrite", "--sync=dsync"}},
	{"rand write 4 KiB DSYNC, depth 1", engine.WriteSync, 4 << 10, 1, true, "IOPS", []string{"--rw=randwrite", "--sync=dsync"}},
}

// Engine measures a disk through one backend, and through fio on the same file.
func Engine(ctx context.Context, disk engine.Disk, o Options) (*Report, error) {
	const name = "perf-engine"
	disk.Remove(name) // of an earlier run that was cut short
	f, err := disk.Create(name, o.Size)
	if err != nil {
		return nil, err
	}
	defer func() {
		f.Close()
		disk.Remove(name)
	}()
	if err := f.Zero(0, o.Size); err != nil {
		return nil, err
	}
	r := newReport("engine", disk.Backend())
	for _, w := range engineRows {
		args := append([]string{"--filename=" + filepath.Join(o.Dir, name), fmt.Sprintf("--size=%d", o.Size), fmt.Sprintf("--bs=%d", w.size),
			fmt.Sprintf("--iodepth=%d", w.depth)}, w.fio...)
		row, err := o.inTurn(ctx, func() (Row, error) { return runEngineRow(ctx, f, w, o.Duration) }, args)
		if err != nil {
			return r, fmt.Errorf("%s: %w", w.name, err)
		}
		r.Rows = append(r.Rows, row)
	}
	return r, nil
}

// inTurn measures a row, and fio with the given arguments, several times in turn.
func (o *Options) inTurn(ctx context.Context, run func() (Row, error), fio []string) (Row, error) {
	var rounds []Row
	for range max(1, o.Rounds) {
		row, err := run()
		if err != nil {
			return row, err
		}
		if o.Fio {
			args := append([]string{"--time_based", "--runtime=" + seconds(o.Duration)}, fio...)
			if row.Fio, err = fioRun(ctx, "perf", row.Unit, args...); err != nil {
				return row, err
			}
			if row.Fio > 0 {
				row.Ratio = row.Value / row.Fio
			}
		}
		rounds = append(rounds, row)
	}
	return median(rounds), nil
}

// engineLoad keeps depth operations in flight. Each slot's Done submits the next
// one, as a store's completions do.
type engineLoad struct {
	w        engineRow
	file     engine.File
	deadline time.Time
	mu       sync.Mutex
	rng      *rand.Rand
	next     int64 // block to use next in a sequential run
	begun    map[*engine.Op]time.Time
	lats     []time.Duration
	err      error
	slots    sync.WaitGroup
}

func runEngineRow(ctx context.Context, f engine.File, w engineRow, d time.Duration) (Row, error) {
	l := &engineLoad{w: w, file: f, rng: rand.New(rand.NewPCG(1, 2)), begun: map[*engine.Op]time.Time{}}
	begin, cpu := time.Now(), cpuTime()
	l.deadline = begin.Add(d)
	for range w.depth {
		buf := engine.Alloc(w.size)
		defer engine.Free(buf)
		op := &engine.Op{Kind: w.kind, Buf: buf, Done: l.done}
		l.slots.Add(1)
		l.mu.Lock()
		l.place(op)
		l.mu.Unlock()
		f.Submit(op)
	}
	l.slots.Wait()
	took, used := time.Since(begin), cpuTime()-cpu
	n := float64(len(l.lats))
	row := Row{Name: w.name, Unit: w.unit, Value: n / took.Seconds(), CPU: used.Seconds() * 1e6 / n}
	row.latencies(l.lats)
	if w.unit == "MB/s" {
		row.Value *= float64(w.size) / 1e6
	}
	return row, errors.Join(l.err, ctx.Err())
}

// place chooses the operation's offset; l.mu is held.
func (l *engineLoad) place(op *engine.Op) {
	blocks := l.file.Size() / int64(l.w.size)
	if l.w.rand {
		op.Off = l.rng.Int64N(blocks) * int64(l.w.size)
	} else {
		op.Off = l.next % blocks * int64(l.w.size)
		l.next++
	}
	l.begun[op] = time.Now()
}

func (l *engineLoad) done(op *engine.Op) {
	now := time.Now()
	l.mu.Lock()
	l.lats = append(l.lats, now.Sub(l.begun[op]))
	if op.Err != nil {
		l.err = op.Err
	}
	if l.err != nil || now.After(l.deadline) {
		l.mu.Unlock()
		l.slots.Done()
		return
	}
	l.place(op)
	l.mu.Unlock()
	l.file.Submit(op)
}
