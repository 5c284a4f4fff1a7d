package perf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// FS measures data on any mounted directory through ordinary system calls.
func FS(ctx context.Context, o Options) (*Report, error) {
	dir, err := os.MkdirTemp(o.Dir, "perf-fs")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r := newReport("file system data in "+o.Dir, "")
	f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	big, small := make([]byte, 1<<20), make([]byte, 4096)
	rng := rand.New(rand.NewPCG(1, 2))
	pos := func() int64 { return rng.Int64N(o.Size/4096) * 4096 }

	begin := time.Now()
	for off := int64(0); off < o.Size; off += int64(len(big)) {
		if _, err := f.WriteAt(big, off); err != nil {
			return r, err
		}
	}
	if err := f.Sync(); err != nil {
		return r, err
	}
	r.Rows = append(r.Rows, Row{Name: "seq write 1 MiB and fsync", Unit: "MB/s", Value: float64(o.Size) / 1e6 / time.Since(begin).Seconds()})
	for _, w := range []struct {
		name string
		op   func() error
	}{
		{"rand read 4 KiB", func() error { _, err := f.ReadAt(small, pos()); return err }},
		{"rand write 4 KiB", func() error { _, err := f.WriteAt(small, pos()); return err }},
		{"rand write 4 KiB and fsync", func() error {
			_, err := f.WriteAt(small, pos())
			return errors.Join(err, f.Sync())
		}},
	} {
		row, err := timed(ctx, w.name, "IOPS", o.Duration, w.op)
		if err != nil {
			return r, fmt.Errorf("%s: %w", w.name, err)
		}
		r.Rows = append(r.Rows, row)
	}
	begin = time.Now()
	n, err := io.CopyBuffer(io.Discard, io.NewSectionReader(f, 0, o.Size), big)
	r.Rows = append(r.Rows, Row{Name: "seq read 1 MiB", Unit: "MB/s", Value: float64(n) / 1e6 / time.Since(begin).Seconds()})
	return r, err
}

// timed repeats op for a while in one goroutine.
func timed(ctx context.Context, name, unit string, d time.Duration, op func() error) (Row, error) {
	var lats []time.Duration
	begin := time.Now()
	for last := begin; last.Sub(begin) < d && ctx.Err() == nil; {
		if err := op(); err != nil {
			return Row{}, err
		}
		now := time.Now()
		lats = append(lats, now.Sub(last))
		last = now
	}
	value := float64(len(lats)) / time.Since(begin).Seconds()
	return Row{Name: name, Unit: unit, Value: value, P50: percentile(lats, 0.5), P99: percentile(lats, 0.99)}, ctx.Err()
}

// Meta measures metadata on any mounted directory: files files, one thread and then eight.
func Meta(ctx context.Context, o Options, files int) (*Report, error) {
	dir, err := os.MkdirTemp(o.Dir, "perf-meta")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r := newReport("file system metadata in "+o.Dir, "")
	small := make([]byte, 4096)
	name := func(i int) string { return filepath.Join(dir, "f"+strconv.Itoa(i)) }
	for _, w := range []struct {
		name    string
		threads int
		op      func(i int) error
	}{
		{"create", 1, func(i int) error { return closeAll(os.OpenFile(name(i), os.O_CREATE|os.O_WRONLY, 0o600)) }},
		{"stat", 1, func(i int) error { _, err := os.Stat(name(i)); return err }},
		{"write 4 KiB file", 1, func(i int) error { return os.WriteFile(name(i), small, 0o600) }},
		{"read 4 KiB file", 1, func(i int) error { _, err := os.ReadFile(name(i)); return err }},
		{"rename", 1, func(i int) error { return os.Rename(name(i), name(i)+"r") }},
		{"unlink", 1, func(i int) error { return os.Remove(name(i) + "r") }},
		{"create, 8 threads", 8, func(i int) error { return closeAll(os.OpenFile(name(i), os.O_CREATE|os.O_WRONLY, 0o600)) }},
		{"unlink, 8 threads", 8, func(i int) error { return os.Remove(name(i)) }},
	} {
		row, err := counted(ctx, w.name, w.threads, files, w.op)
		if err != nil {
			return r, fmt.Errorf("%s: %w", w.name, err)
		}
		r.Rows = append(r.Rows, row)
	}
	return r, nil
}

func closeAll(f *os.File, err error) error {
	if err != nil {
		return err
	}
	return f.Close()
}

// counted runs op for 0..n-1, shared out among threads.
func counted(ctx context.Context, name string, threads, n int, op func(i int) error) (Row, error) {
	lats := make([]time.Duration, n)
	errs := make([]error, threads)
	var wg sync.WaitGroup
	begin := time.Now()
	for t := range threads {
		wg.Go(func() {
			for i := t; i < n && ctx.Err() == nil; i += threads {
				start := time.Now()
				if errs[t] = op(i); errs[t] != nil {
					return
				}
				lats[i] = time.Since(start)
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	return Row{Name: name, Unit: "ops/s", Value: float64(n) / took.Seconds(), P50: percentile(lats, 0.5), P99: percentile(lats, 0.99)},
		errors.Join(errors.Join(errs...), ctx.Err())
}
