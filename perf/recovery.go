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

// recovery measures how long a store of o.Size bytes, in extents of 64 KiB, takes to open
// after a clean close: with its checkpoint, and from the log alone. What larger stores
// would take is that times their size: a bound, since some of it does not grow.
func recovery(ctx context.Context, backend string, o Options) ([]Row, error) {
	dir := filepath.Join(o.Dir, "perf-recovery")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("%w; remove what an earlier run left", err)
	}
	defer os.RemoveAll(dir)
	disk, err := open.Open(dir, backend, nil)
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	if err := fillForRecovery(ctx, disk, o.Size); err != nil {
		return nil, err
	}
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
			Row{Name: fmt.Sprintf("open %d MiB %s", o.Size>>20, w.how), Value: took.Seconds() * 1e3, Unit: "ms", CPU: cpu.Seconds() * 1e6},
			Row{Name: fmt.Sprintf("  that is for %s", w.name), Value: took.Seconds() * w.unit / float64(o.Size), Unit: "s"})
	}
	return rows, nil
}

func fillForRecovery(ctx context.Context, disk engine.Disk, size int64) error {
	store, err := segment.Open(segment.Config{Disk: disk, Create: &segment.Identity{Server: 1, Cluster: "perf"}})
	if err != nil {
		return err
	}
	buf := engine.Alloc(recoveryExtent)
	sums := chunk.AppendSums(nil, 0, buf)
	var ids []chunk.ID
	for at := int64(0); at < size && err == nil; at += recoveryExtent {
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
	store, err := segment.Open(segment.Config{Disk: disk})
	if err != nil {
		return 0, 0, err
	}
	took, cpu = time.Since(began), cpuTime()-used
	return took, cpu, store.Close()
}
