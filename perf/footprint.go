package perf

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/segment"
)

// footprintRow is a store of so many extents of one size.
type footprintRow struct {
	extent  int // bytes
	extents int
	planned float64 // MiB for a TiB: 16 bytes an extent, and 4 for each 4 KiB of data
}

var footprintRows = []footprintRow{
	{1 << 20, 20_000, 16 + 1024}, {64 << 10, 1_000_000, 256 + 1024}, {16 << 10, 3_000_000, 1024 + 1024},
}

// footprintPer is how many extents a chunk has: as many as it may have before it is merged.
const footprintPer = 2000

// Footprint measures the memory that a store's index and checksums take, by the size of
// extents, and what the garbage collector costs while a store of so many extents of 4 KiB
// is read and written. The store is on a disk that forgets: zeros are all that is written.
func Footprint(ctx context.Context, o Options, extents int) (*Report, error) {
	r := newReport("memory", "none")
	for _, w := range append(footprintRows, footprintRow{4 << 10, extents, 4096 + 1024}) {
		s, bytes, err := w.fill(ctx)
		if err != nil {
			return r, err
		}
		perTiB := bytes / float64(w.extents) * float64(1<<40/w.extent) / (1 << 20)
		r.Rows = append(r.Rows, Row{Name: fmt.Sprintf("index and sums of 1 TiB, extents of %d KiB (planned %.0f)", w.extent>>10, w.planned), Value: perTiB, Unit: "MiB"},
			Row{Name: "  an extent", Value: bytes / float64(w.extents), Unit: "bytes"})
		if w.extents == extents {
			rows, err := w.collecting(ctx, s, o.Duration)
			if r.Rows = append(r.Rows, rows...); err != nil {
				return r, errors.Join(err, s.Close())
			}
		}
		if err := s.Close(); err != nil {
			return r, err
		}
	}
	return r, nil
}

// heapNow is what is in use after a collection: the least of a few looks, since a store may be
// taking a checkpoint.
func heapNow() float64 {
	least := math.Inf(1)
	for range 5 {
		runtime.GC()
		runtime.GC() // what the first has let go of pools
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		least = min(least, float64(m.HeapAlloc))
		time.Sleep(100 * time.Millisecond)
	}
	return least
}

// per is how many extents a chunk has.
func (w footprintRow) per() int { return min(footprintPer, chunk.Size/w.extent) }

// fill makes the store and tells how many bytes of memory it takes more than an empty one.
func (w footprintRow) fill(ctx context.Context) (*segment.Store, float64, error) {
	disk := &forgetful{memoryDisk: newMemoryDisk(1<<50, 0)}
	s, err := segment.Open(segment.Config{Disk: disk, Limit: 16 << 40, Create: &segment.Identity{Server: 1, Cluster: "perf"}})
	if err != nil {
		return nil, 0, err
	}
	before := heapNow()
	buf := engine.Alloc(w.extent)
	clear(buf)
	sums := chunk.AppendSums(nil, 0, buf)
	per := w.per()
	for i := range w.extents {
		_, err := s.Write(segment.Write{Chunk: chunk.ID(1 + i/per), Version: 1, Create: true, Off: uint32(i % per * w.extent), Data: buf, Sums: sums})
		if err = errors.Join(err, ctx.Err()); err != nil {
			return nil, 0, errors.Join(err, s.Close())
		}
	}
	if err := s.Sync([]chunk.ID{1}); err != nil {
		return nil, 0, errors.Join(err, s.Close())
	}
	return s, heapNow() - before, nil
}

// collecting measures the garbage collector's part of the processor time while the store's
// extents are overwritten at random.
func (w footprintRow) collecting(ctx context.Context, s *segment.Store, d time.Duration) ([]Row, error) {
	buf, sums := make([]byte, w.extent), chunk.AppendSums(nil, 0, make([]byte, w.extent))
	rng := rand.New(rand.NewPCG(1, 2))
	gc, cycles, used := gcTime(), gcCycles(), cpuTime()
	ops := 0
	for began := time.Now(); time.Since(began) < d; ops++ {
		i := rng.IntN(w.extents)
		_, err := s.Write(segment.Write{Chunk: chunk.ID(1 + i/w.per()), Version: 1, Off: uint32(i % w.per() * w.extent), Data: buf, Sums: sums})
		garbage = make([]byte, 4096) // as requests leave it behind
		if err = errors.Join(err, ctx.Err()); err != nil {
			return nil, err
		}
	}
	all := cpuTime() - used
	return []Row{
		{Name: fmt.Sprintf("garbage collector with %.1f million extents, part of the processor time", float64(w.extents)/1e6), Value: 100 * (gcTime() - gc).Seconds() / all.Seconds(), Unit: "%", CPU: all.Seconds() * 1e6 / float64(ops)},
		{Name: "  collections meanwhile", Value: float64(gcCycles() - cycles), Unit: ""},
	}, nil
}

// garbage keeps the compiler from leaving allocations out.
var garbage []byte

// gcTime is the processor time that the garbage collector has used.
func gcTime() time.Duration {
	s := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}, {Name: "/cpu/classes/gc/mark/idle:cpu-seconds"}}
	metrics.Read(s)
	return time.Duration((s[0].Value.Float64() - s[1].Value.Float64()) * 1e9)
}

func gcCycles() uint32 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NumGC
}

// forgetful is a disk that keeps nothing but the superblock: all else reads as zeros, whatever
// was written.
type forgetful struct{ *memoryDisk }

func (d *forgetful) Create(name string, size int64) (engine.File, error) {
	if name == "superblock" {
		return d.memoryDisk.Create(name, size)
	}
	return &forgetfulFile{name: name, size: size}, nil
}

type forgetfulFile struct {
	name string
	size int64
}

func (f *forgetfulFile) Name() string            { return f.name }
func (f *forgetfulFile) Size() int64             { return f.size }
func (f *forgetfulFile) Close() error            { return nil }
func (f *forgetfulFile) Zero(int64, int64) error { return nil }
func (f *forgetfulFile) ReadAt(b []byte, _ int64) error {
	clear(b)
	return nil
}

func (f *forgetfulFile) Submit(ops ...*engine.Op) {
	for _, op := range ops {
		go func() {
			if op.Kind == engine.Read {
				clear(op.Buf)
			}
			op.Err = nil
			op.Done(op)
		}()
	}
}
