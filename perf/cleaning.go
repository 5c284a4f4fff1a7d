package perf

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/segment"
)

// The cost of cleaning is measured on a store in memory: it depends on how full the store
// is and what is written, not on the disk. What is written is zeros, so that the store
// takes little memory.
const (
	cleaningSegment  = 2 << 20
	cleaningSegments = 512
	cleaningWriters  = 64
	cleaningBlock    = 4096
	cleaningSpread   = 4 << 20 // bytes of a chunk
)

// cleaningRow is one pattern of overwrites of a store that is filled to a
// part of its room.
type cleaningRow struct {
	pattern string
	fill    float64 // of what the store says that it holds
	zipf    float64 // skew of what is overwritten; 0: all alike
	files   bool    // whole files are deleted and written again
}

// cleaningRows are all patterns at all grades.
func cleaningRows() (rows []cleaningRow) {
	for _, w := range []cleaningRow{{pattern: "uniform"}, {pattern: "zipf 0.9", zipf: 0.9}, {pattern: "zipf 1.1", zipf: 1.1}, {pattern: "files", files: true}} {
		for _, w.fill = range []float64{0.50, 0.60, 0.70, 0.80, 0.90, 0.95} {
			rows = append(rows, w)
		}
	}
	return rows
}

// Cleaning measures write amplification: bytes written to the disk for each byte that
// callers write, in the steady state of 4 KiB overwrites by 64 callers that wait for each,
// and of whole files that come and go. How full a store is goes by the room that it says
// it has; the share of all its segments is told beside, and what theory says that a log
// without headers and reserve had to write at that share if the overwrites are uniform.
func Cleaning(ctx context.Context) (*Report, error) {
	r := newReport("cleaning", "memory")
	r.Plot = &Plot{Title: "Bytes written to the disk for each byte of callers", X: "part of the store's room that is full", Y: "write amplification"}
	for _, w := range cleaningRows() {
		row, err := w.run(ctx, cleaningSegments)
		if err != nil {
			return r, fmt.Errorf("%s at %.0f %%: %w", w.pattern, 100*w.fill, err)
		}
		r.Rows = append(r.Rows, row)
	}
	return r, nil
}

// leastAmplification is what theory says of a log that is overwritten uniformly and cleans
// large segments in the order of their age, which for such a load no choice of victims
// betters: of a victim the part u is alive that was not overwritten during the time in which
// the rest of the log was written, u = exp(-(1-u)/fill), and for 1-u new bytes 1 is written.
func leastAmplification(fill float64) float64 {
	u := 0.0
	for range 1000 {
		u = math.Exp(-(1 - u) / fill)
	}
	return 1 / (1 - u)
}

// churn is a store under one pattern.
type churn struct {
	disk  *memoryDisk
	store *segment.Store
	next  func(*rand.Rand) int // block to overwrite
	user  atomic.Int64         // bytes written by callers
}

func (w cleaningRow) run(ctx context.Context, segments uint64) (Row, error) {
	raw := int64(segments) * cleaningSegment
	disk := newMemoryDisk(raw*5/4, 100*time.Microsecond)
	store, err := segment.Open(segment.Config{Disk: disk, Limit: uint64(raw), SegmentSize: cleaningSegment,
		Create: &segment.Identity{Server: 1, Cluster: "perf"}})
	if err != nil {
		return Row{}, err
	}
	defer store.Close()
	c := &churn{disk: disk, store: store}
	data := int64(w.fill * float64(store.Space().Total))
	share := float64(data) / float64(raw)
	row := Row{Name: fmt.Sprintf("%s, %.0f %% full (%.0f %% of raw", w.pattern, 100*w.fill, 100*share), Unit: "x", Series: w.pattern, X: w.fill}
	if !w.files && w.zipf == 0 {
		row.Name += fmt.Sprintf(", theory %.2f", leastAmplification(share))
	}
	row.Name += ")"
	if w.files {
		err = c.files(ctx, data, &row)
		return row, err
	}
	blocks := int(data / (cleaningBlock + 112)) // with what the store counts for an entry
	c.next = func(rnd *rand.Rand) int { return rnd.IntN(blocks) }
	if w.zipf > 0 {
		c.next = zipf(blocks, w.zipf)
	}
	if err := c.parallel(ctx, blocks, func(i int, _ *rand.Rand) int { return i }, nil); err != nil {
		return row, err
	}
	random := func(_ int, rnd *rand.Rand) int { return c.next(rnd) }
	// All segments have to be written to and emptied before it is a steady state.
	if err := c.parallel(ctx, max(blocks, int(raw*5/4/cleaningBlock)-blocks), random, nil); err != nil {
		return row, err
	}
	var lats [cleaningWriters][]time.Duration
	user, written, cpu := c.user.Load(), disk.written.Load(), cpuTime()
	if err := c.parallel(ctx, blocks/2, random, &lats); err != nil {
		return row, err
	}
	row.Value = float64(disk.written.Load()-written) / float64(c.user.Load()-user)
	all := slices.Concat(lats[:]...)
	row.CPU = (cpuTime() - cpu).Seconds() * 1e6 / float64(len(all))
	row.latencies(all)
	return row, nil
}

// parallel writes n blocks by many callers, each of which waits for its own.
func (c *churn) parallel(ctx context.Context, n int, pick func(int, *rand.Rand) int, lats *[cleaningWriters][]time.Duration) error {
	var next atomic.Int64
	errs := make([]error, cleaningWriters)
	var wg sync.WaitGroup
	for i := range cleaningWriters {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), uint64(n)))
			buf := make([]byte, cleaningBlock)
			for errs[i] == nil && ctx.Err() == nil {
				k := int(next.Add(1) - 1)
				if k >= n {
					return
				}
				began := time.Now()
				errs[i] = c.write(pick(k, rnd), buf)
				if lats != nil {
					lats[i] = append(lats[i], time.Since(began))
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errors.Join(errs...), ctx.Err())
}

func (c *churn) write(block int, buf []byte) error {
	const per = cleaningSpread / cleaningBlock
	t, err := c.store.Write(segment.Write{Chunk: chunk.ID(1 + block/per), Version: 1, Create: true,
		Off: uint32(block%per) * cleaningBlock, Data: buf})
	if err != nil {
		return err
	}
	c.user.Add(int64(len(buf)))
	return t.Wait()
}

// files keeps a store filled with files of 16 KiB to 4 MiB, each a chunk, of which one after
// the other, drawn at random, is deleted and another one written.
func (c *churn) files(ctx context.Context, data int64, row *Row) error {
	rnd := rand.New(rand.NewPCG(7, 7))
	var ids []chunk.ID
	sizes := make(map[chunk.ID]int64)
	var live int64
	buf := make([]byte, 256<<10)
	last := chunk.ID(0)
	make1 := func() error {
		last++
		size := int64(16<<10) << rnd.IntN(9)
		for off := int64(0); off < size; off += int64(len(buf)) {
			n := min(int64(len(buf)), size-off)
			if _, err := c.store.Write(segment.Write{Chunk: last, Version: 1, Create: true, Off: uint32(off), Data: buf[:n]}); err != nil {
				return err
			}
			c.user.Add(n)
		}
		ids, sizes[last] = append(ids, last), size
		live += size * 1025 / 1024
		return nil
	}
	var user, written int64
	for total := int64(0); total < data*5/2; total = c.user.Load() {
		if user == 0 && total > data*3/2 {
			user, written = total, c.disk.written.Load()
		}
		for live > data-4<<20 {
			i := rnd.IntN(len(ids))
			if err := c.store.Delete(ids[i : i+1]); err != nil {
				return err
			}
			live -= sizes[ids[i]] * 1025 / 1024
			ids[i] = ids[len(ids)-1]
			ids = ids[:len(ids)-1]
		}
		if err := errors.Join(make1(), ctx.Err()); err != nil {
			return err
		}
	}
	row.Value = float64(c.disk.written.Load()-written) / float64(c.user.Load()-user)
	return nil
}

// zipf draws from 0..n-1 so that the k-th most wanted is wanted 1/k^skew times as often as
// the first. Which those are is spread over all.
func zipf(n int, skew float64) func(*rand.Rand) int {
	sums := make([]float64, n)
	total := 0.0
	for i := range sums {
		total += 1 / math.Pow(float64(i+1), skew)
		sums[i] = total
	}
	place := rand.New(rand.NewPCG(1, 2)).Perm(n)
	return func(rnd *rand.Rand) int { return place[min(sort.SearchFloat64s(sums, rnd.Float64()*total), n-1)] }
}
