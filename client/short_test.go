package client

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/chunkd"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// shortReads is how many reads of the clients went to the disk itself.
func shortReads(cs ...*Client) (n uint64) {
	for _, c := range cs {
		n += c.met.shortReads.Get()
	}
	return n
}

func (c *Client) fallbacks(reason string) uint64 {
	return c.met.set.GetOrCreateCounter(`varve_client_short_fallbacks_total{reason="` + reason + `"}`).Get()
}

// scattered reads pieces of a file at random places and compares them.
func scattered(t testing.TB, f *File, want []byte, times int, rng *rand.Rand) {
	t.Helper()
	for range times {
		n := 1 + rng.IntN(10000)
		off := rng.IntN(len(want))
		end := min(off+n, len(want))
		if got := read(t, f, int64(off), end-off); !bytes.Equal(got, want[off:end]) {
			t.Fatalf("bytes at %d..%d differ", off, end)
		}
	}
}

// until reads until ok, or too long.
func (c *Client) readsShort(t testing.TB, f *File, want []byte, rng *rand.Rand) {
	t.Helper()
	before := shortReads(c)
	eventually(t, "reads go to the disk", func() bool {
		scattered(t, f, want, 5, rng)
		return shortReads(c) >= before+20
	})
}

// TestShortReads: a mount reads the disks of its host itself, streams and pieces, until it
// is told not to.
func TestShortReads(t *testing.T) {
	cl := startCluster(t, 2, false)
	a := cl.connect(nil)
	data := pattern(9<<20+77, 3)
	f := create(t, a, "x")
	write(t, f, data, 0)
	if err := f.Sync(bg, false); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	b := cl.connect(nil)
	g := open(t, b, "x")
	defer g.Close()
	b.readsShort(t, g, data, rng)
	if !bytes.Equal(read(t, g, 0, len(data)), data) {
		t.Fatal("a stream differs")
	}
	asked := b.met.reads.Get()
	b.readsShort(t, g, data, rng)
	if n := b.met.reads.Get() - asked; n != 0 {
		t.Errorf("%d reads went to a chunkserver after the places were known", n)
	}
	g.n.mu.Lock()
	g.n.frozen = true
	if where, _ := g.n.window(0, 0); where != nil {
		t.Error("a map is used while a truncation is under way")
	}
	g.n.frozen = false
	g.n.mu.Unlock()
	off := cl.connect(func(cfg *Config) { cfg.NoShort = true })
	h := open(t, off, "x")
	defer h.Close()
	scattered(t, h, data, 50, rng)
	if n := shortReads(off); n != 0 {
		t.Errorf("%d reads of a client that must not", n)
	}
	few := cl.connect(nil)
	few.short.most = 0
	k := open(t, few, "x")
	defer k.Close()
	eventually(t, "the limit of descriptors is met", func() bool {
		scattered(t, k, data, 5, rng)
		return few.fallbacks("files") > 0
	})
	if few.short.files.Load() != 0 || shortReads(few) != 0 {
		t.Errorf("%d descriptors, %d reads", few.short.files.Load(), shortReads(few))
	}
}

// TestShortCoherence: two clients that read the disks themselves write, punch, cut and grow
// a file in turn, and each sees at once what either has done, durable or not.
func TestShortCoherence(t *testing.T) {
	cl := startCluster(t, 2, false)
	clients := []*Client{cl.connect(nil), cl.connect(nil)}
	files := []*File{create(t, clients[0], "x"), open(t, clients[1], "x")}
	for _, f := range files {
		defer f.Close()
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	const base = chunk.Size - 3<<20 // the file has bytes in two chunks
	const most = 6 << 20
	var model []byte // from base on
	full := func(f *File, off, n int) []byte { return read(t, f, int64(base+off), n) }
	for round := range 400 {
		who := rng.IntN(2)
		f, c := files[who], clients[who]
		off := rng.IntN(most)
		switch act := rng.IntN(10); {
		case act < 4 || len(model) == 0:
			p := pattern(8+rng.IntN(min(most-off, 1<<rng.IntN(18))+1), rng.Uint64())
			write(t, f, p, int64(base+off))
			model = append(model, make([]byte, max(0, off+len(p)-len(model)))...)
			copy(model[off:], p)
		case act == 4:
			off = rng.IntN(len(model) + 1)
			n := rng.IntN(len(model) - off + 1)
			if err := f.Allocate(bg, AllocPunchHole|AllocKeepSize, int64(base+off), int64(n+1)); err != nil {
				t.Fatal(err)
			}
			clear(model[off:min(len(model), off+n+1)])
		case act == 5 && round%3 == 0:
			size := rng.IntN(most)
			if _, err := c.SetAttr(bg, f.Ino(), wire.SetAttr{Valid: wire.SetSize, Size: uint64(base + size)}); err != nil {
				t.Fatal(err)
			}
			model = append(model, make([]byte, max(0, size-len(model)))...)[:size]
		case act == 6:
			if err := f.Sync(bg, false); err != nil {
				t.Fatal(err)
			}
		}
		for range 6 {
			f := files[rng.IntN(2)]
			if len(model) > 0 {
				off := rng.IntN(len(model))
				n := min(len(model)-off, 1+rng.IntN(1<<rng.IntN(20)))
				if got := full(f, off, n); !bytes.Equal(got, model[off:off+n]) {
					t.Fatalf("seed %d round %d: bytes at %d..%d differ", seed, round, off, off+n)
				}
			}
		}
	}
	if n := shortReads(clients...); n < 100 {
		t.Errorf("only %d reads went to the disk", n)
	}
}

// TestShortWriterAndReader: what one client has written when the other one begins to read is
// what that reads, while both never stop.
func TestShortWriterAndReader(t *testing.T) {
	cl := startCluster(t, 2, false)
	a, b := cl.connect(nil), cl.connect(nil)
	f := create(t, a, "x")
	defer f.Close()
	const blocks, size = 64, 4096
	block := func(i int, v uint64) []byte { return pattern(size, uint64(i)<<32|v) }
	var mu sync.Mutex
	var done [blocks]uint64 // version that is surely written
	for i := range blocks {
		write(t, f, block(i, 0), int64(i*size))
	}
	g := open(t, b, "x")
	defer g.Close()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		rng := rand.New(rand.NewPCG(4, 4))
		for v := uint64(1); ; v++ {
			select {
			case <-stop:
				return
			default:
			}
			i := rng.IntN(blocks)
			if _, err := f.WriteAt(bg, block(i, v), int64(i*size), WriteFlags{Sync: v%16 == 0}); err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			done[i] = v
			mu.Unlock()
			if v%64 == 0 { // let the reader have R until it goes to the disk
				before := shortReads(b)
				for end := time.Now().Add(300 * time.Millisecond); shortReads(b) == before && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
			}
		}
	})
	rng := rand.New(rand.NewPCG(5, 5))
	round := 0
	for end := time.Now().Add(10 * time.Second); (round < 300 || shortReads(b) == 0) && time.Now().Before(end) && !t.Failed(); round++ {
		i := rng.IntN(blocks)
		mu.Lock()
		least := done[i]
		mu.Unlock()
		got := read(t, g, int64(i*size), size)
		mu.Lock()
		most := done[i]
		mu.Unlock()
		found := false
		for v := least; v <= most+200 && !found; v++ { // others of the writer's versions went elsewhere
			found = bytes.Equal(got, block(i, v))
		}
		if !found {
			t.Errorf("block %d is not of version %d or later", i, least)
		}
	}
	close(stop)
	wg.Wait()
	if shortReads(b) == 0 {
		t.Error("no read went to the disk")
	}
}

// shortFile has one mount write a file, and another one open it.
func shortFile(t *testing.T, cl *cluster, data []byte) (*Client, *File) {
	t.Helper()
	f := create(t, cl.connect(nil), "x")
	t.Cleanup(func() { f.Close() })
	write(t, f, data, 0)
	if err := f.Sync(bg, false); err != nil {
		t.Fatal(err)
	}
	b := cl.connect(nil)
	g := open(t, b, "x")
	t.Cleanup(func() { g.Close() })
	return b, g
}

// TestShortServerDies: a chunkserver that dies takes its descriptors with it; what comes back
// in its place lends anew.
func TestShortServerDies(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes; not with -short")
	}
	cl := startCluster(t, 2, true)
	data, rng := pattern(5<<20, 9), rand.New(rand.NewPCG(1, 2))
	b, g := shortFile(t, cl, data)
	b.readsShort(t, g, data, rng)
	for round := range 2 {
		d := cl.chunkds[round]
		d.kill()
		scattered(t, g, data, 50, rng)
		cl.startChunkd(d, true)
		b.readsShort(t, g, data, rng)
	}
	for _, d := range cl.chunkds {
		d.kill()
	}
	eventually(t, "all descriptors are closed", func() bool { return b.short.files.Load() == 0 })
	for _, d := range cl.chunkds {
		cl.startChunkd(d, true)
	}
	b.readsShort(t, g, data, rng)
}

// TestShortDamage: what a disk has lost is not returned, but read from another copy, and the
// chunkserver finds it and has it repaired.
func TestShortDamage(t *testing.T) {
	cl := startCluster(t, 2, false)
	data, rng := pattern(3<<20, 21), rand.New(rand.NewPCG(1, 2))
	b, g := shortFile(t, cl, data)
	b.readsShort(t, g, data, rng)
	spoil(t, cl.chunkds[0].dir, data)
	eventually(t, "the damage is met", func() bool {
		scattered(t, g, data, 20, rng)
		return b.fallbacks("mismatch") > 0
	})
	if !bytes.Equal(read(t, g, 0, len(data)), data) {
		t.Fatal("bytes differ")
	}
	eventually(t, "the damage is repaired", func() bool {
		scattered(t, g, data, 20, rng)
		for off := 0; off < len(data); off += 64 << 10 {
			if _, err := g.c.readFrom(g.n, cl.chunkds[0].addr, uint32(off), 64<<10); err != nil {
				return false
			}
		}
		return true
	})
	again := cl.connect(nil) // b has the bytes in its memory now
	h := open(t, again, "x")
	defer h.Close()
	again.readsShort(t, h, data, rng)
	if again.fallbacks("mismatch") != 0 {
		t.Error("there is still damage")
	}
}

// TestShortCleaner: while the chunkservers' cleaners move the bytes of a file, and write others
// where they were, a reader of their disks never gets those.
func TestShortCleaner(t *testing.T) {
	t.Parallel()
	cl := newTuned(t, 2, false, func(cfg *chunkd.Config) {
		cfg.SegmentSize, cfg.ContainerSegments, cfg.Limit = 1<<20, 8, 64<<20
	})
	a, b := cl.connect(nil), cl.connect(nil)
	// The file's bytes lie thinly among those of another one that is written over and over,
	// and there is little room beside a third one.
	const size, piece = 1 << 20, 16 << 10
	data := pattern(size, 31)
	f, other := create(t, a, "x"), create(t, a, "other")
	defer f.Close()
	defer other.Close()
	rng := rand.New(rand.NewPCG(6, 6))
	churn := func(n int) {
		for range n {
			write(t, other, pattern(piece, rng.Uint64()), int64(rng.IntN(size/piece)*piece))
			if err := other.Sync(bg, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	for off := 0; off < size; off += piece {
		write(t, f, data[off:off+piece], int64(off))
		if err := f.Sync(bg, false); err != nil {
			t.Fatal(err)
		}
		churn(15)
	}
	full := create(t, a, "full")
	defer full.Close()
	write(t, full, pattern(34<<20, 5), 0)
	if err := full.Sync(bg, false); err != nil {
		t.Fatal(err)
	}
	g := open(t, b, "x")
	defer g.Close()
	b.readsShort(t, g, data, rng)
	moved := func() uint64 { return b.fallbacks("mismatch") + b.fallbacks("error") }
	for round := 0; moved() < 3 && round < 150; round++ {
		churn(40)
		scattered(t, g, data, 20, rng)
	}
	t.Logf("%d reads met bytes that were moved", moved())
	if b.met.corrupt.Get() != 0 {
		t.Error("a chunkserver sent bytes that are not right")
	}
}

// readFrom reads m bytes of a file's first chunk from one chunkserver.
func (c *Client) readFrom(n *node, addr string, off, m uint32) (int, error) {
	loc, ok, err := n.locate(bg, 0)
	if err != nil || !ok {
		return 0, fmt.Errorf("no chunk: %v", err)
	}
	answers := make(chan answer, 1)
	c.ask(c.servers.get(addr), &loc, off, m, answers)
	a := <-answers
	if a.err != nil {
		return 0, a.err
	}
	defer a.reply.Free()
	return len(a.reply.Data), nil
}

// spoil flips a bit in each block of data in a chunkserver's containers.
func spoil(t testing.TB, dir string, data []byte) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "segments-*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("containers of %s: %v, %v", dir, names, err)
	}
	blocks := make(map[string]bool)
	for off := 0; off+4096 <= len(data); off += 4096 {
		blocks[string(data[off:off+4096])] = true
	}
	spoilt := 0
	for _, name := range names {
		file, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		size, _ := file.Stat()
		b := make([]byte, 4096)
		for at := int64(0); at+4096 <= size.Size(); at += 4096 {
			if _, err := file.ReadAt(b, at); err != nil {
				t.Fatal(err)
			}
			if blocks[string(b)] {
				spoilt++
				if _, err := file.WriteAt([]byte{b[100] ^ 4}, at+100); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := file.Sync(); err != nil {
			t.Fatal(err)
		}
		file.Close()
	}
	if spoilt == 0 {
		t.Fatal("the data was not found on the disk")
	}
}

// TestShortPlacesAreChecked: no reply of a chunkserver makes a map that reads outside of it.
func TestShortPlacesAreChecked(t *testing.T) {
	c := &Client{}
	v := &server{c: c, addr: "test"}
	for _, p := range []wire.Place{
		{Off: 0, Len: 1},                   // before the window
		{Off: windowSize, Len: 0},          // empty
		{Off: windowSize, Len: ^uint32(0)}, // around the end
		{Off: 2*windowSize - 1, Len: 2},    // beyond it
		{Off: windowSize, Len: 1, Pre: 4096},
		{Off: windowSize, Len: 1, Post: 4096},
		{Off: windowSize, Len: 1, At: 1 << 63},
		{Off: windowSize, Len: 4097}, // with too few sums
	} {
		err := new(placeMap).fill(bg, v, nil, &wire.PlacesReply{Places: []wire.Place{p}, Sums: []uint32{1}}, windowSize)
		if status.CodeOf(err) != status.BadMessage {
			t.Errorf("%+v: %v", p, err)
		}
	}
	err := new(placeMap).fill(bg, v, nil, &wire.PlacesReply{Places: []wire.Place{{Off: windowSize + 5, Len: 10}, {Off: windowSize + 14, Len: 1}}, Sums: []uint32{1, 2}}, windowSize)
	if status.CodeOf(err) != status.BadMessage {
		t.Errorf("places that overlap: %v", err)
	}
}
