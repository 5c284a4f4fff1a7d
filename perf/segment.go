package perf

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
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
	seq     bool     // one place after the other, else at random
	fio     []string // the same load on a raw file
	tail    bool     // the longest latencies are wanted
}

// Reads of what streams have written come before the random writes, as fio's come from a file
// that was written in one go; the last row is of what those leave behind.
var segmentRows = []segmentRow{
	{name: "stream write 1 MiB, 8 callers", unit: "MB/s", size: 1 << 20, writers: 8, seq: true,
		fio: []string{"--rw=write", "--bs=1m", "--iodepth=8", "--sync=dsync"}},
	{name: "seq read 1 MiB, 8 callers", unit: "MB/s", size: 1 << 20, writers: 8, read: true, seq: true,
		fio: []string{"--rw=read", "--bs=1m", "--iodepth=8"}},
	{name: "rand read 64 KiB, 32 callers", unit: "IOPS", size: 64 << 10, writers: 32, read: true,
		fio: []string{"--rw=randread", "--bs=64k", "--iodepth=32"}},
	{name: "rand read 4 KiB, 32 callers", unit: "IOPS", size: 4096, writers: 32, read: true,
		fio: []string{"--rw=randread", "--bs=4k", "--iodepth=32"}},
	{name: "rand read 4 KiB, 1 caller", unit: "IOPS", size: 4096, writers: 1, read: true,
		fio: []string{"--rw=randread", "--bs=4k", "--iodepth=1"}},
	{name: "rand write 4 KiB durable, 64 callers", unit: "IOPS", size: 4096, writers: 64,
		fio: []string{"--rw=randwrite", "--bs=4k", "--iodepth=64", "--sync=dsync"}},
	{name: "rand write 4 KiB durable, 1 caller", unit: "IOPS", size: 4096, writers: 1,
		fio: []string{"--rw=randwrite", "--bs=4k", "--iodepth=1", "--sync=dsync"}},
	{name: "rand read 64 KiB of such blocks, 32 callers", unit: "IOPS", size: 64 << 10, writers: 32, read: true,
		fio: []string{"--rw=randread", "--bs=64k", "--iodepth=32"}},
}

// Segment measures a new store in o.Dir/perf-segment, in turn with fio on a prewritten
// file beside it. Every write waits until it is durable.
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
	store, err := segment.Open(segment.Config{Disk: disk, Limit: uint64(3*o.Size + 2<<30), Create: &segment.Identity{Server: 1, Cluster: "perf"}})
	if err != nil {
		return nil, err
	}
	defer store.Close()
	load := &segmentLoad{store: store, chunks: max(1, o.Size/chunk.Size)}
	if err := errors.Join(load.wear(), load.fill(1, load.chunks)); err != nil {
		return nil, err
	}
	file := []string{"--filename=" + filepath.Join(o.Dir, "perf-fio"), fmt.Sprintf("--size=%d", o.Size)}
	if o.Fio {
		defer os.Remove(filepath.Join(o.Dir, "perf-fio"))
		if _, err := fioRun(ctx, "prepare", "MB/s", append(file, "--rw=write", "--bs=1m", "--iodepth=8", "--end_fsync=1")...); err != nil {
			return nil, err
		}
	}
	r := newReport("segment", disk.Backend())
	for _, w := range segmentRows {
		row, err := o.inTurn(ctx, func() (Row, error) { return load.run(ctx, w, o.Duration) }, append(slices.Clone(file), w.fio...))
		if err != nil {
			return r, fmt.Errorf("%s: %w", w.name, err)
		}
		r.Rows = append(r.Rows, row)
	}
	return r, nil
}

// segmentLoad works on chunks 1..chunks of a store.
type segmentLoad struct {
	store  *segment.Store
	chunks int64
	blocks int64        // if not 0: of 4 KiB, that random writes go to
	most   int64        // if not 0: operations of a row
	next   atomic.Int64 // place of a sequential row
	done   atomic.Int64 // operations begun, if there is a most
}

// wear writes to most segments and empties them again: they are then as on a disk that has
// been in use for a while, and as fio's file, whose blocks were all written before.
func (l *segmentLoad) wear() error {
	n := int64(l.store.Space().Free/chunk.Size) * 9 / 10
	if err := l.fill(1, n); err != nil {
		return err
	}
	var ids []chunk.ID
	for id := int64(1); id <= n; id++ {
		ids = append(ids, chunk.ID(id))
	}
	return l.store.Delete(ids)
}

// fill writes chunks once, as streams do.
func (l *segmentLoad) fill(from, to int64) error {
	const callers = 4
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for id := from + int64(i); id <= to && errs[i] == nil; id += callers {
				errs[i] = l.fillChunk(id)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (l *segmentLoad) fillChunk(id int64) error {
	buf := engine.Alloc(1 << 20)
	rand.NewChaCha8([32]byte{1}).Read(buf)
	sums := chunk.AppendSums(nil, 0, buf)
	for off := uint32(0); off < chunk.Size; off += uint32(len(buf)) {
		if err := l.write(id, off, buf, sums, true); err != nil {
			return err
		}
	}
	return nil
}

// write writes whole blocks with their sums, which the client of a store makes.
func (l *segmentLoad) write(id int64, off uint32, buf []byte, sums []uint32, create bool) error {
	t, err := l.store.Write(segment.Write{Chunk: chunk.ID(id), Version: 1, Create: create, Off: off, Len: uint32(len(buf)), Data: buf, Sums: sums})
	if err != nil {
		return err
	}
	return t.Wait()
}

// rooms are buffers that a caller lends to the store, as a chunkserver does those that
// it has read from a connection.
type rooms chan []byte

// newRooms makes two rooms with the same data: one may not be back yet when the next
// write begins.
func newRooms(data []byte) rooms {
	r := make(rooms, 2)
	for range cap(r) {
		b := engine.Alloc(segment.HeadRoom + len(data))
		copy(b[segment.HeadRoom:], data)
		r <- b
	}
	return r
}

// lend is write, of data on loan.
func (l *segmentLoad) lend(id int64, off uint32, free rooms, sums []uint32) error {
	room := <-free
	t, err := l.store.Write(segment.Write{Chunk: chunk.ID(id), Version: 1, Off: off, Data: room[segment.HeadRoom:], Sums: sums,
		Room: room, Done: func() { free <- room }})
	if err != nil {
		return err
	}
	return t.Wait()
}

func (l *segmentLoad) run(ctx context.Context, w segmentRow, d time.Duration) (Row, error) {
	lats := make([][]time.Duration, w.writers)
	errs := make([]error, w.writers)
	var wg sync.WaitGroup
	lends := !w.read && w.size >= 1<<20
	begin, cpu := time.Now(), cpuTime()
	for i := range w.writers {
		wg.Go(func() {
			buf := engine.Alloc(w.size)
			sums := chunk.AppendSums(nil, 0, buf)
			var free rooms
			if lends {
				free = newRooms(buf)
			}
			rng := rand.New(rand.NewPCG(uint64(i), 9))
			for last := time.Now(); errs[i] == nil && last.Sub(begin) < d && ctx.Err() == nil; {
				if l.most > 0 && l.done.Add(1) > l.most {
					return
				}
				per := int64(chunk.Size / w.size)
				k := rng.Int64N(max(l.chunks*per, l.blocks))
				if w.seq {
					k = l.next.Add(1) % (l.chunks * per)
				}
				id, off := 1+k/per, uint32(k%per)*uint32(w.size)
				if w.read {
					_, errs[i] = l.store.Read(chunk.ID(id), 1, 1, off, buf, sums[:0])
				} else if lends {
					errs[i] = l.lend(id, off, free, sums)
				} else {
					errs[i] = l.write(id, off, buf, sums, false)
				}
				now := time.Now()
				lats[i] = append(lats[i], now.Sub(last))
				last = now
			}
		})
	}
	wg.Wait()
	took, used := time.Since(begin), cpuTime()-cpu
	all := slices.Concat(lats...)
	n := float64(len(all))
	row := Row{Name: w.name, Unit: w.unit, Value: n / took.Seconds(), CPU: used.Seconds() * 1e6 / n}
	row.latencies(all)
	if w.tail {
		row.tail(all)
	}
	if w.unit == "MB/s" {
		row.Value *= float64(w.size) / 1e6
	}
	return row, errors.Join(errors.Join(errs...), ctx.Err())
}
