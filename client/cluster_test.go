package client

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/varvefs/varve/chunkd"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/master"
	"github.com/varvefs/varve/test/ports"
	"github.com/varvefs/varve/wire"
)

var (
	testKey = []byte("0123456789abcdef0123456789abcdef")
	bg      = context.Background()
)

// asChunkd is the environment variable that makes this test binary a
// chunkserver, so that tests can kill one for good.
const asChunkd = "VARVE_TEST_CHUNKD"

func TestMain(m *testing.M) {
	if spec := os.Getenv(asChunkd); spec != "" {
		f := strings.Split(spec, "|")
		s, err := chunkd.Start(chunkdConfig(f[0], f[1], f[2]))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin) // the test that ends, in whatever way, closes it
		s.Close()
		return
	}
	os.Exit(m.Run())
}

func chunkdConfig(dir, addr, masterAddr string) chunkd.Config {
	return chunkd.Config{
		Dirs: []string{dir}, Key: testKey, DataAddr: addr, Masters: []string{masterAddr}, Backend: "posix",
		SegmentSize: 4 << 20, ContainerSegments: 4, Limit: 1 << 30, Beat: 100 * time.Millisecond, Log: testLog("chunkd " + addr),
	}
}

func testLog(who string) *slog.Logger {
	level := slog.LevelError + 4
	if os.Getenv("VARVE_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("who", who)
}

// cluster is a master and chunkservers with real sockets and directories.
type cluster struct {
	t       testing.TB
	dir     string
	lease   time.Duration // of sessions
	client  string        // addresses
	server  string
	master  *master.Master
	chunkds []*testChunkd
	tune    func(*chunkd.Config)
}

// testChunkd is a chunkserver in this process or, if it is to be killed, in another.
type testChunkd struct {
	dir, addr string
	via       string // where it finds the master; "": at its own address
	srv       *chunkd.Server
	proc      *exec.Cmd
	stdin     io.Closer
}

// startCluster starts a master and n chunkservers; with killable each of those
// is a process. The test runs beside others.
func startCluster(t testing.TB, n int, killable bool) *cluster {
	t.Helper()
	if p, ok := t.(interface{ Parallel() }); ok {
		p.Parallel() // most of a test's time is waiting for disks
	}
	return newCluster(t, n, killable)
}

// newCluster is startCluster for a test that must have the process for itself.
func newCluster(t testing.TB, n int, killable bool) *cluster {
	t.Helper()
	return newTuned(t, n, killable, nil)
}

// newTuned makes a cluster whose chunkservers, when they are in this process, are not
// configured as usual.
func newTuned(t testing.TB, n int, killable bool, tune func(*chunkd.Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, tune: tune, dir: t.TempDir(), lease: 4 * time.Second, client: ports.Free(t), server: ports.Free(t)}
	t.Cleanup(c.stop)
	c.startMaster()
	for i := range n {
		d := &testChunkd{dir: filepath.Join(c.dir, fmt.Sprintf("chunkd%d", i)), addr: ports.Free(t)}
		c.chunkds = append(c.chunkds, d)
		c.startChunkd(d, killable)
	}
	// All are up when a chunk can be placed on as many.
	probe := c.connect(func(cfg *Config) { cfg.Intents = "" }) // the answer to a create brings a lease
	eventually(t, "the chunkservers are registered", func() bool {
		fs, err := probe.StatFS(bg)
		return err == nil && fs.Total > 0 && c.allRegistered(probe)
	})
	if err := probe.Close(bg); err != nil {
		t.Fatal(err)
	}
	return c
}

// allRegistered says whether a new chunk gets the copies of the default goal.
func (c *cluster) allRegistered(probe *Client) bool {
	for _, d := range c.chunkds {
		if d.srv != nil && d.srv.Ready() != nil {
			return false
		}
	}
	_, f, err := probe.Create(bg, wire.Make{Parent: probe.Root(), Name: "probe", Mode: 0o644}, syscall.O_RDWR)
	if err != nil {
		return false
	}
	defer f.Close()
	f.n.mu.Lock()
	w := f.n.data.chunks[0]
	ok := w != nil && len(w.loc.Replicas) >= min(2, len(c.chunkds))
	f.n.mu.Unlock()
	return probe.Remove(bg, probe.Root(), "probe", false) == nil && ok
}

func (c *cluster) startMaster() {
	c.t.Helper()
	var err error
	eventually(c.t, "the master starts", func() bool {
		c.master, err = master.Start(master.Config{
			Dir: filepath.Join(c.dir, "master"), Key: testKey, ClientAddr: c.client, ServerAddr: c.server, Name: "m1",
			SessionLease: c.lease, SessionKeep: 10 * time.Minute, RepairDelay: 2 * time.Second, Beat: 100 * time.Millisecond, Log: testLog("master"),
		})
		return err == nil || !strings.Contains(err.Error(), "in use")
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) stopMaster() {
	c.t.Helper()
	if err := c.master.Close(); err != nil {
		c.t.Errorf("master: %v", err)
	}
	c.master = nil
}

func (c *cluster) startChunkd(d *testChunkd, killable bool) {
	c.t.Helper()
	via := d.via
	if via == "" {
		via = c.server
	}
	if !killable {
		var err error
		eventually(c.t, "the chunkserver starts", func() bool {
			cfg := chunkdConfig(d.dir, d.addr, via)
			if c.tune != nil {
				c.tune(&cfg)
			}
			d.srv, err = chunkd.Start(cfg)
			return err == nil || !strings.Contains(err.Error(), "in use")
		})
		if err != nil {
			c.t.Fatal(err)
		}
		return
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asChunkd+"="+d.dir+"|"+d.addr+"|"+via)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	d.proc, d.stdin = cmd, in
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		c.t.Fatalf("the chunkserver's process does not start: %v", err)
	}
}

// kill ends a chunkserver's process without any warning.
func (d *testChunkd) kill() {
	d.proc.Process.Kill()
	d.proc.Wait()
	d.proc = nil
}

func (c *cluster) stop() {
	for _, d := range c.chunkds {
		if d.srv != nil {
			d.srv.Close()
		}
		if d.proc != nil {
			d.stdin.Close()
			d.proc.Wait()
		}
	}
	if c.master != nil {
		c.master.Close()
	}
}

// connect makes a client that is closed with the test.
func (c *cluster) connect(change func(*Config)) *Client {
	c.t.Helper()
	cfg := Config{Masters: []string{c.client}, Key: testKey, Host: "test", Log: testLog("client"), Metrics: metrics.NewSet(), Intents: filepath.Join(c.t.TempDir(), "intents")}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithTimeout(bg, 15*time.Second)
	defer cancel()
	cl, err := Connect(ctx, cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(bg, 10*time.Second)
		defer cancel()
		if err := cl.Close(ctx); err != nil {
			c.t.Errorf("close: %v", err)
		}
	})
	return cl
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// create makes a file and fails the test if it can't.
func create(t testing.TB, c *Client, name string) *File {
	t.Helper()
	_, f, err := c.Create(bg, wire.Make{Parent: c.Root(), Name: name, Mode: 0o644}, syscall.O_RDWR)
	if err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
	return f
}

// open opens a file by name.
func open(t testing.TB, c *Client, name string) *File {
	t.Helper()
	node, err := c.Lookup(bg, c.Root(), name)
	if err != nil {
		t.Fatalf("lookup %s: %v", name, err)
	}
	f, err := c.OpenFile(bg, node.Attr.Ino, syscall.O_RDWR)
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	return f
}

func write(t testing.TB, f *File, p []byte, off int64) {
	t.Helper()
	for len(p) > 0 {
		n, err := f.WriteAt(bg, p[:min(len(p), blockSize)], off, WriteFlags{})
		if err != nil {
			t.Fatalf("write at %d: %v", off, err)
		}
		p, off = p[n:], off+int64(n)
	}
}

func read(t testing.TB, f *File, off int64, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	got := 0
	for got < n {
		k, err := f.ReadAt(bg, p[got:min(n, got+blockSize)], off+int64(got))
		if err != nil {
			t.Fatalf("read at %d: %v", off, err)
		}
		if k == 0 {
			break
		}
		got += k
	}
	return p[:got]
}

func attr(t testing.TB, c *Client, ino inode.Ino) inode.Attr {
	t.Helper()
	node, err := c.GetAttr(bg, ino)
	if err != nil {
		t.Fatalf("getattr %d: %v", ino, err)
	}
	return node.Attr
}

// proxy stands between a client and the master, so that they can be parted.
type proxy struct {
	ln net.Listener
	to string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}
}

func startProxy(t testing.TB, to string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, to: to, conns: map[net.Conn]struct{}{}}
	t.Cleanup(func() { ln.Close(); p.part(true) })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			go p.serve(in)
		}
	}()
	return p
}

func (p *proxy) serve(in net.Conn) {
	out, err := net.Dial("tcp", p.to)
	if err != nil {
		in.Close()
		return
	}
	p.mu.Lock()
	if p.cut {
		p.mu.Unlock()
		in.Close()
		out.Close()
		return
	}
	p.conns[in], p.conns[out] = struct{}{}, struct{}{}
	p.mu.Unlock()
	go func() { io.Copy(out, in); out.Close() }()
	io.Copy(in, out)
	in.Close()
}

// part cuts all connections and, with stay, lets no new one through.
func (p *proxy) part(stay bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = stay
	for c := range p.conns {
		c.Close()
		delete(p.conns, c)
	}
}

func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}
