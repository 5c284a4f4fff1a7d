package segment

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/posix"
	"github.com/varvefs/varve/engine/sim"
	"github.com/varvefs/varve/status"
)

var testLog = slog.New(slog.DiscardHandler)

var testIdentity = Identity{Disk: 0xd15c, Server: 7, Cluster: "test"}

// disks are the disks that the general tests run on. reopen gives the disk again after
// everything on it was closed.
func onDisks(t *testing.T, fn func(t *testing.T, d engine.Disk)) {
	t.Run("sim", func(t *testing.T) { fn(t, sim.New(sim.Config{Seed: 1})) })
	t.Run("posix", func(t *testing.T) {
		d, err := posix.Open(t.TempDir(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		fn(t, d)
	})
}

func smallConfig(d engine.Disk) Config {
	return Config{Disk: d, SegmentSize: 256 << 10, ContainerSegments: 8, Limit: 64 * 256 << 10, Create: &testIdentity, Log: testLog}
}

func mustOpen(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fill(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		le.PutUint64(b[i:], r.Uint64())
	}
	return b
}

func TestWriteReadReopen(t *testing.T) {
	onDisks(t, func(t *testing.T, d engine.Disk) {
		s := mustOpen(t, smallConfig(d))
		model := make([]byte, 300000)
		rnd := rand.New(rand.NewPCG(3, 4))
		if _, err := s.Write(Write{Chunk: 1, Version: 1, Data: []byte("x")}); !errors.Is(err, status.NoChunk) {
			t.Fatalf("write to no chunk: %v", err)
		}
		check := func() {
			t.Helper()
			for _, r := range [][2]int{{0, len(model)}, {1, 5000}, {4096, 8192}, {100, 1}, {250000, 50000}} {
				got := bytes.Repeat([]byte{0xee}, r[1])
				off := r[0]
				if off+len(got) > len(model) {
					got = got[:len(model)-off]
				}
				sums, err := s.Read(1, 1, 9, uint32(off), got, nil)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, model[off:off+len(got)]) {
					t.Fatalf("read of %d at %d differs", len(got), off)
				}
				if bad := chunk.Verify(sums, uint32(off), got); bad >= 0 {
					t.Fatalf("sum of piece %d of %d at %d is wrong", bad, len(got), off)
				}
			}
		}
		var tickets []Ticket
		for i := range 200 {
			off := rnd.IntN(len(model) - 1)
			n := 1 + rnd.IntN(min(len(model)-off, 1<<rnd.IntN(18)))
			w := Write{Chunk: 1, Version: chunk.Version(1 + i/100), Create: true, Off: uint32(off)}
			switch rnd.IntN(5) {
			case 0:
				w.What, w.Len = WriteZero, uint32(n)
				clear(model[off : off+n])
			case 1:
				if i%20 == 7 {
					w.What = WriteTrim
					clear(model[off:])
					break
				}
				fallthrough
			default:
				w.Data = fill(n, uint64(i))
				if i%2 == 0 {
					w.Sums = chunk.AppendSums(nil, w.Off, w.Data)
				}
				copy(model[off:], w.Data)
			}
			tk, err := s.Write(w)
			if err != nil {
				t.Fatal(err)
			}
			tickets = append(tickets, tk)
			if i%10 == 0 {
				check()
			}
		}
		for _, tk := range tickets {
			if err := tk.Wait(); err != nil {
				t.Fatal(err)
			}
		}
		check()
		before, _ := s.Stat(1)
		if before.Version != 2 || before.Writes != 100 {
			t.Fatalf("stat: %+v", before)
		}
		for range 3 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, smallConfig(d))
			check()
			if info, ok := s.Stat(1); !ok || info != before {
				t.Fatalf("stat after reopening: %+v, before %+v", info, before)
			}
			if id := s.Identity(); id != testIdentity {
				t.Fatalf("identity %+v", id)
			}
			if _, err := s.Write(Write{Chunk: 2, Version: 1, Create: true, Data: []byte("more")}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Read(1, 1, 1, 0, make([]byte, 1), nil); !errors.Is(err, status.StaleVersion) {
			t.Fatalf("read of another version: %v", err)
		}
		if err := s.SetVersion(1, 5); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete([]chunk.ID{2, 17}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, smallConfig(d))
		if info, _ := s.Stat(1); info.Version != 5 || info.Writes != 0 {
			t.Fatalf("stat after SetVersion: %+v", info)
		}
		if _, ok := s.Stat(2); ok {
			t.Fatal("a deleted chunk is there again")
		}
		check()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
