package segment

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/open"
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
	t.Run("device", func(t *testing.T) {
		d, err := open.Open(testDevice(t), open.Auto, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		fn(t, d)
	})
}

// testDevice makes an empty file that stands for a device.
func testDevice(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "device")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 256<<20)); err != nil {
		t.Fatal(err)
	}
	return path
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

// sample is a chunk with a known content.
type sample struct {
	t     *testing.T
	id    chunk.ID
	bytes []byte
}

// check reads parts of the chunk and the whole of it.
func (m *sample) check(s *Store) {
	m.t.Helper()
	for _, r := range [][2]int{{0, len(m.bytes)}, {1, 5000}, {4096, 8192}, {100, 1}, {250000, 50000}} {
		off, want := r[0], m.bytes[r[0]:min(r[0]+r[1], len(m.bytes))]
		got := bytes.Repeat([]byte{0xee}, len(want))
		sums, err := s.Read(m.id, 1, 9, uint32(off), got, nil)
		if err != nil {
			m.t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			m.t.Fatalf("read of %d at %d differs", len(got), off)
		}
		if bad := chunk.Verify(sums, uint32(off), got); bad >= 0 {
			m.t.Fatalf("sum of piece %d of %d at %d is wrong", bad, len(got), off)
		}
	}
}

// scribble does a random change.
func (m *sample) scribble(s *Store, rnd *rand.Rand, i int) Ticket {
	m.t.Helper()
	off := rnd.IntN(len(m.bytes) - 1)
	n := 1 + rnd.IntN(min(len(m.bytes)-off, 1<<rnd.IntN(18)))
	w := Write{Chunk: m.id, Version: chunk.Version(1 + i/100), Create: true, Off: uint32(off)}
	switch k := rnd.IntN(20); {
	case k == 0:
		w.What = WriteTrim
		clear(m.bytes[off:])
	case k < 5:
		w.What, w.Len = WriteZero, uint32(n)
		clear(m.bytes[off : off+n])
	default:
		w.Data = fill(n, uint64(i))
		if i%2 == 0 {
			w.Sums = chunk.AppendSums(nil, w.Off, w.Data)
		}
		copy(m.bytes[off:], w.Data)
	}
	tk, err := s.Write(w)
	if err != nil {
		m.t.Fatal(err)
	}
	return tk
}

func TestWriteReadReopen(t *testing.T) {
	onDisks(t, func(t *testing.T, d engine.Disk) {
		s := mustOpen(t, smallConfig(d))
		m := &sample{t, 1, make([]byte, 300000)}
		rnd := rand.New(rand.NewPCG(3, 4))
		var tickets []Ticket
		for i := range 200 {
			tickets = append(tickets, m.scribble(s, rnd, i))
			if i%10 == 0 {
				m.check(s)
			}
		}
		for _, tk := range tickets {
			if err := tk.Wait(); err != nil {
				t.Fatal(err)
			}
		}
		before, _ := s.Stat(1)
		if before.Version != 2 || before.Writes != 100 {
			t.Fatalf("stat: %+v", before)
		}
		for range 3 {
			m.check(s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, smallConfig(d))
			if info, ok := s.Stat(1); !ok || info != before {
				t.Fatalf("stat after reopening: %+v, before %+v", info, before)
			}
			if _, err := s.Write(Write{Chunk: 2, Version: 1, Create: true, Data: []byte("more")}); err != nil {
				t.Fatal(err)
			}
		}
		m.check(s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestVersions: what a chunk's version lets through.
func TestVersions(t *testing.T) {
	onDisks(t, func(t *testing.T, d engine.Disk) {
		s := mustOpen(t, smallConfig(d))
		w := Write{Chunk: 1, Version: 4, Data: []byte("x")}
		if _, err := s.Write(w); !errors.Is(err, status.NoChunk) {
			t.Errorf("write to no chunk: %v", err)
		}
		w.Create = true
		if _, err := s.Write(w); err != nil {
			t.Fatal(err)
		}
		if w.Version = 3; true {
			if _, err := s.Write(w); !errors.Is(err, status.StaleVersion) {
				t.Errorf("write at an old version: %v", err)
			}
		}
		if err := s.SetVersion(1, 6); err != nil {
			t.Fatal(err)
		}
		if err := s.SetVersion(2, 6); !errors.Is(err, status.NoChunk) {
			t.Errorf("version of no chunk: %v", err)
		}
		b := make([]byte, 1)
		for _, c := range []struct {
			lowest, highest chunk.Version
			err             error
		}{{1, 5, status.StaleVersion}, {7, 9, status.StaleVersion}, {6, 6, nil}, {1, 9, nil}} {
			if _, err := s.Read(1, c.lowest, c.highest, 0, b, nil); !errors.Is(err, c.err) {
				t.Errorf("read at %d..%d: %v", c.lowest, c.highest, err)
			}
		}
		if _, err := s.Read(2, 1, 9, 0, b, nil); !errors.Is(err, status.NoChunk) {
			t.Errorf("read of no chunk: %v", err)
		}
		if err := s.Delete([]chunk.ID{1, 17}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, smallConfig(d))
		if _, ok := s.Stat(1); ok {
			t.Error("a deleted chunk is there again")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(w); !errors.Is(err, status.Closed) {
			t.Errorf("write to a closed store: %v", err)
		}
	})
}

// TestBadWrites: what no write may be.
func TestBadWrites(t *testing.T) {
	s := mustOpen(t, smallConfig(sim.New(sim.Config{})))
	for _, c := range []struct {
		name string
		w    Write
		want error
	}{
		{"nothing", Write{}, status.Invalid},
		{"kind", Write{What: 9, Data: []byte("x")}, status.Invalid},
		{"beyond", Write{Off: chunk.Size - 1, Data: []byte("xx")}, status.Invalid},
		{"zeros beyond", Write{What: WriteZero, Off: 1, Len: chunk.Size}, status.Invalid},
		{"trim beyond", Write{What: WriteTrim, Off: chunk.Size + 1}, status.Invalid},
		{"sums", Write{Data: []byte("x"), Sums: []uint32{1}}, status.Corrupt},
		{"number of sums", Write{Data: []byte("x"), Sums: []uint32{}}, status.Corrupt},
	} {
		c.w.Chunk, c.w.Version, c.w.Create = 1, 1, true
		if _, err := s.Write(c.w); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := s.Read(1, 1, 1, chunk.Size, make([]byte, 1), nil); !errors.Is(err, status.Invalid) {
		t.Errorf("read beyond the chunk: %v", err)
	}
	if _, ok := s.Stat(1); ok {
		t.Error("a refused write made a chunk")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSuperblock: identity, cluster and epoch are kept, and numbers of the log are set
// aside before they are used.
func TestSuperblock(t *testing.T) {
	onDisks(t, func(t *testing.T, d engine.Disk) {
		cfg := smallConfig(d)
		cfg.Create = nil
		if _, err := Open(cfg); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("open of an empty disk: %v", err)
		}
		s := mustOpen(t, smallConfig(d))
		if id := s.Identity(); id != testIdentity {
			t.Errorf("identity %+v", id)
		}
		for _, err := range []error{s.SetCluster("other"), s.SetEpoch(9), s.SetEpoch(3)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		s.mu.Lock()
		limit := s.super.lsn
		s.lsn = limit - lsnSlack
		s.unlock()
		s.keepOnce()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s.super.lsn <= limit {
			t.Error("no numbers were set aside")
		}
		s = mustOpen(t, cfg)
		if id := s.Identity(); id.Cluster != "other" || id.Disk != testIdentity.Disk || s.Epoch() != 9 {
			t.Errorf("identity %+v, epoch %d", id, s.Epoch())
		}
		if s.lsn < limit {
			t.Error("numbers are used twice")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestImport: a copy in the making is not seen, then it is there at once.
func TestImport(t *testing.T) {
	onDisks(t, func(t *testing.T, d engine.Disk) {
		s := mustOpen(t, smallConfig(d))
		if _, err := s.Write(Write{Chunk: 1, Version: 1, Create: true, Data: fill(20000, 1)}); err != nil {
			t.Fatal(err)
		}
		m := &sample{t, 1, make([]byte, 300000)}
		copy(m.bytes, fill(20000, 1))
		imports := make([]*Import, 2)
		for i := range imports {
			imp, err := s.Begin(1, chunk.Version(5+i))
			if err == nil {
				err = imp.Write(8000, fill(100000, uint64(9+i)), nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			imports[i] = imp
		}
		m.check(s)
		imports[0].Abort()
		if err := imports[0].Commit(); !errors.Is(err, status.Closed) {
			t.Errorf("commit after abort: %v", err)
		}
		m.check(s)
		if err := imports[1].Commit(); err != nil {
			t.Fatal(err)
		}
		clear(m.bytes)
		copy(m.bytes[8000:], fill(100000, 10))
		m.check(s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, smallConfig(d))
		m.check(s)
		if info, _ := s.Stat(1); info.Version != 6 || info.Length != 108000 {
			t.Errorf("stat %+v", info)
		}
		if got, err := s.Map(1); err != nil || len(got) != 1 || got[0] != (Range{8000, 100000}) {
			t.Errorf("map %v, %v", got, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
