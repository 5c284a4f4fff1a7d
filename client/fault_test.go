package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/test/ports"
	"github.com/varvefs/varve/wire"
)

func contextFor(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(bg, d)
}

func TestKilledChunkserver(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes; not with -short")
	}
	cl := startCluster(t, 3, true)
	a := cl.connect(nil)
	data := pattern(24<<20, 1)
	f := create(t, a, "x")
	small := create(t, a, "small")
	longest := time.Duration(0)
	for off := 0; off < len(data); off += 256 << 10 {
		began := time.Now()
		write(t, f, data[off:off+256<<10], int64(off))
		write(t, small, data[off:off+100], int64(off))
		if off%(1<<20) == 0 {
			if err := small.Sync(bg, false); err != nil {
				t.Fatalf("sync at %d: %v", off, err)
			}
		}
		longest = max(longest, time.Since(began))
		if off == 8<<20 {
			cl.chunkds[0].kill()
		}
		if off == 16<<20 {
			cl.startChunkd(cl.chunkds[0], true)
		}
	}
	if err := f.Sync(bg, false); err != nil {
		t.Fatal(err)
	}
	if longest > 3*time.Second {
		t.Errorf("a write stalled for %v", longest)
	}
	f.Close()
	small.Close()
	b := cl.connect(nil)
	g, h := open(t, b, "x"), open(t, b, "small")
	defer g.Close()
	defer h.Close()
	if !bytes.Equal(read(t, g, 0, len(data)), data) {
		t.Fatal("bytes differ after a chunkserver was killed")
	}
	for off := 0; off < len(data); off += 256 << 10 {
		if !bytes.Equal(read(t, h, int64(off), 100), data[off:off+100]) {
			t.Fatalf("synced bytes differ at %d", off)
		}
	}
}

func TestSyncedOutlivesAllChunkservers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes; not with -short")
	}
	cl := startCluster(t, 2, true)
	a := cl.connect(nil)
	f := create(t, a, "x")
	data := pattern(3<<20, 1)
	write(t, f, data[:2<<20], 0)
	if err := f.Sync(bg, false); err != nil {
		t.Fatal(err)
	}
	write(t, f, data[2<<20:], 2<<20)
	if err := f.Flush(bg); err != nil { // accepted, perhaps not durable
		t.Fatal(err)
	}
	for _, d := range cl.chunkds {
		d.kill()
	}
	for _, d := range cl.chunkds {
		cl.startChunkd(d, true)
	}
	if err := f.Sync(bg, false); err != nil {
		t.Fatalf("what was accepted must be sent again: %v", err)
	}
	f.Close()
	b := cl.connect(nil)
	g := open(t, b, "x")
	defer g.Close()
	if !bytes.Equal(read(t, g, 0, len(data)), data) {
		t.Fatal("bytes differ after all chunkservers were killed")
	}
}

// A chunkserver that the master cannot reach just now may hold what nobody else
// has: when the others are gone, writers wait for it and lose nothing.
func TestMasterMissesLastChunkserver(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes; not with -short")
	}
	cl := startCluster(t, 2, true)
	p := startProxy(t, cl.server)
	last := cl.chunkds[0]
	last.kill()
	last.via = p.ln.Addr().String()
	cl.startChunkd(last, true)
	a := cl.connect(nil)
	eventually(t, "both chunkservers are registered", func() bool { return cl.allRegistered(a) })
	data := pattern(10000, 1)
	f, fresh := create(t, a, "x"), create(t, a, "fresh")
	write(t, f, data[:5000], 0)
	if err := f.Sync(bg, false); err != nil {
		t.Fatal(err)
	}
	p.part(true)
	cl.chunkds[1].kill()
	write(t, f, data[5000:], 5000)
	write(t, fresh, data, 0)
	f.Close() // nobody waits for what was written
	fresh.Close()
	c := cl.connect(nil)
	eventually(t, "the failed copies were reported more than once", func() bool {
		return a.met.dropped.Get() > 4 || a.met.lost.Get() > 0
	})
	if n := a.met.lost.Get(); n > 0 {
		t.Errorf("%d bytes were given up", n)
	}
	p.heal()
	for _, name := range []string{"x", "fresh"} {
		g := open(t, c, name)
		if !bytes.Equal(read(t, g, 0, 20000), data) {
			t.Errorf("%s: bytes differ", name)
		}
		g.Close()
	}
}

func TestMasterRestart(t *testing.T) {
	cl := startCluster(t, 2, false)
	a := cl.connect(nil)
	b := cl.connect(nil)
	data := pattern(2<<20, 1)
	f := create(t, a, "x")
	write(t, f, data[:1<<20], 0)
	tmp, h, err := b.Create(bg, wire.Make{Parent: b.Root(), Mode: 0o600}, 2)
	if err != nil {
		t.Fatal(err)
	}
	write(t, h, data[:5000], 0)
	open(t, b, "x").Close()
	write(t, f, data[1<<20:], 1<<20)

	cl.stopMaster()
	done := make(chan error, 1)
	go func() { // waits for the master
		_, err := a.Make(bg, wire.Make{Parent: a.Root(), Name: "d", What: inode.Dir, Mode: 0o755})
		done <- err
	}()
	cl.startMaster()
	if err := <-done; err != nil {
		t.Fatalf("mkdir across a restart: %v", err)
	}
	if err := f.Sync(bg, false); err != nil {
		t.Fatal(err)
	}
	g := open(t, b, "x")
	defer g.Close()
	if !bytes.Equal(read(t, g, 0, 4<<20), data) {
		t.Fatal("bytes differ after a restart of the master")
	}
	f.Close()
	if got := read(t, h, 0, 10000); !bytes.Equal(got, data[:5000]) {
		t.Fatal("a file without a name lost its bytes")
	}
	if got := attr(t, b, tmp.Attr.Ino); got.Size != 5000 {
		t.Fatalf("size %d", got.Size)
	}
	h.Close()
	if _, err := b.Lookup(bg, b.Root(), "d"); err != nil {
		t.Fatalf("lookup d: %v", err)
	}
}

func TestBadStarts(t *testing.T) {
	cl := startCluster(t, 1, false)
	for _, c := range []struct {
		what   string
		want   status.Code
		change func(*Config)
	}{
		{"key", status.BadKey, func(c *Config) { c.Key = []byte("another key of thirty-two bytes!") }},
		{"path", status.NotFound, func(c *Config) { c.Path = "/no/such" }},
		{"no masters", status.Invalid, func(c *Config) { c.Masters = nil }},
	} {
		cfg := Config{Masters: []string{cl.client}, Key: testKey}
		c.change(&cfg)
		ctx, cancel := contextFor(5 * time.Second)
		_, err := Connect(ctx, cfg)
		cancel()
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	ctx, cancel := contextFor(200 * time.Millisecond)
	defer cancel()
	if _, err := Connect(ctx, Config{Masters: []string{ports.Free(t)}, Key: testKey}); err == nil {
		t.Error("connected to nobody")
	}
}

// slowKernel is a Notifier that takes its time, as a kernel does whose
// requests are in work.
type slowKernel struct {
	entries, attrs, data atomic.Int64
	block                chan struct{} // not nil: Data waits for it
}

func (k *slowKernel) Entry(inode.Ino, string) { k.entries.Add(1) }
func (k *slowKernel) Attr(inode.Ino)          { k.attrs.Add(1) }
func (k *slowKernel) Data(inode.Ino) {
	k.data.Add(1)
	if k.block != nil {
		<-k.block
	}
}

func TestNotifierIsTold(t *testing.T) {
	cl := startCluster(t, 1, false)
	k := &slowKernel{}
	a := cl.connect(func(c *Config) { c.Notify = k })
	b := cl.connect(nil)
	d := mkdir(t, b, b.Root(), "d")
	_, f, err := b.Create(bg, wire.Make{Parent: d, Name: "x", Mode: 0o644}, syscall.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := a.Lookup(bg, d, "x")
	if err != nil || n.EntryTTL <= 0 || n.AttrTTL <= 0 {
		t.Fatalf("%+v, %v", n, err)
	}
	g, err := a.OpenFile(bg, n.Attr.Ino, syscall.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	write(t, f, []byte("12345"), 0)
	if k.data.Load() == 0 {
		t.Error("a write of another mount did not reach the kernel")
	}
	if err := b.Rename(bg, d, "x", d, "y", 0); err != nil {
		t.Fatal(err)
	}
	if k.entries.Load() == 0 {
		t.Error("a rename of another mount did not reach the kernel")
	}
}

// A request that the kernel holds pages for may wait for a right that the other
// mount gets. The Notifier gives up on such a request, and then both go on.
func TestKernelMayBlock(t *testing.T) {
	cl := startCluster(t, 1, false)
	k := &slowKernel{block: make(chan struct{})}
	a := cl.connect(func(c *Config) { c.Notify = k })
	b := cl.connect(nil)
	f := create(t, a, "x")
	defer f.Close()
	g := open(t, b, "x")
	defer g.Close()
	read(t, f, 0, 10)
	theirs, ours := make(chan error, 1), make(chan error, 1)
	go func() { _, err := g.WriteAt(bg, []byte("1"), 0, WriteFlags{}); theirs <- err }()
	eventually(t, "the kernel is told", func() bool { return k.data.Load() > 0 })
	select {
	case err := <-theirs:
		t.Fatalf("the recall did not wait for the kernel: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	// Now a request on the same inode comes, which the kernel's pages wait for.
	go func() { _, err := f.WriteAt(bg, []byte("2"), 1, WriteFlags{}); ours <- err }()
	close(k.block)
	for _, done := range []chan error{theirs, ours} {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, g, 0, 10); string(got) != "12" {
		t.Fatalf("%q", got)
	}
}

func TestNoGoroutineIsLeft(t *testing.T) {
	cl := newCluster(t, 2, false)
	before := stacks()
	cfg := Config{Masters: []string{cl.client}, Key: testKey}
	c, err := Connect(bg, cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := create(t, c, "x")
	write(t, f, pattern(2<<20, 1), 0)
	read(t, f, 0, 1<<20)
	f.Close()
	if err := c.Close(bg); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client's goroutines have ended", func() bool { return stacks() <= before })
	if _, err := c.GetAttr(bg, 1); !errors.Is(err, status.Closed) {
		t.Errorf("after Close: %v", err)
	}
}

// stacks counts the goroutines that run code of this package.
func stacks() int {
	buf := make([]byte, 4<<20)
	n := runtime.Stack(buf, true)
	return strings.Count(string(buf[:n]), "varve/client.(*Client)") + strings.Count(string(buf[:n]), "varve/client.(*session)")
}

// A client that is cut off from the master loses its rights after a while.
// What it has not yet written is written all the same, unless somebody else has
// changed the file in between: then it is told.
func TestCutOff(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a session's lease to run out; not with -short")
	}
	cl := startCluster(t, 2, false)
	p := startProxy(t, cl.client)
	a := cl.connect(func(c *Config) { c.Masters = []string{p.ln.Addr().String()}; c.MaxDirty = time.Hour })
	b := cl.connect(nil)
	data := pattern(10000, 1)
	mine, theirs := create(t, a, "mine"), create(t, a, "theirs")
	for _, f := range []*File{mine, theirs} {
		write(t, f, data[:5000], 0)
		if err := f.Sync(bg, false); err != nil {
			t.Fatal(err)
		}
		write(t, f, data[5000:], 5000)
	}
	n, err := a.Lookup(bg, a.Root(), "mine")
	if err != nil || n.AttrTTL <= 0 || n.AttrTTL > cl.lease {
		t.Fatalf("%+v, %v", n, err)
	}
	p.part(true)
	g := open(t, b, "theirs") // waits until the cut-off client's lease is over
	defer g.Close()
	write(t, g, []byte("changed"), 0)
	if err := g.Sync(bg, false); err != nil {
		t.Fatal(err)
	}
	if a.ses.alive() {
		t.Error("a client that cannot reach the master still relies on its rights")
	}
	p.heal()
	if err := mine.Sync(bg, false); err != nil {
		t.Errorf("nobody has touched this file: %v", err)
	}
	if err := theirs.Sync(bg, false); !errors.Is(err, status.IO) {
		t.Errorf("a lost write is not told: %v", err)
	}
	if err := theirs.Sync(bg, false); err != nil {
		t.Errorf("a lost write is told twice: %v", err)
	}
	h := open(t, b, "mine")
	defer h.Close()
	if got := read(t, h, 0, 20000); !bytes.Equal(got, data) {
		t.Error("bytes differ after the master was out of reach")
	}
	if got := read(t, theirs, 0, 7); string(got) != "changed" {
		t.Errorf("%q", got)
	}
	mine.Close()
	theirs.Close()
}

// Short losses of the connection go unnoticed.
func TestConnectionIsLost(t *testing.T) {
	cl := startCluster(t, 2, false)
	p := startProxy(t, cl.client)
	a := cl.connect(func(c *Config) { c.Masters = []string{p.ln.Addr().String()} })
	d := mkdir(t, a, a.Root(), "d")
	stop := make(chan struct{})
	cutter := make(chan struct{})
	go func() {
		defer close(cutter)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				p.part(false)
			}
		}
	}()
	const files = 150
	for i := range files {
		_, f, err := a.Create(bg, wire.Make{Parent: d, Name: fmt.Sprint(i), Mode: 0o644}, syscall.O_RDWR|syscall.O_EXCL)
		if err != nil {
			t.Fatalf("file %d: %v", i, err) // Exists: a request was carried out twice
		}
		write(t, f, []byte(fmt.Sprint(i)), 0)
		if i%3 == 0 {
			if err := f.Sync(bg, false); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
		if i%5 == 0 {
			if err := a.Remove(bg, d, fmt.Sprint(i), false); err != nil {
				t.Fatalf("remove %d: %v", i, err)
			}
		}
	}
	close(stop)
	<-cutter
	b := cl.connect(nil)
	if got := len(list(t, b, d)); got != files*4/5 {
		t.Fatalf("%d names, want %d", got, files*4/5)
	}
	for i := range files {
		if i%5 == 0 {
			continue
		}
		n, err := b.Lookup(bg, d, fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		f, err := b.OpenFile(bg, n.Attr.Ino, syscall.O_RDONLY)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, f, 0, 10); string(got) != fmt.Sprint(i) {
			t.Fatalf("file %d (inode %d) holds %q", i, n.Attr.Ino, got)
		}
		f.Close()
	}
}

// TestTwoClientsAndKills is TestTwoClients while chunkservers are killed and come
// back, one at a time: every byte that is read must still be right.
func TestTwoClientsAndKills(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes; not with -short")
	}
	cl := startCluster(t, 3, true)
	clients := []*Client{cl.connect(nil), cl.connect(nil)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		twoClients(t, clients, "x", 0, 1200)
	}()
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		case <-time.After(150 * time.Millisecond):
		}
		d := cl.chunkds[i%len(cl.chunkds)]
		d.kill()
		cl.startChunkd(d, true)
	}
}
