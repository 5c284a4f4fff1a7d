package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/varvefs/varve/buffer"
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

var (
	testKey = []byte("0123456789abcdef0123456789abcdef")
	bg      = context.Background()
)

func serverConfig() Config {
	return Config{Key: testKey, Role: wire.RoleChunkd, Client: "test", Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))}
}

func clientConfig() Config {
	c := serverConfig()
	c.Role, c.Want = wire.RoleMount, wire.RoleChunkd
	return c
}

func listen(t testing.TB, h Handler) *Server {
	t.Helper()
	return listenWith(t, serverConfig(), h)
}

func listenWith(t testing.TB, cfg Config, h Handler) *Server {
	t.Helper()
	s, err := Listen("127.0.0.1:0", cfg, Only(h, wire.RoleMount))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func dial(t testing.TB, s *Server, h Handler) *Conn {
	t.Helper()
	return dialWith(t, s.Addr().String(), clientConfig(), h)
}

func dialWith(t testing.TB, addr string, cfg Config, h Handler) *Conn {
	t.Helper()
	c, err := Dial(bg, "tcp", addr, cfg, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		<-c.ended
	})
	return c
}

// eventually polls until ok or fails the test.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

var noise = func() []byte {
	b := make([]byte, wire.MaxData+256)
	rng := rand.NewChaCha8([32]byte{})
	rng.Read(b)
	return b
}()

// pattern is n bytes that differ for each seed in 0..255.
func pattern(n int, seed uint64) []byte { return noise[seed : seed+uint64(n) : seed+uint64(n)] }

// echo answers Read with a pattern, checks the pattern of Write, and refuses
// what it does not know.
var echo = HandlerFunc(func(c *Conn, r *Request) {
	defer r.Free()
	switch r.Kind {
	case wire.KindPing:
		r.Reply(nil, nil, nil)
	case wire.KindRead:
		var m wire.Read
		if err := r.Decode(&m); err != nil {
			r.Fail(err)
			return
		}
		r.Reply(&wire.ReadReply{Sums: []uint32{m.Off}}, pattern(int(m.Len), uint64(m.Chunk)), nil)
	case wire.KindWrite:
		var m wire.Write
		if err := r.Decode(&m); err != nil {
			r.Fail(err)
			return
		}
		if !bytes.Equal(r.Data, pattern(len(r.Data), uint64(m.Chunk))) {
			r.Fail(status.Errorf(status.Corrupt, "data of chunk %v", m.Chunk))
			return
		}
		r.Reply(&wire.WriteReply{Failed: chunk.Server(m.Off)}, nil, nil)
	default:
		r.Fail(status.Errorf(status.NotFound, "kind %#x", uint16(r.Kind)))
	}
})

func TestCall(t *testing.T) {
	c := dial(t, listen(t, echo), nil)
	if err := c.Call(bg, &wire.Ping{}, nil, &wire.Empty{}); err != nil {
		t.Fatal(err)
	}
	err := c.Call(bg, &wire.Readlink{Ino: 7}, nil, &wire.BytesReply{})
	if !errors.Is(err, status.NotFound) || status.DetailOf(err) != fmt.Sprintf("kind %#x", uint16(wire.KindReadlink)) {
		t.Fatalf("error is %v", err)
	}
	if err := c.Call(bg, &wire.Ping{}, nil, &wire.BytesReply{}); !errors.Is(err, status.BadMessage) {
		t.Fatalf("a reply of the wrong kind gave %v", err)
	}
	if _, err := c.CallData(bg, &wire.Read{Len: 100}, make([]byte, 99), nil); !errors.Is(err, status.BadMessage) {
		t.Fatalf("a reply that does not fit gave %v", err)
	}
	if err := c.Call(bg, &wire.Write{}, make([]byte, wire.MaxData+1), nil); !errors.Is(err, status.BadMessage) {
		t.Fatalf("too much data gave %v", err)
	}
	if err := c.Call(bg, &wire.Ping{}, nil, nil); err != nil {
		t.Fatalf("the connection is not in order after refused calls: %v", err)
	}
	if role, addr := c.Peer(); role != wire.RoleChunkd || addr == "" {
		t.Fatalf("peer is %v %q", role, addr)
	}
}

func TestNobodyServes(t *testing.T) {
	asked := make(chan error, 1)
	s := listen(t, HandlerFunc(func(c *Conn, r *Request) {
		c.Start(&wire.Recall{}, nil, func(p *Reply) { asked <- p.Err })
		r.Free()
	}))
	dial(t, s, nil).Notify(&wire.Ping{})
	if err := <-asked; !errors.Is(err, status.Unsupported) {
		t.Fatal(err)
	}
}

func TestBigDataBothWays(t *testing.T) {
	c := dial(t, listen(t, echo), nil)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(1, uint64(g)))
			into := make([]byte, wire.MaxData)
			for i := range 20 {
				n := 1 + rng.IntN(wire.MaxData)
				if i%4 == 0 {
					n = wire.MaxData
				}
				seed := rng.Uint64N(256)
				var wr wire.WriteReply
				w := wire.Write{Off: uint32(i), Chunk: chunk.ID(seed)}
				if err := c.Call(bg, &w, pattern(n, seed), &wr); err != nil || wr.Failed != chunk.Server(i) {
					t.Errorf("write: %v, %+v", err, wr)
					return
				}
				var rr wire.ReadReply
				rd := wire.Read{Off: uint32(i), Len: uint32(n), Chunk: chunk.ID(seed)}
				got, err := c.CallData(bg, &rd, into, &rr)
				if err != nil || got != n || !bytes.Equal(into[:n], pattern(n, seed)) {
					t.Errorf("read of %d: %d, %v", n, got, err)
					return
				}
			}
		}()
	}
	wg.Wait()
}

// TestAligned: data can go to a disk as it is.
func TestAligned(t *testing.T) {
	var bad atomic.Int32
	s := listen(t, HandlerFunc(func(c *Conn, r *Request) {
		if n := len(r.Data); n >= buffer.Align && (!buffer.Aligned(r.Data[:n/buffer.Align*buffer.Align]) || cap(r.Data) < (n+buffer.Align-1)/buffer.Align*buffer.Align) {
			bad.Add(1)
		}
		r.Reply(nil, nil, nil)
		r.Free()
	}))
	c := dial(t, s, nil)
	for _, n := range []int{1, 4095, 4096, 4097, 8192, 65536, 100000, 1 << 20, 1<<20 + 1, wire.MaxData} {
		if err := c.Call(bg, &wire.Write{}, pattern(n, 0), nil); err != nil {
			t.Fatal(err)
		}
	}
	if bad.Load() != 0 {
		t.Fatalf("%d buffers are not aligned", bad.Load())
	}
}

// TestPipelining: many calls are under way at once and answered out of order.
func TestPipelining(t *testing.T) {
	const calls = 500
	var mu sync.Mutex
	var held []*Request
	s := listen(t, HandlerFunc(func(c *Conn, r *Request) {
		mu.Lock()
		defer mu.Unlock()
		held = append(held, r)
		if len(held) < calls {
			return
		}
		for i := len(held) - 1; i >= 0; i-- {
			var m wire.Read
			if err := held[i].Decode(&m); err != nil {
				held[i].Fail(err)
				continue
			}
			held[i].Reply(&wire.ReadReply{Sums: []uint32{m.Off}}, nil, nil)
			held[i].Free()
		}
	}))
	c := dial(t, s, nil)
	var wg sync.WaitGroup
	for i := range calls {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var rr wire.ReadReply
			if err := c.Call(bg, &wire.Read{Off: uint32(i)}, nil, &rr); err != nil || len(rr.Sums) != 1 || rr.Sums[0] != uint32(i) {
				t.Errorf("call %d: %v %v", i, err, rr)
			}
		}()
	}
	wg.Wait()
}

// TestOrder: what one end sends, replies and calls mixed, is handed over at the
// other end in that order.
func TestOrder(t *testing.T) {
	const rounds = 2000
	var next uint64
	s := listen(t, HandlerFunc(func(c *Conn, r *Request) {
		// For each request: a call of its own, the reply, and another call.
		c.Start(&wire.Readlink{Ino: 3 * inodeOf(next)}, nil, func(p *Reply) { p.Free() })
		r.Reply(&wire.StatFSReply{Total: 3*next + 1}, pattern(int(next%97)*100, 0), nil)
		c.Start(&wire.Readlink{Ino: 3*inodeOf(next) + 2}, nil, func(p *Reply) { p.Free() })
		next++
		r.Free()
	}))
	var seen []uint64 // by the read goroutine
	c := dial(t, s, HandlerFunc(func(c *Conn, r *Request) {
		var m wire.Readlink
		if err := r.Decode(&m); err != nil {
			t.Error(err)
		}
		seen = append(seen, uint64(m.Ino))
		r.Reply(&wire.BytesReply{}, nil, nil)
		r.Free()
	}))
	done := make(chan struct{})
	for i := range rounds {
		c.Start(&wire.StatFS{}, nil, func(p *Reply) {
			var m wire.StatFSReply
			if err := p.Decode(&m); err != nil {
				t.Error(err)
			}
			seen = append(seen, m.Total)
			p.Free()
			if i == rounds-1 {
				close(done)
			}
		})
	}
	<-done
	c.Close()
	<-c.ended
	for i := range 3*rounds - 1 {
		if seen[i] != uint64(i) {
			t.Fatalf("frame %d of the other end was handed over as number %d", seen[i], i)
		}
	}
}

// TestSymmetric: both ends call at once, and a call can be made while another
// one is served.
func TestSymmetric(t *testing.T) {
	var s *Server
	both := HandlerFunc(func(c *Conn, r *Request) {
		if r.Kind != wire.KindStatFS {
			echo(c, r)
			return
		}
		go func() {
			defer r.Free()
			for i := range 20 {
				into := make([]byte, 70000)
				if _, err := c.CallData(bg, &wire.Read{Chunk: chunk.ID(i), Len: 70000}, into, nil); err != nil {
					r.Fail(err)
					return
				}
				if !bytes.Equal(into, pattern(70000, uint64(i))) {
					r.Fail(status.Corrupt)
					return
				}
			}
			r.Reply(&wire.StatFSReply{}, nil, nil)
		}()
	})
	s = listen(t, both)
	c := dial(t, s, both)
	eventually(t, "the server knows its connection", func() bool { return len(s.Conns()) == 1 })
	peer := s.Conns()[0]
	var wg sync.WaitGroup
	for _, end := range []*Conn{c, peer} {
		for range 10 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if err := end.Call(bg, &wire.StatFS{}, nil, &wire.StatFSReply{}); err != nil {
					t.Error(err)
				}
			}()
		}
	}
	wg.Wait()
	if role, _ := peer.Peer(); role != wire.RoleMount || peer.PeerVersion() != "test" {
		t.Fatalf("the caller is %v %q", role, peer.PeerVersion())
	}
}

type watcher struct {
	HandlerFunc
	opened, closed chan error
}

func (w watcher) Opened(c *Conn)            { c.SetValue(42); w.opened <- nil }
func (w watcher) Closed(c *Conn, err error) { w.closed <- err }

func TestWatcherAndValue(t *testing.T) {
	values := make(chan any, 1)
	w := watcher{opened: make(chan error, 1), closed: make(chan error, 1)}
	w.HandlerFunc = func(c *Conn, r *Request) { values <- c.Value(); echo(c, r) }
	c := dial(t, listen(t, w), nil)
	if err := c.Call(bg, &wire.Ping{}, nil, nil); err != nil {
		t.Fatal(err)
	}
	<-w.opened
	if v := <-values; v != 42 {
		t.Fatalf("value is %v", v)
	}
	c.Close()
	if err := <-w.closed; !errors.Is(err, status.Closed) {
		t.Fatal(err)
	}
}
