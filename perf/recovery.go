package perf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/open"
	"github.com/varvefs/varve/segment"
)

// recoveryExtent is how many bytes of a chunk lie together in the stores whose recovery is
// measured: the mean that memory is planned for.
const recoveryExtent = 64 << 10

// recoverySizes are the bytes that such a store holds when it is opened; each takes about
// half a percent of that on the disk, see sparseDisk.
var recoverySizes = []int64{4 << 30, 16 << 30, 64 << 30}

// Recovery measures how long a store in extents of 64 KiB takes to open after a clean
// close: with its checkpoint, and from the log alone. What a larger one takes is told from
// the largest by its size.
func Recovery(ctx context.Context, backend string, o Options) (*Report, error) {
	r := newReport("recovery", backend)
	r.Plot = &Plot{Title: "Time to open a store, extents of 64 KiB", X: "GiB stored", Y: "ms", LogX: true, LogY: true}
	var err error
	r.Rows, err = recovery(ctx, backend, o.Dir, recoverySizes)
	return r, err
}

func recovery(ctx context.Context, backend, parent string, sizes []int64) ([]Row, error) {
	dir := filepath.Join(parent, "perf-recovery")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("%w; remove what an earlier run left", err)
	}
	defer os.RemoveAll(dir)
	under, err := open.Open(dir, backend, nil)
	if err != nil {
		return nil, err
	}
	defer under.Close()
	disk := &sparseDisk{Disk: under, dir: dir}
	var rows []Row
	from := int64(0)
	for _, size := range sizes {
		if err := fillForRecovery(ctx, disk, from, size); err != nil {
			return rows, err
		}
		from = size
		more, err := openBoth(disk, size)
		if rows = append(rows, more...); err != nil {
			return rows, err
		}
	}
	took, err := disk.readSeals()
	rows = append(rows, Row{Name: "reading the seals alone, for 1 TiB", Value: took.Seconds() / float64(from) * (1 << 40), Unit: "s"})
	return append(rows, Row{Name: "  seals, for 1 TiB", Value: float64(disk.seals.Load()) / float64(from) * (1 << 40) / 1e6, Unit: "MB"}), err
}

// openBoth opens a store of size bytes with its checkpoint and without.
func openBoth(disk engine.Disk, size int64) ([]Row, error) {
	var rows []Row
	for _, w := range []struct {
		how  string
		unit float64 // bytes that the extrapolated figure is for
		name string
		keep bool
	}{
		{"with a checkpoint", 100 << 30, "100 GiB", true},
		{"from the log alone", 1 << 40, "1 TiB", false},
	} {
		took, cpu, err := timeOpen(disk, w.keep)
		if err != nil {
			return rows, fmt.Errorf("open %s: %w", w.how, err)
		}
		rows = append(rows,
			Row{Name: fmt.Sprintf("open %d GiB %s", size>>30, w.how), Value: took.Seconds() * 1e3, Unit: "ms", CPU: cpu.Seconds() * 1e6,
				Series: w.how, X: float64(size) / (1 << 30)},
			Row{Name: fmt.Sprintf("  that is for %s", w.name), Value: took.Seconds() * w.unit / float64(size), Unit: "s"})
	}
	return rows, nil
}

// recoveryLimit is more than any of these stores takes.
const recoveryLimit = 1 << 40

// fillForRecovery makes or continues a store that holds from bytes, until it holds size.
func fillForRecovery(ctx context.Context, disk engine.Disk, from, size int64) error {
	cfg := segment.Config{Disk: disk, Limit: recoveryLimit}
	if from == 0 {
		cfg.Create = &segment.Identity{Server: 1, Cluster: "perf"}
	}
	store, err := segment.Open(cfg)
	if err != nil {
		return err
	}
	buf := engine.Alloc(recoveryExtent)
	sums := chunk.AppendSums(nil, 0, buf)
	var ids []chunk.ID
	for at := from; at < size && err == nil; at += recoveryExtent {
		// Every second extent of a chunk first, so that neighbours do not lie together.
		id, off := chunk.ID(1+at/chunk.Size), at%chunk.Size/recoveryExtent
		off = (off*2 + off/(chunk.Size/recoveryExtent/2)) % (chunk.Size / recoveryExtent)
		if len(ids) == 0 || ids[len(ids)-1] != id {
			ids = append(ids, id)
		}
		_, err = store.Write(segment.Write{Chunk: id, Version: 1, Create: true, Off: uint32(off * recoveryExtent), Data: buf, Sums: sums})
		err = errors.Join(err, ctx.Err())
	}
	return errors.Join(err, store.Sync(ids), store.Close())
}

// timeOpen opens and closes the store of a disk, with or without its checkpoints.
func timeOpen(disk engine.Disk, keep bool) (took, cpu time.Duration, err error) {
	for slot := 0; slot < 2 && !keep; slot++ {
		if err := disk.Remove(fmt.Sprintf("checkpoint-%d", slot)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, 0, err
		}
	}
	began, used := time.Now(), cpuTime()
	store, err := segment.Open(segment.Config{Disk: disk, Limit: recoveryLimit})
	if err != nil {
		return 0, 0, err
	}
	took, cpu = time.Since(began), cpuTime()-used
	return took, cpu, store.Close()
}
