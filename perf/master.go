package perf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/master/image"
)

// MasterOptions say how to measure masters. Everything runs on loopback, as
// processes of Program.
type MasterOptions struct {
	Dir      string // the tree's directory is kept in it, for the next run
	Program  string // the varve binary
	Files    int    // one-chunk files of the large tree; 0: only throughput
	Clients  int    // connections under load
	Duration time.Duration
	Tail     int64 // bytes of changelog behind the image that a restart reads
	Shared   bool  // clients and all voters share all processors
	Progress func(string)
}

// Master measures a master with a large tree (memory, restart, an image while it
// serves), and small ones with one and with three voters under load.
func Master(ctx context.Context, o MasterOptions) (*Report, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	r := newReport("masters", "")
	key, err := masterKey(o.Dir)
	if err != nil {
		return nil, err
	}
	if o.Files > 0 {
		if err := largeTree(ctx, &o, key, r); err != nil {
			return nil, err
		}
	}
	return r, quorumRows(ctx, &o, key, r)
}

// largeTree makes or finds the tree and measures a master that has it.
func largeTree(ctx context.Context, o *MasterOptions, key masterSecret, r *Report) error {
	bare, err := bareMemory(ctx, o, key)
	if err != nil {
		return err
	}
	dir := filepath.Join(o.Dir, fmt.Sprintf("tree-%d", o.Files))
	if _, err := os.Stat(dir); err != nil {
		o.Progress(fmt.Sprintf("making %d files", o.Files))
		if err := growTree(ctx, dir, o.Files, o.Tail, r); err != nil {
			os.RemoveAll(dir)
			return err
		}
	}
	o.Progress("starting a master on them")
	p, err := startMaster(ctx, o.Program, dir, key, 1, nil)
	if err != nil {
		return fmt.Errorf("%w\nif an earlier run was interrupted, remove %s: the next one makes it anew", err, dir)
	}
	defer p.kill()
	first, err := p.figures()
	if err != nil {
		return err
	}
	r.add("restart", first.start.Seconds(), "s")
	r.add("restart: image", first.at("varve_master_start_seconds{phase=\"image\"}"), "s")
	r.add("restart: changelog", first.at("varve_master_start_seconds{phase=\"changelog\"}"), "s")
	r.add("restart: chunks", first.at("varve_master_start_seconds{phase=\"chunks\"}"), "s")
	r.memory("memory a file, tree", first, bare, o.Files)
	o.Progress("two chunkservers tell their copies")
	var servers []*link.Conn
	for id := range treeServers { // all come before one has told all, as after a start
		s, err := enrol(ctx, p, key, id)
		if err != nil {
			return err
		}
		defer s.Close()
		servers = append(servers, s)
	}
	begun := time.Now()
	told := make(chan error)
	for _, s := range servers {
		go func() { told <- tellCopies(ctx, s, o.Files) }()
	}
	for range servers {
		err = errors.Join(err, <-told)
	}
	if err != nil {
		return err
	}
	r.add("copies told", 2*float64(o.Files)/time.Since(begun).Seconds()/1e6, "M/s")
	full, err := p.figures()
	if err != nil {
		return err
	}
	r.memory("memory a file, tree and copies", full, bare, o.Files)
	if err := imageRows(ctx, o, key, p, r); err != nil {
		return err
	}
	p.kill()
	return oldestImage(dir)
}

// oldestImage removes the images that a measurement has made: the next one shall
// begin with as much changelog to read.
func oldestImage(dir string) error {
	list, err := image.List(dir)
	if err != nil || len(list) == 0 {
		return err
	}
	for _, f := range list[:len(list)-1] {
		if err := os.Remove(f.Path); err != nil {
			return err
		}
	}
	return nil
}

// bareMemory is what a master without files takes.
func bareMemory(ctx context.Context, o *MasterOptions, key masterSecret) (*masterFigures, error) {
	dir := filepath.Join(o.Dir, "bare")
	defer os.RemoveAll(dir)
	p, err := startMaster(ctx, o.Program, dir, key, 1, nil)
	if err != nil {
		return nil, err
	}
	defer p.kill()
	return p.figures()
}

func (r *Report) add(name string, value float64, unit string) {
	r.Rows = append(r.Rows, Row{Name: name, Value: value, Unit: unit})
}

// memory adds what files more take than none.
func (r *Report) memory(name string, f, bare *masterFigures, files int) {
	r.add(name+": resident", (f.resident-bare.resident)/float64(files), "B")
	r.add(name+": Go heap", (f.heap-bare.heap)/float64(files), "B")
}

// imageRows has clients work while no image is written, then while one is.
func imageRows(ctx context.Context, o *MasterOptions, key masterSecret, p *masterProcess, r *Report) error {
	o.Progress("load without an image")
	quiet, err := loadFor(ctx, o, key, p, 1, func(context.Context) error { return sleep(ctx, o.Duration) })
	if err != nil {
		return err
	}
	r.load("32 clients, no image", quiet)
	before, err := p.figures()
	if err != nil {
		return err
	}
	o.Progress("load while an image is written")
	var bytes uint64
	var took time.Duration
	busy, err := loadFor(ctx, o, key, p, 2, func(ctx context.Context) error {
		begun := time.Now()
		var err error
		bytes, err = p.saveImage(ctx, key)
		took = time.Since(begun)
		return err
	})
	if err != nil {
		return err
	}
	r.load("32 clients, image being written", busy)
	r.add("image written in", took.Seconds(), "s")
	r.add("image", float64(bytes)/1e6, "MB")
	after, err := p.figures()
	if err != nil {
		return err
	}
	r.memory("memory a file, peak while writing", &masterFigures{resident: after.peak, heap: after.heap}, &masterFigures{}, o.Files)
	r.add("garbage collection, longest pause since the start", 1e3*after.at(`go_gc_duration_seconds{quantile="1"}`), "ms")
	cpu := after.at("process_cpu_seconds_total") - before.at("process_cpu_seconds_total")
	gc := after.at("go_gc_cpu_seconds_total") - before.at("go_gc_cpu_seconds_total")
	r.add("garbage collection, share of the processor time", 100*gc/max(cpu, 1e-9), "%")
	return nil
}

// load adds the rows of one load.
func (r *Report) load(name string, l *masterLoad) {
	r.Rows = append(r.Rows, Row{
		Name: name, Value: l.rate(), Unit: "changes/s",
		P50: percentile(l.changes, 0.5), P99: percentile(l.changes, 0.99), Max: percentile(l.changes, 1),
	}, Row{
		Name: name + ": reads", Value: float64(len(l.reads)) / l.time.Seconds(), Unit: "reads/s",
		P50: percentile(l.reads, 0.5), P99: percentile(l.reads, 0.99), Max: percentile(l.reads, 1),
	})
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
