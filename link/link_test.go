package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

var testKey = []byte("0123456789abcdef0123456789abcdef")

func serverConfig(t testing.TB) Config {
	return Config{Key: testKey, Role: wire.RoleChunkd, Client: "test"}
}

func clientConfig(t testing.TB) Config {
	return Config{Key: testKey, Role: wire.RoleMount, Want: wire.RoleChunkd, Client: "test"}
}

func listen(t testing.TB, h Handler) *Server {
	t.Helper()
	s, err := Listen("127.0.0.1:0", serverConfig(t), Only(h, wire.RoleMount))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func dial(t testing.TB, s *Server, h Handler) *Conn {
	t.Helper()
	c, err := Dial(context.Background(), "tcp", s.Addr().String(), clientConfig(t), h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// echo answers Read with its Off bytes of data, Write by summing what came,
// Readlink with an error, and Ping with Empty.
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
		b := pattern(int(m.Len), uint64(m.Chunk))
		r.Reply(&wire.ReadReply{Sums: []uint32{m.Off}}, b, nil)
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
		r.Reply(&wire.WriteReply{Code: uint16(m.Off)}, nil, nil)
	default:
		r.Fail(status.Errorf(status.NotFound, "kind %#x", uint16(r.Kind)))
	}
})

func pattern(n int, seed uint64) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(uint64(i)*2654435761>>7 + seed*31)
	}
	return b
}

func TestCall(t *testing.T) {
	c := dial(t, listen(t, echo), nil)
	ctx := context.Background()
	if err := c.Call(ctx, &wire.Ping{}, nil, &wire.Empty{}); err != nil {
		t.Fatal(err)
	}
	err := c.Call(ctx, &wire.Readlink{Ino: 7}, nil, &wire.BytesReply{})
	if !errors.Is(err, status.NotFound) || status.DetailOf(err) != fmt.Sprintf("kind %#x", uint16(wire.KindReadlink)) {
		t.Fatalf("error is %v", err)
	}
	if err := c.Call(ctx, &wire.Ping{}, nil, &wire.BytesReply{}); !errors.Is(err, status.BadMessage) {
		t.Fatalf("a reply of the wrong kind gave %v", err)
	}
	if role, addr := c.Peer(); role != wire.RoleChunkd || addr == "" {
		t.Fatalf("peer is %v %q", role, addr)
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
			for i := range 12 {
				n := 1 + rng.IntN(wire.MaxData)
				if i == 0 {
					n = wire.MaxData
				}
				seed := rng.Uint64N(256)
				var wr wire.WriteReply
				w := wire.Write{Off: uint32(i)}
				w.Chunk = chunk.ID(seed)
				if err := c.Call(context.Background(), &w, pattern(n, seed), &wr); err != nil || wr.Code != uint16(i) {
					t.Errorf("write: %v, %+v", err, wr)
					return
				}
				var rr wire.ReadReply
				rd := wire.Read{Off: uint32(i), Len: uint32(n)}
				rd.Chunk = chunk.ID(seed)
				got, err := c.CallData(context.Background(), &rd, into, &rr)
				if err != nil || got != n || !bytes.Equal(into[:n], pattern(n, seed)) {
					t.Errorf("read of %d: %d, %v", n, got, err)
					return
				}
			}
		}()
	}
	wg.Wait()
}

func TestDeath(t *testing.T) {
	block := HandlerFunc(func(c *Conn, r *Request) { r.Free() })
	s := listen(t, block)
	c := dial(t, s, nil)
	var ends atomic.Int32
	for range 100 {
		c.Start(&wire.Ping{}, nil, func(r *Reply) {
			if errors.Is(r.Err, status.Closed) {
				ends.Add(1)
			}
			r.Free()
		})
	}
	go func() {
		time.Sleep(10 * time.Millisecond)
		s.Close()
	}()
	if err := c.Call(context.Background(), &wire.Ping{}, nil, nil); !errors.Is(err, status.Closed) {
		t.Fatal(err)
	}
	<-c.ended
	if ends.Load() != 100 {
		t.Fatalf("%d of 100 calls ended", ends.Load())
	}
	if err := c.Call(context.Background(), &wire.Ping{}, nil, nil); !errors.Is(err, status.Closed) {
		t.Fatal(err)
	}
}
