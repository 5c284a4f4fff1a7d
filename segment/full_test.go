package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/sim"
	"github.com/varvefs/varve/status"
)

// TestFull fills a store to the end, several times, and overwrites at the limit. Deletes
// always work and give the room back.
func TestFull(t *testing.T) {
	onDisks(t, func(t *testing.T, d engine.Disk) {
		cfg := smallConfig(d)
		cfg.Limit = 24 * 256 << 10
		s := mustOpen(t, cfg)
		rnd := rand.New(rand.NewPCG(1, 1))
		data := fill(64<<10, 7)
		for round := range 3 {
			var ids []chunk.ID
			var err error
			for id := chunk.ID(1); err == nil; id++ {
				if _, err = s.Write(Write{Chunk: id, Version: 1, Create: true, Data: data[:4096+rnd.IntN(60000)]}); err == nil {
					ids = append(ids, id)
				}
				if id > 1000 {
					t.Fatal("the store never gets full")
				}
			}
			if !errors.Is(err, status.NoSpace) {
				t.Fatal(err)
			}
			if sp := s.Space(); sp.Used < sp.Total/10*9 || sp.Free > 64<<10 || sp.Chunks != uint64(len(ids)) {
				t.Fatalf("full with %+v and %d chunks", sp, len(ids))
			}
			if err := s.Delete(ids[:len(ids)/8]); err != nil {
				t.Fatalf("delete on a full disk: %v", err)
			}
			ids = ids[len(ids)/8:]
			for i := range 500 { // overwrite in place at 7/8 of what is possible
				id := ids[rnd.IntN(len(ids))]
				_, err := s.Write(Write{Chunk: id, Version: 1, Off: 0, Data: data[i*8:][:4096]})
				if err != nil {
					t.Fatalf("overwrite %d of a store that is not full: %v", i, err)
				}
			}
			if err := s.Sync(ids); err != nil {
				t.Fatal(err)
			}
			if round == 1 {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = mustOpen(t, cfg)
			}
			if err := s.Delete(ids); err != nil {
				t.Fatal(err)
			}
		}
		if sp := s.Space(); sp.Chunks != 0 || sp.Used > sp.Total/50 {
			t.Fatalf("empty with %+v", sp)
		}
		checkBooks(t, "full", s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestTombstonesGo: what is known of deleted chunks is forgotten when no segment has
// anything of them any more.
func TestTombstonesGo(t *testing.T) {
	s := mustOpen(t, smallConfig(sim.New(sim.Config{})))
	for i := range 2000 {
		id := chunk.ID(i + 1)
		if _, err := s.Write(Write{Chunk: id, Version: 1, Create: true, Data: fill(5000, uint64(i))}); err != nil {
			t.Fatal(err)
		}
		if i >= 10 {
			if err := s.Delete([]chunk.ID{id - 10}); err != nil {
				t.Fatal(err)
			}
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for n := 0; ; {
		s.mu.Lock()
		n = len(s.index.table)
		s.unlock()
		if n < 700 { // what the open segments and those not yet worth cleaning hold
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d records for 10 chunks", n)
		}
		s.wakeKeeper()
		time.Sleep(time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestNoRoomOnHost: a file system that has no room for another container makes the
// store smaller, not unusable.
func TestNoRoomOnHost(t *testing.T) {
	d := sim.New(sim.Config{Capacity: 20*256<<10 + superFile})
	cfg := smallConfig(d)
	cfg.ContainerSegments = 4
	s := mustOpen(t, cfg)
	var err error
	n := 0
	for id := chunk.ID(1); err == nil; id++ {
		_, err = s.Write(Write{Chunk: id, Version: 1, Create: true, Data: fill(50000, 1)})
		n++
	}
	if !errors.Is(err, status.NoSpace) || n < 20 {
		t.Fatalf("after %d writes: %v", n, err)
	}
	if err := s.Delete([]chunk.ID{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTogether lets writers, readers, deleters and importers loose on one store with the
// cleaner at work. Every block says which chunk and write it is from; all blocks of a
// write are of one write.
func TestTogether(t *testing.T) {
	onDisks(t, func(t *testing.T, d engine.Disk) {
		cfg := smallConfig(d)
		cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
		s := mustOpen(t, cfg)
		length := 2 * time.Second
		if testing.Short() {
			length = 500 * time.Millisecond
		}
		end := time.Now().Add(length)
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() { together(t, s, chunk.ID(100*(g+1)), uint64(g), end) })
		}
		wg.Wait()
		if err := s.Sync([]chunk.ID{100, 200, 300, 400}); err != nil {
			t.Fatal(err)
		}
		checkBooks(t, "together", s)
		t.Logf("%d segments cleaned", s.stat.cleaned.Get())
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// together works on the chunks base..base+3 alone and checks after each act that they
// are what they should be; chunk 1 is shared by all, and written in whole blocks.
func together(t *testing.T, s *Store, base chunk.ID, seed uint64, end time.Time) {
	rnd := rand.New(rand.NewPCG(seed, 5))
	const size = 100 << 10
	model := make(map[chunk.ID][]byte)
	for n := uint64(0); time.Now().Before(end) && !t.Failed(); n++ {
		id := base + chunk.ID(rnd.IntN(4))
		off := rnd.IntN(size - 1)
		data := fill(8+rnd.IntN(min(size-off, 1<<(4+rnd.IntN(13)))), n<<8|seed)
		data = data[:min(len(data), size-off)]
		var err error
		switch k := rnd.IntN(20); {
		case k == 0:
			err = s.Delete([]chunk.ID{id})
			delete(model, id)
		case k == 1:
			var imp *Import
			if imp, err = s.Begin(id, 1); err == nil {
				if err = imp.Write(uint32(off), data, nil); err == nil {
					err = imp.Commit()
				}
			}
			model[id] = make([]byte, size)
			copy(model[id][off:], data)
		case k < 12:
			if model[id] == nil {
				model[id] = make([]byte, size)
			}
			copy(model[id][off:], data)
			var tk Ticket
			tk, err = s.Write(Write{Chunk: id, Version: 1, Create: true, Off: uint32(off), Data: data})
			if err == nil && rnd.IntN(8) == 0 {
				err = tk.Wait()
			}
		case k < 14:
			block := bytes.Repeat([]byte{byte(n)}, blockSize)
			_, err = s.Write(Write{Chunk: 1, Version: 1, Create: true, Off: uint32(rnd.IntN(8)) * blockSize, Data: block})
		case k < 15:
			err = sharedBlocks(s)
		default:
			got := make([]byte, size)
			var sums []uint32
			sums, err = s.Read(id, 1, 1, 0, got, nil)
			if want := model[id]; want == nil && errors.Is(err, status.NoChunk) {
				err = nil
			} else if err == nil && !bytes.Equal(got, want) || err == nil && chunk.Verify(sums, 0, got) >= 0 {
				err = fmt.Errorf("chunk %v reads wrong", id)
			}
		}
		if err != nil {
			t.Errorf("worker %d, act %d: %v", seed, n, err)
		}
	}
}

// sharedBlocks checks that the blocks of the shared chunk are of one write each.
func sharedBlocks(s *Store) error {
	got := make([]byte, 8*blockSize)
	if _, err := s.Read(1, 1, 1, 0, got, nil); err != nil {
		if errors.Is(err, status.NoChunk) {
			return nil
		}
		return err
	}
	for i := 0; i < len(got); i += blockSize {
		if b := got[i : i+blockSize]; !bytes.Equal(b, bytes.Repeat(b[:1], blockSize)) {
			return fmt.Errorf("block %d of the shared chunk is mixed", i/blockSize)
		}
	}
	return nil
}

// TestCleanerOutrun: writers leave the cleaner segments at hand, although more could be made:
// the one who makes them is the cleaner. It is held up in the middle of a segment until the
// writers cannot go on.
func TestCleanerOutrun(t *testing.T) {
	s := mustOpen(t, smallConfig(sim.New(sim.Config{Seed: 1})))
	defer s.Close()
	write := func(id chunk.ID) error {
		_, err := s.Write(Write{Chunk: id, Version: 1, Create: true, Data: fill(200<<10, uint64(id))})
		return err
	}
	for id := chunk.ID(1); id < 6; id++ {
		if err := errors.Join(write(id), s.Sync([]chunk.ID{id})); err != nil {
			t.Fatal(err)
		}
	}
	s.mu.Lock()
	r := s.index.find(1)
	r.flags |= recSwitch
	g := s.segs[s.index.all(&r.body)[0].seg]
	g.evict = true
	s.unlock()
	s.wakeKeeper()
	until := func(what string, done func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	until("the cleaner does not begin", func() bool {
		s.mu.Lock()
		defer s.unlock()
		return g.state == segCleaning
	})
	var written atomic.Int64
	go func() {
		for id := chunk.ID(10); id < 50 && write(id) == nil; id++ {
			written.Add(1)
		}
	}()
	last, same := int64(0), 0
	until("the writer needs no room", func() bool {
		if n := written.Load(); n != last {
			last, same = n, 0
		}
		same++
		return same > 50
	})
	s.mu.Lock()
	r.flags &^= recSwitch
	s.changed.Broadcast()
	s.unlock()
	until("the cleaner and the writer wait for each other", func() bool { return written.Load() == 40 })
}

// TestShare: stores on one file system do not count the same free bytes twice.
func TestShare(t *testing.T) {
	total := func(share int) uint64 {
		cfg := smallConfig(sim.New(sim.Config{Seed: 1, Capacity: 1 << 30}))
		cfg.Limit, cfg.Share = 0, share
		s := mustOpen(t, cfg)
		defer s.Close()
		return s.Space().Total
	}
	one, four := total(1), total(4)
	if 4*four > one+one/100 || 4*four < one-one/8 {
		t.Errorf("a store that shares its file system with three has %d bytes, alone %d", four, one)
	}
}
