package segment

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/sim"
	"github.com/varvefs/varve/status"
)

// TestWriteErrors lets single writes fail in long random runs with power cuts. Nothing
// that was acknowledged may be lost: frames are written again elsewhere.
func TestWriteErrors(t *testing.T) {
	runs, steps := 30, 400
	if testing.Short() {
		runs = 4
	}
	faults := uint64(0)
	for run := range runs {
		w := newWorld(t, fmt.Sprintf("seed %d", run), 1000+uint64(run), 512)
		w.onStep = func() {
			if w.rnd.IntN(30) == 0 {
				w.crash(sim.Random(w.rnd.Uint64()), 1)
			}
		}
		left := maxFaults
		for range steps {
			if left > 0 && w.rnd.IntN(40) == 0 {
				left--
				w.disk.Inject(sim.Fault{Effect: sim.Fail, Kinds: []engine.Kind{engine.WriteSync}, File: containerName(uint32(w.rnd.IntN(4))), Times: 1})
			}
			w.random()
			if w.rnd.IntN(150) == 0 {
				faults += w.s.stat.failures.Get()
				w.restart(sim.Random(w.rnd.Uint64()))
				left = maxFaults
			}
		}
		w.check(w.s, true)
		faults += w.s.stat.failures.Get()
	}
	t.Logf("%d writes failed", faults)
	if faults == 0 {
		t.Error("no write failed")
	}
}

// TestHostIsFull: a host without room for its own books fails writes to new blocks. That
// costs segments, not the disk, and nothing that was acknowledged.
func TestHostIsFull(t *testing.T) {
	w := newWorld(t, "full host", 1, 512)
	for i := range 2 * maxFaults {
		w.disk.Inject(sim.Fault{Effect: sim.Fail, Err: syscall.ENOSPC, Kinds: []engine.Kind{engine.WriteSync}, File: containerName(0), Times: 1})
		w.must(w.write(Write{Chunk: 1, Version: 1, Create: true, Off: uint32(i) * 3000, Data: w.fill(3000)}))
		w.must(w.s.Sync([]chunk.ID{1}))
	}
	if n := w.s.stat.failures.Get(); n <= maxFaults {
		t.Fatalf("%d writes have failed", n)
	}
	w.check(w.s, true)
	w.restart(sim.Oldest)
}

// TestDiskFails lets all writes fail: every waiter is told, the store takes no more, and
// says so once.
func TestDiskFails(t *testing.T) {
	w := newWorld(t, "disk fails", 1, blockSize)
	w.must(w.write(Write{Chunk: 1, Version: 1, Create: true, Data: w.fill(5000)}))
	w.must(w.s.Sync([]chunk.ID{1}))
	w.disk.Inject(sim.Fault{Effect: sim.Fail, Kinds: []engine.Kind{engine.WriteSync}})
	tk, err := w.s.Write(Write{Chunk: 1, Version: 1, Data: []byte("never")})
	if err == nil {
		err = tk.Wait()
	}
	if !errors.Is(err, status.DiskFailed) {
		t.Fatalf("a write that cannot be done ends with %v", err)
	}
	for _, err := range []error{w.s.Delete([]chunk.ID{1}), w.s.Sync([]chunk.ID{1}), w.s.SetVersion(1, 2)} {
		if !errors.Is(err, status.DiskFailed) {
			t.Errorf("a change on a failed disk ends with %v", err)
		}
	}
	if e := <-w.s.Events(); e.Kind != Failed {
		t.Errorf("event %+v", e)
	}
	if w.s.Space().Free != 0 {
		t.Error("a failed disk has free space")
	}
	buf := make([]byte, 4096)
	if _, err := w.s.Read(1, 1, 1, 500, buf, nil); err != nil {
		t.Errorf("read from a disk that cannot write: %v", err)
	}
	if err := w.s.Close(); !errors.Is(err, status.DiskFailed) {
		t.Errorf("close: %v", err)
	}
}

// TestDishonestDisk loses or misdirects one write of a run, which the disk reports as
// done. Afterwards every chunk reads right or is known to be wrong.
func TestDishonestDisk(t *testing.T) {
	runs := 300
	if testing.Short() {
		runs = 40
	}
	noticed := 0
	for run := range runs {
		w := newWorld(t, fmt.Sprintf("seed %d", run), uint64(run), blockSize)
		f := sim.Fault{Effect: sim.Lose, Kinds: []engine.Kind{engine.WriteSync}, File: containerName(0), Skip: w.rnd.IntN(60), Times: 1}
		if run%2 == 1 {
			f.Effect, f.Shift = sim.Misdirect, int64(1+w.rnd.IntN(20))*blockSize
		}
		w.disk.Inject(f)
		for range 60 {
			id := chunk.ID(1 + w.rnd.IntN(6))
			off := uint32(w.rnd.IntN(modelSize - 9000))
			err := w.write(Write{Chunk: id, Version: 1, Create: true, Off: off, Data: w.fill(1 + w.rnd.IntN(9000))})
			if errors.Is(err, status.NoSpace) {
				break // nobody cleans the tiny disk here
			}
			w.must(err)
			for w.rnd.IntN(2) == 0 && w.disk.Step() {
			}
		}
		if err := w.s.Close(); err != nil {
			t.Fatal(err)
		}
		if w.decayed(w.disk, fmt.Sprintf("%s: %v", w.name, f.Effect)) {
			noticed++
		}
	}
	t.Logf("noticed in %d of %d runs", noticed, runs)
	if noticed == 0 {
		t.Error("nothing was ever noticed")
	}
}

// TestReadErrors: a block that cannot be read is a damaged chunk, and does not disturb
// the others.
func TestReadErrors(t *testing.T) {
	w := newWorld(t, "read errors", 1, blockSize)
	for id := chunk.ID(1); id <= 2; id++ {
		w.must(w.write(Write{Chunk: id, Version: 1, Create: true, Data: w.fill(8192)}))
	}
	w.must(w.s.Sync([]chunk.ID{1, 2}))
	w.s.mu.Lock()
	e := w.s.index.unpacked(&w.s.index.find(1).body)[0]
	at := w.s.segs[e.seg].base + int64(e.pos)
	w.s.unlock()
	w.disk.Inject(sim.Fault{Effect: sim.Fail, Kinds: []engine.Kind{engine.Read}, File: containerName(0), Off: at, Len: 8192})
	buf := make([]byte, 100)
	for range 2 {
		if _, err := w.s.Read(1, 1, 1, 0, buf, nil); !errors.Is(err, status.Corrupt) || !strings.Contains(err.Error(), "input/output") {
			t.Fatalf("read of a bad block: %v", err)
		}
	}
	if _, err := w.s.Read(2, 1, 1, 0, buf, nil); err != nil {
		t.Fatalf("read of a good block: %v", err)
	}
	if e := <-w.s.Events(); e.Kind != Damaged || e.Chunk != 1 {
		t.Fatalf("event %+v", e)
	}
	select {
	case e := <-w.s.Events():
		t.Fatalf("damage is announced again: %+v", e)
	default:
	}
}
