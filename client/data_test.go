package client

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

func pattern(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	p := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		v := r.Uint64()
		for j := range 8 {
			p[i+j] = byte(v >> (8 * j))
		}
	}
	return p
}

func TestSmallFile(t *testing.T) {
	cl := startCluster(t, 3, false)
	a := cl.connect(nil)
	data := pattern(4096, 1)
	f := create(t, a, "x")
	write(t, f, data, 0)
	if err := f.Flush(bg); err != nil {
		t.Fatal(err)
	}
	if got := read(t, f, 0, 5000); !bytes.Equal(got, data) {
		t.Fatal("what was written is not read")
	}
	ino := f.Ino()
	f.Close()
	if got := attr(t, a, ino); got.Size != 4096 {
		t.Fatalf("size %d", got.Size)
	}
	b := cl.connect(nil)
	g := open(t, b, "x")
	defer g.Close()
	if got := read(t, g, 0, 5000); !bytes.Equal(got, data) {
		t.Fatal("another mount reads something else")
	}
}

func TestSmallFileCost(t *testing.T) {
	cl := startCluster(t, 3, false)
	a := cl.connect(nil)
	d := mkdir(t, a, a.Root(), "d")
	if _, err := a.Lookup(bg, d, "x"); !errors.Is(err, status.NotFound) { // brings D
		t.Fatal(err)
	}
	warm := create(t, a, "warm") // connections to chunkservers
	write(t, warm, []byte("x"), 0)
	if err := warm.Sync(bg, false); err != nil {
		t.Fatal(err)
	}
	warm.Close()
	before := a.met.writes.Get()
	_, f, err := a.Create(bg, wire.Make{Parent: d, Name: "x", Mode: 0o644}, syscall.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, pattern(4096, 1), 0)
	if err := f.Flush(bg); err != nil {
		t.Fatal(err)
	}
	f.Close()
	eventually(t, "the file is committed", func() bool { a.taskMu.Lock(); defer a.taskMu.Unlock(); return len(a.tasks) == 0 })
	if n := a.met.writes.Get() - before; n != 1 {
		t.Errorf("%d writes for one small file", n)
	}
	asked := func() uint64 { return a.met.reads.Get() - a.met.hedges.Get() } // a busy machine hedges
	reads, misses := asked(), a.met.attrMisses.Get()+a.met.entryMiss.Get()
	node, err := a.Lookup(bg, d, "x")
	if err != nil {
		t.Fatal(err)
	}
	g, err := a.OpenFile(bg, node.Attr.Ino, syscall.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	read(t, g, 0, 4096)
	g.Close()
	if n := asked() - reads; n != 0 {
		t.Errorf("%d reads for a small file that was just written", n)
	}
	if n := a.met.attrMisses.Get() + a.met.entryMiss.Get() - misses; n != 0 {
		t.Errorf("%d requests to the master for a file that is known", n)
	}
}

func TestStream(t *testing.T) {
	cl := startCluster(t, 3, false)
	a := cl.connect(nil)
	b := cl.connect(nil)
	data := pattern(70<<20, 3) // crosses a chunk
	f := create(t, a, "big")
	for off := 0; off < len(data); off += 128 << 10 {
		write(t, f, data[off:min(len(data), off+128<<10)], int64(off))
	}
	if err := f.Sync(bg, false); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for i, c := range []*Client{b, a} {
		g := open(t, c, "big")
		for off := 0; off < len(data); off += 128 << 10 {
			if got := read(t, g, int64(off), 128<<10); !bytes.Equal(got, data[off:min(len(data), off+128<<10)]) {
				t.Fatalf("client %d: difference near %d", i, off)
			}
		}
		if c.met.ahead.Get() == 0 {
			t.Error("nothing was read ahead")
		}
		g.Close()
	}
}

// model is a file in memory.
type model struct{ b []byte }

func (m *model) write(p []byte, off int) {
	if need := off + len(p); need > len(m.b) {
		m.b = append(m.b, make([]byte, need-len(m.b))...)
	}
	copy(m.b[off:], p)
}

func (m *model) truncate(n int) {
	if n <= len(m.b) {
		m.b = m.b[:n:n]
		return
	}
	m.b = append(m.b, make([]byte, n-len(m.b))...)
}

func (m *model) zero(off, n int) {
	if off < len(m.b) {
		clear(m.b[off:min(len(m.b), off+n)])
	}
}

// TestTwoClients lets two clients do random things to the same files, one at a
// time, and compares every read with a file in memory.
func TestTwoClients(t *testing.T) {
	cl := startCluster(t, 3, false)
	clients := []*Client{cl.connect(nil), cl.connect(nil)}
	steps := 1500
	if testing.Short() {
		steps = 300
	}
	var wg sync.WaitGroup
	for file := range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			twoClients(t, clients, fmt.Sprintf("f%d", file), uint64(file), steps)
		}()
	}
	wg.Wait()
}

// pair is one file that two clients have open, and what must be in it.
type pair struct {
	model
	clients []*Client
	files   []*File
	rnd     *rand.Rand
	base    int // random offsets begin here
}

const pairSpan = 3 << 20

func twoClients(t *testing.T, clients []*Client, name string, seed uint64, steps int) {
	p := &pair{clients: clients, rnd: rand.New(rand.NewPCG(seed, 99))}
	p.files = []*File{create(t, clients[0], name), nil}
	p.files[1] = open(t, clients[1], name)
	defer func() {
		p.files[0].Close()
		p.files[1].Close()
	}()
	if seed == 1 {
		p.base = chunk.Size - pairSpan/2 // across two chunks
		if what, err := p.truncate(0, p.base); err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
	}
	for step := range steps {
		who := p.rnd.IntN(2)
		if p.rnd.IntN(4) > 0 {
			who = step / 20 % 2
		}
		if what, err := p.step(who); err != nil {
			t.Errorf("%s step %d client %d: %s: %v", name, step, who, what, err)
			return
		}
	}
}

func (p *pair) truncate(who, n int) (string, error) {
	p.model.truncate(n)
	_, err := p.clients[who].SetAttr(bg, p.files[who].Ino(), wire.SetAttr{Valid: wire.SetSize, Size: uint64(n)})
	return fmt.Sprintf("truncate %d", n), err
}

// step does one random thing by one client.
func (p *pair) step(who int) (what string, err error) {
	f, rnd := p.files[who], p.rnd
	off := p.base + rnd.IntN(pairSpan)
	switch op := rnd.IntN(20); {
	case op < 8:
		b := pattern(rnd.IntN(20000)+1, rnd.Uint64())
		p.write(b, off)
		_, err = f.WriteAt(bg, b, int64(off), WriteFlags{})
		return fmt.Sprintf("write %d+%d", off, len(b)), err
	case op < 13:
		return p.compare(f, off, rnd.IntN(100000)+1)
	case op < 14:
		return p.truncate(who, p.base+rnd.IntN(pairSpan))
	case op < 15:
		n := rnd.IntN(300000) + 1
		p.zero(off, n)
		return fmt.Sprintf("punch %d+%d", off, n), f.Allocate(bg, AllocPunchHole|AllocKeepSize, int64(off), int64(n))
	case op < 16:
		return "sync", f.Sync(bg, rnd.IntN(2) == 0)
	case op < 17:
		return "flush", f.Flush(bg)
	case op < 18:
		b := pattern(rnd.IntN(5000)+1, rnd.Uint64())
		p.write(b, len(p.b))
		_, err = f.WriteAt(bg, b, 0, WriteFlags{Append: true})
		return fmt.Sprintf("append %d", len(b)), err
	case op < 19:
		node, err := p.clients[who].GetAttr(bg, f.Ino())
		if err == nil && node.Attr.Size != uint64(len(p.b)) {
			err = fmt.Errorf("size %d, want %d", node.Attr.Size, len(p.b))
		}
		return "stat", err
	}
	f.Close()
	p.files[who], err = p.clients[who].OpenFile(bg, f.Ino(), syscall.O_RDWR)
	return "reopen", err
}

// compare reads and compares.
func (p *pair) compare(f *File, off, n int) (what string, err error) {
	what = fmt.Sprintf("read %d+%d", off, n)
	got := make([]byte, n)
	k, err := f.ReadAt(bg, got, int64(off))
	if err != nil {
		return what, err
	}
	var want []byte
	if off < len(p.b) {
		want = p.b[off:min(len(p.b), off+n)]
	}
	if bytes.Equal(got[:k], want) {
		return what, nil
	}
	i := 0
	for i < min(k, len(want)) && got[i] == want[i] {
		i++
	}
	return what, fmt.Errorf("%d bytes, want %d; first difference at %d", k, len(want), off+i)
}

func TestAppendersOnTwoClients(t *testing.T) {
	cl := startCluster(t, 2, false)
	clients := []*Client{cl.connect(nil), cl.connect(nil)}
	create(t, clients[0], "log").Close()
	const writers = 8
	each := 50
	if testing.Short() {
		each = 10
	}
	var wg sync.WaitGroup
	for w := range writers {
		f := open(t, clients[w%2], "log")
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer f.Close()
			for i := range each {
				line := fmt.Sprintf("writer %d line %04d\n", w, i)
				if _, err := f.WriteAt(bg, []byte(line), 0, WriteFlags{Append: true}); err != nil {
					t.Errorf("append: %v", err)
					return
				}
			}
		}()
	}
	wg.Wait()
	f := open(t, clients[0], "log")
	defer f.Close()
	lines := bytes.Split(bytes.TrimSpace(read(t, f, 0, 1<<20)), []byte("\n"))
	if len(lines) != each*writers {
		t.Fatalf("%d lines, want %d", len(lines), each*writers)
	}
	next := make([]int, writers)
	for _, l := range lines {
		var w, i int
		if _, err := fmt.Sscanf(string(l), "writer %d line %d", &w, &i); err != nil || i != next[w] {
			t.Fatalf("line %q, want number %d of writer %d", l, next[w], w)
		}
		next[w]++
	}
}

func TestHoles(t *testing.T) {
	cl := startCluster(t, 2, false)
	a := cl.connect(nil)
	f := create(t, a, "sparse")
	defer f.Close()
	const far = 3*chunk.Size + 1<<20
	write(t, f, pattern(8192, 1), 1<<20)
	write(t, f, pattern(8192, 2), far)
	seek := func(off int64, whence int, want int64) {
		t.Helper()
		got, err := f.Seek(bg, off, whence)
		if want < 0 {
			if !errors.Is(err, status.NoDevice) {
				t.Errorf("seek %d,%d: %d, %v; want no device", off, whence, got, err)
			}
		} else if err != nil || got != want {
			t.Errorf("seek %d,%d: %d, %v; want %d", off, whence, got, err, want)
		}
	}
	seek(0, SeekHole, 0)
	seek(0, SeekData, 1<<20)
	seek(1<<20, SeekHole, 1<<20+8192)
	seek(1<<20+8192, SeekData, far)
	seek(far, SeekHole, far+8192)
	seek(far+8192, SeekData, -1)
	if got := read(t, f, 2<<20, 4096); !bytes.Equal(got, make([]byte, 4096)) {
		t.Error("a hole is not zeros")
	}
	if err := f.Allocate(bg, AllocPunchHole|AllocKeepSize, 1<<20, 4096); err != nil {
		t.Fatal(err)
	}
	seek(0, SeekData, 1<<20+4096)
	if err := f.Allocate(bg, 0, far, 1<<20); err != nil {
		t.Fatal(err)
	}
	if got := attr(t, a, f.Ino()).Size; got != far+1<<20 {
		t.Errorf("size after fallocate: %d", got)
	}
	seek(far+8192, SeekData, -1)
	if err := f.Allocate(bg, 0x08, 0, 4096); !errors.Is(err, status.Unsupported) {
		t.Errorf("collapse: %v", err)
	}
}

func TestCopyRange(t *testing.T) {
	cl := startCluster(t, 2, false)
	a := cl.connect(nil)
	src, dst := create(t, a, "src"), create(t, a, "dst")
	defer src.Close()
	defer dst.Close()
	data := pattern(3<<20, 5)
	write(t, src, data, 0)
	n, err := a.CopyRange(bg, src, 1000, dst, 5000, 1<<40)
	if err != nil || n != int64(len(data)-1000) {
		t.Fatalf("copied %d, %v", n, err)
	}
	if got := read(t, dst, 5000, len(data)); !bytes.Equal(got, data[1000:]) {
		t.Fatal("the copy differs")
	}
	if _, err := a.CopyRange(bg, src, 0, src, 1000, 5000); !errors.Is(err, status.Invalid) {
		t.Errorf("overlapping: %v", err)
	}
}

// A file that is written and synced in turn is on its way to the disks before the
// Sync asks for it, until a second write comes before one.
func TestSyncForeseen(t *testing.T) {
	a := startCluster(t, 3, false).connect(func(c *Config) { c.MaxDirty = time.Hour })
	f := create(t, a, "log")
	defer f.Close()
	durable := func() bool {
		f.n.mu.Lock()
		defer f.n.mu.Unlock()
		return f.n.data.durable(f.n.data.stamp)
	}
	sync := func() {
		t.Helper()
		if err := f.Sync(bg, false); err != nil {
			t.Fatal(err)
		}
	}
	for i := range int64(singlyMost) {
		write(t, f, pattern(4096, 1), i*4096)
		if durable() {
			t.Fatalf("write %d did not wait for its Sync", i)
		}
		sync()
	}
	write(t, f, pattern(4096, 2), 0)
	eventually(t, "the write is durable without a Sync", durable)
	sync()

	write(t, f, pattern(4096, 3), 0)
	write(t, f, pattern(4096, 4), 4096) // the guess was wrong
	sync()
	write(t, f, pattern(4096, 5), 0)
	if durable() {
		t.Error("the write was sent at once though the last Sync was for two")
	}
}
