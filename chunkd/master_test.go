package chunkd

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/codec"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

func TestRegistration(t *testing.T) {
	m := newMaster(t)
	cfg := testConfig(t, m)
	cfg.HTTP, cfg.Labels, cfg.DataAddr = "127.0.0.1:9", "AB", "0.0.0.0:0"
	s := startWith(t, cfg)
	ready(t, s)
	u := use(t, s)
	m.mu.Lock()
	reg := m.regs[s.ID()]
	m.mu.Unlock()
	if reg.HTTP != cfg.HTTP || reg.Labels != "AB" || reg.Version != "test" || reg.Pid == 0 || reg.Cluster != "" || len(reg.Disks) != 1 ||
		reg.Disks[0].Backend != "posix" || reg.Disks[0].Total == 0 || reg.Disks[0].ID == 0 || reg.Addr[:10] != "127.0.0.1:" {
		t.Fatalf("registered as %+v", reg)
	}
	u.write(wire.Write{Chunk: 3, Create: true}, data(4000, 1))
	eventually(t, "the new copy is reported", func() bool { k, ok := m.reported(s, 3); return ok && k.Version == 1 })
	eventually(t, "beats come with rates", func() bool {
		u.write(wire.Write{Chunk: 3}, data(4000, 1))
		u.want(3, 1, 0, data(4000, 1))
		m.mu.Lock()
		defer m.mu.Unlock()
		b := m.last[s.ID()]
		return m.beats[s.ID()] > 3 && b.WriteOps > 0 && b.WriteBytes > 0 && b.ReadOps > 0 && b.ReadBytes > 0 && b.Disks[0].Used > 0
	})
	var page bytes.Buffer
	cfg.Metrics = s.cfg.Metrics
	cfg.Metrics.WritePrometheus(&page)
	for _, name := range []string{"varve_chunkd_read_bytes_total", "varve_chunkd_write_seconds", "varve_chunkd_disk_free_bytes", "varve_link_received_frames_total"} {
		if !bytes.Contains(page.Bytes(), []byte(name)) {
			t.Errorf("no metric %s", name)
		}
	}
}

// TestMasterComesAndGoes: the server registers again by itself, with all it has,
// and serves in between.
func TestMasterComesAndGoes(t *testing.T) {
	m := newMaster(t)
	s := start(t, m)
	u := use(t, s)
	u.write(wire.Write{Chunk: 3, Create: true}, data(4000, 1))
	addr := m.addr()
	m.srv.Close()
	eventually(t, "the loss is noticed", func() bool { return s.Ready() != nil })
	u.write(wire.Write{Chunk: 4, Create: true}, data(4000, 2))
	u.want(3, 1, 0, data(4000, 1))
	m = newMasterAt(t, addr, "cluster-1", 9)
	ready(t, s)
	for id := chunk.ID(3); id <= 4; id++ {
		if _, ok := m.reported(s, id); !ok {
			t.Fatalf("chunk %v is not reported", id)
		}
	}
	if e := s.Stats().Epoch; e != 9 {
		t.Fatalf("epoch %d", e)
	}
}

// TestTwoMasters: both are told, the old one gives no orders.
func TestTwoMasters(t *testing.T) {
	old, m := newMaster(t), newMasterAt(t, "127.0.0.1:0", "cluster-1", 8)
	cfg := testConfig(t, m)
	cfg.Masters = append(cfg.Masters, old.addr())
	s := startWith(t, cfg)
	eventually(t, "both have it", func() bool { return len(s.Stats().Masters) == 2 })
	use(t, s).write(wire.Write{Chunk: 3, Create: true, Epoch: 8}, data(4000, 1))
	eventually(t, "both hear of the copy", func() bool {
		_, a := old.reported(s, 3)
		_, b := m.reported(s, 3)
		return a && b
	})
	d := wire.Delete{Epoch: 7, Copies: []wire.Copy{{Chunk: 3, Version: 1}}}
	wantCode(t, old.order(s, &d, nil), status.OldEpoch)
	d.Epoch = 8
	if err := m.order(s, &d, nil); err != nil {
		t.Fatal(err)
	}
}

// TestOtherCluster: disks do not change sides.
func TestOtherCluster(t *testing.T) {
	dir := t.TempDir()
	m := newMaster(t)
	if err := start(t, m, dir).Close(); err != nil {
		t.Fatal(err)
	}
	other := newMasterAt(t, "127.0.0.1:0", "cluster-2", 1)
	s := startWith(t, testConfig(t, other, dir))
	met := s.cfg.Metrics.GetOrCreateCounter("varve_link_connections_total")
	eventually(t, "it tried", func() bool { return met.Get() > 1 })
	if s.Ready() == nil {
		t.Fatal("registered with another cluster")
	}
	if c := s.Stats().Cluster; c != "cluster-1" {
		t.Fatalf("the disks belong to %q", c)
	}
}

// TestFullDisk: no space is an answer, deleting helps.
func TestFullDisk(t *testing.T) {
	m := newMaster(t)
	cfg := testConfig(t, m)
	cfg.Limit, cfg.SegmentSize = 24<<20, 1<<20
	s := startWith(t, cfg)
	ready(t, s)
	u := use(t, s)
	var full error
	var n chunk.ID
	for n = 1; n < 100 && full == nil; n++ {
		_, full = u.send(wire.Write{Chunk: n, Create: true}, data(1<<20, uint64(n)))
	}
	wantCode(t, full, status.NoSpace)
	if n < 4 {
		t.Fatalf("full after %d MiB", n)
	}
	u.want(1, 1, 0, data(1<<20, 1))
	var order wire.Delete
	order.Epoch = 7
	for id := chunk.ID(1); id < n-2; id++ {
		order.Copies = append(order.Copies, wire.Copy{Chunk: id, Version: 1})
	}
	if err := m.order(s, &order, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is room again", func() bool {
		_, err := u.send(wire.Write{Chunk: 200, Create: true}, data(1<<20, 200))
		return err == nil
	})
	u.want(200, 1, 0, data(1<<20, 200))
}

// TestHostileMessages: whatever an authenticated peer sends, the server lives.
func TestHostileMessages(t *testing.T) {
	s := start(t, newMaster(t))
	u := use(t, s)
	u.write(wire.Write{Chunk: 1, Create: true}, data(10000, 1))
	rng := rand.New(rand.NewPCG(7, 7))
	token := sign(wire.Token{Write: true, Chunk: 1, Min: 1, Version: 1})
	msgs := []wire.Message{
		&wire.Write{Chunk: 1, Min: 1, Version: 1, Len: 100, Token: token, Sums: []uint32{1}}, &wire.Read{Chunk: 1, Min: 1, Version: 1, Len: 100, Token: token},
		&wire.Map{Chunk: 1, Min: 1, Version: 1, Token: token}, &wire.Sync{Chunks: []chunk.ID{1}}, &wire.Digest{}, &wire.Register{}, &wire.Ping{}, &wire.Empty{},
	}
	for i := range 3000 {
		m := msgs[rng.IntN(len(msgs))]
		b := codec.Append(nil, m)
		for range rng.IntN(4) {
			if len(b) > 0 {
				b[rng.IntN(len(b))] = byte(rng.Uint32())
			}
		}
		b = b[:len(b)-rng.IntN(2)*rng.IntN(len(b)+1)]
		if i%10 == 0 {
			b = append(b, data(rng.IntN(50), uint64(i))...)
		}
		_ = u.c.Call(bg, rawMessage{m.Kind(), b}, data(rng.IntN(2)*rng.IntN(300), uint64(i)), nil)
	}
	if u.c.Err() != nil {
		u = use(t, s)
	}
	if _, err := u.read(1, 1, 0, 100); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing hangs", func() bool { return s.Stats().Queue == 0 })
}

// rawMessage is a body of any bytes.
type rawMessage struct {
	kind wire.Kind
	body []byte
}

func (m rawMessage) Kind() wire.Kind { return m.kind }
func (m rawMessage) Fields(c *codec.Codec) {
	for _, b := range m.body {
		c.U8(&b)
	}
}

func TestConfig(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no directory": func(c *Config) { c.Dirs = nil },
		"no key":       func(c *Config) { c.Key = nil },
		"bad address":  func(c *Config) { c.DataAddr = "nowhere:x" },
		"bad backend":  func(c *Config) { c.Backend = "magic" },
		"not a dir":    func(c *Config) { c.Dirs = []string{"/dev/null/x"} },
	} {
		cfg := testConfig(t, nil)
		change(&cfg)
		if s, err := Start(cfg); err == nil {
			s.Close()
			t.Errorf("%s: started", name)
		}
	}
}

// TestCloseFinishes: requests under way are answered before the server goes.
func TestCloseFinishes(t *testing.T) {
	m := newMaster(t)
	s := start(t, m)
	u := use(t, s)
	errs := make(chan error, 50)
	for i := range 50 {
		go func() {
			w := wire.Write{Chunk: chunk.ID(1 + i), Create: true, Sync: true}
			d := data(10000, uint64(i))
			u.fill(&w, d)
			errs <- u.c.Call(bg, &w, d, &wire.WriteReply{})
		}()
	}
	eventually(t, "some are there", func() bool { return s.Stats().Writes > 0 })
	begin := time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > 6*time.Second {
		t.Fatalf("closing took %v", d)
	}
	for range 50 {
		if err := <-errs; err != nil && status.CodeOf(err) != status.Closed {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
