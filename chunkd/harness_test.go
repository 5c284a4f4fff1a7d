package chunkd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

var (
	testKey = []byte("0123456789abcdef0123456789abcdef")
	bg      = context.Background()
	testLog = slog.New(slog.NewTextHandler(testLogTo(), &slog.HandlerOptions{Level: slog.LevelDebug}))
)

func testLogTo() io.Writer {
	if os.Getenv("VARVE_TEST_LOG") != "" {
		return os.Stderr
	}
	return io.Discard
}

// eventually polls until ok or fails the test.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// testMaster speaks a master's part of the protocol and keeps what it is told.
type testMaster struct {
	t       testing.TB
	srv     *link.Server
	cluster string

	mu      sync.Mutex
	epoch   uint64
	conns   map[chunk.Server]*link.Conn
	regs    map[chunk.Server]wire.Register
	copies  map[chunk.Server]map[chunk.ID]wire.Copy
	whole   map[chunk.Server]bool
	beats   map[chunk.Server]int
	last    map[chunk.Server]wire.Beat
	lost    map[chunk.ID]int
	damaged map[chunk.ID]int
}

func newMaster(t testing.TB) *testMaster { return newMasterAt(t, "127.0.0.1:0", "cluster-1", 7) }

func newMasterAt(t testing.TB, addr, cluster string, epoch uint64) *testMaster {
	t.Helper()
	m := &testMaster{
		t: t, cluster: cluster, epoch: epoch, conns: map[chunk.Server]*link.Conn{}, regs: map[chunk.Server]wire.Register{},
		copies: map[chunk.Server]map[chunk.ID]wire.Copy{}, whole: map[chunk.Server]bool{}, beats: map[chunk.Server]int{},
		last: map[chunk.Server]wire.Beat{}, lost: map[chunk.ID]int{}, damaged: map[chunk.ID]int{},
	}
	cfg := link.Config{Key: testKey, Role: wire.RoleMaster, Log: testLog}
	var err error
	eventually(t, "the master's port is free", func() bool {
		m.srv, err = link.Listen(addr, cfg, link.Only(link.HandlerFunc(m.serve), wire.RoleChunkd))
		return err == nil
	})
	t.Cleanup(func() { m.srv.Close() })
	return m
}

func (m *testMaster) addr() string { return m.srv.Addr().String() }

func (m *testMaster) serve(c *link.Conn, r *link.Request) {
	defer r.Free()
	m.mu.Lock()
	defer m.mu.Unlock()
	id, _ := c.Value().(chunk.Server)
	switch r.Kind {
	case wire.KindRegister:
		var reg wire.Register
		if err := r.Decode(&reg); err != nil {
			r.Fail(err)
			return
		}
		if reg.Cluster != "" && reg.Cluster != m.cluster {
			r.Fail(status.Errorf(status.Invalid, "disks of cluster %s", reg.Cluster))
			return
		}
		c.SetValue(reg.Server)
		m.conns[reg.Server], m.regs[reg.Server] = c, reg
		m.copies[reg.Server], m.whole[reg.Server] = map[chunk.ID]wire.Copy{}, false
		r.Reply(&wire.RegisterReply{Cluster: m.cluster, Epoch: m.epoch, BeatMillis: 20}, nil, nil)
		return
	case wire.KindReport:
		var rep wire.Report
		if err := r.Decode(&rep); err != nil {
			r.Fail(err)
			return
		}
		for _, k := range rep.Copies {
			m.copies[id][k.Chunk] = k
		}
		m.whole[id] = m.whole[id] || rep.Last
	case wire.KindBeat:
		var b wire.Beat
		if err := r.Decode(&b); err != nil {
			r.Fail(err)
			return
		}
		m.beats[id]++
		m.last[id] = b
	case wire.KindTrouble:
		var tr wire.Trouble
		if err := r.Decode(&tr); err != nil {
			r.Fail(err)
			return
		}
		for _, id := range tr.Lost {
			m.lost[id]++
		}
		for _, id := range tr.Damaged {
			m.damaged[id]++
		}
	}
	r.Reply(nil, nil, nil)
}

// order calls a server with a master's order.
func (m *testMaster) order(s *Server, msg, reply wire.Message) error {
	m.mu.Lock()
	c := m.conns[s.ID()]
	m.mu.Unlock()
	if c == nil {
		m.t.Fatal("the server is not registered")
	}
	return c.Call(bg, msg, nil, reply)
}

func (m *testMaster) reported(s *Server, id chunk.ID) (wire.Copy, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.copies[s.ID()][id]
	return k, ok
}

func (m *testMaster) counts(id chunk.ID) (lost, damaged int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lost[id], m.damaged[id]
}

// testConfig is a server on small segments. No directory: one of its own.
func testConfig(t testing.TB, m *testMaster, dirs ...string) Config {
	if len(dirs) == 0 {
		dirs = []string{filepath.Join(t.TempDir(), "disk")}
	}
	cfg := Config{
		Dirs: dirs, Key: testKey, DataAddr: "127.0.0.1:0", Backend: "posix", Limit: 256 << 20, SegmentSize: 4 << 20, ContainerSegments: 4,
		Log: testLog, Version: "test", Beat: 20 * time.Millisecond,
		IdleTimeout: 15 * time.Second, DialTimeout: 15 * time.Second, // a loaded machine is no failure
	}
	if m != nil {
		cfg.Masters = []string{m.addr()}
	}
	return cfg
}

func startWith(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Logf("close: %v", err)
		}
	})
	return s
}

// start starts a server and waits until the master has it.
func start(t testing.TB, m *testMaster, dirs ...string) *Server {
	t.Helper()
	s := startWith(t, testConfig(t, m, dirs...))
	ready(t, s)
	return s
}

func ready(t testing.TB, s *Server) {
	t.Helper()
	eventually(t, "the server is registered", func() bool { return s.Ready() == nil })
}

// user is a mount as far as chunkservers can tell.
type user struct {
	t     testing.TB
	s     *Server
	c     *link.Conn
	epoch uint64
}

func use(t testing.TB, s *Server) *user {
	t.Helper()
	cfg := link.Config{Key: testKey, Role: wire.RoleMount, Want: wire.RoleChunkd, Log: testLog}
	c, err := link.Dial(bg, "tcp", s.Addr().String(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &user{t: t, s: s, c: c, epoch: 7}
}

// write fills in what every write needs, unless the caller has set it.
func (u *user) fill(m *wire.Write, data []byte) {
	if m.Version == 0 {
		m.Version = 1
	}
	if m.Min == 0 {
		m.Min = m.Version
	}
	if m.Epoch == 0 {
		m.Epoch = u.epoch
	}
	if m.Token == nil {
		m.Token = sign(wire.Token{Write: true, Chunk: m.Chunk, Min: m.Min, Version: m.Version, Epoch: m.Epoch})
	}
	if m.What == wire.WriteData {
		m.Len = uint32(len(data))
		if m.Sums == nil {
			m.Sums = chunk.AppendSums(nil, m.Off, data)
		}
	}
}

func (u *user) send(m wire.Write, data []byte) (wire.WriteReply, error) {
	u.fill(&m, data)
	var reply wire.WriteReply
	err := u.c.Call(bg, &m, data, &reply)
	return reply, err
}

func (u *user) write(m wire.Write, data []byte) {
	u.t.Helper()
	reply, err := u.send(m, data)
	if err != nil || reply.Failed != 0 {
		u.t.Fatalf("write to %v: %v, %+v", m.Chunk, err, reply)
	}
}

func (u *user) read(id chunk.ID, v chunk.Version, off, n uint32) ([]byte, error) {
	buf := make([]byte, n)
	var reply wire.ReadReply
	m := wire.Read{Chunk: id, Min: v, Version: v, Off: off, Len: n, Token: sign(wire.Token{Chunk: id, Version: v})}
	got, err := u.c.CallData(bg, &m, buf, &reply)
	if err != nil {
		return nil, err
	}
	if got != int(n) {
		u.t.Errorf("%d bytes for %d", got, n)
	}
	if i := chunk.Verify(reply.Sums, off, buf); i >= 0 {
		u.t.Errorf("piece %d of %d bytes at %d does not match its checksum", i, n, off)
	}
	return buf, nil
}

func (u *user) want(id chunk.ID, v chunk.Version, off uint32, want []byte) {
	u.t.Helper()
	got, err := u.read(id, v, off, uint32(len(want)))
	if err != nil {
		u.t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		u.t.Fatalf("chunk %v at %d reads wrong", id, off)
	}
}

func (u *user) sync(ids ...chunk.ID) {
	u.t.Helper()
	if err := u.c.Call(bg, &wire.Sync{Chunks: ids}, nil, nil); err != nil {
		u.t.Fatal(err)
	}
}

// sign makes a token that is good for an hour.
func sign(t wire.Token) []byte {
	if t.Expiry == 0 {
		t.Expiry = time.Now().Add(time.Hour).Unix()
	}
	return t.Sign(testKey)
}

// data is n bytes that no other seed has.
func data(n int, seed uint64) []byte {
	b := make([]byte, n)
	var k [32]byte
	k[0], k[1], k[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	rand.NewChaCha8(k).Read(b)
	return b
}

func replica(s *Server) wire.Replica {
	return wire.Replica{Server: s.ID(), Addr: s.Addr().String()}
}

func wantCode(t testing.TB, err error, code status.Code) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Fatalf("want %v, have %v", code, err)
	}
}

// damage flips a byte in every stored occurrence of b below dir.
func damage(t testing.TB, dir string, b []byte) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "segments-*"))
	if err != nil {
		t.Fatal(err)
	}
	hits := 0
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; ; {
			i := bytes.Index(raw[at:], b)
			if i < 0 {
				break
			}
			at += i
			if _, err := f.WriteAt([]byte{b[0] ^ 1}, int64(at)); err != nil {
				t.Fatal(err)
			}
			at++
			hits++
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if hits == 0 {
		t.Fatal("the data to damage is not on the disk")
	}
}
