package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

func inodeOf(n uint64) inode.Ino { return inode.Ino(n) }

// mute serves requests by never answering.
var mute = HandlerFunc(func(c *Conn, r *Request) { r.Free() })

func TestDeathEndsCalls(t *testing.T) {
	s := listen(t, mute)
	c := dial(t, s, nil)
	var order []int
	for i := range 100 {
		c.Start(&wire.Write{}, pattern(i*1000, 0), func(r *Reply) {
			if !errors.Is(r.Err, status.Closed) {
				t.Errorf("call %d ended with %v", i, r.Err)
			}
			order = append(order, i)
		})
	}
	failed := make(chan error)
	go func() { failed <- c.Call(bg, &wire.Ping{}, nil, nil) }()
	eventually(t, "the server took the calls", func() bool {
		conns := s.Conns()
		return len(conns) == 1 && conns[0].rd.progress.Load() > 0
	})
	s.Close()
	if err := <-failed; !errors.Is(err, status.Closed) {
		t.Fatal(err)
	}
	<-c.ended
	for i := range 100 {
		if len(order) != 100 || order[i] != i {
			t.Fatalf("calls ended in the order %v", order)
		}
	}
	if err := c.Call(bg, &wire.Ping{}, nil, nil); !errors.Is(err, status.Closed) || c.Err() == nil {
		t.Fatal(err)
	}
	late := make(chan error)
	c.Start(&wire.Ping{}, nil, func(r *Reply) { late <- r.Err })
	if err := <-late; !errors.Is(err, status.Closed) {
		t.Fatal(err)
	}
}

// TestReleaseOnce: the data of each reply is released once, whatever happens to
// the connection.
func TestReleaseOnce(t *testing.T) {
	var made, released atomic.Int64
	s := listen(t, HandlerFunc(func(c *Conn, r *Request) {
		made.Add(1)
		r.Reply(&wire.ReadReply{}, pattern(200000, 0), func() { released.Add(1) })
		r.Free()
	}))
	for range 20 {
		c := dial(t, s, nil)
		for range 50 {
			c.Start(&wire.Read{}, nil, func(r *Reply) { r.Free() })
		}
		_ = c.Call(bg, &wire.Read{}, nil, nil) // refused: no room for the data
		c.Close()
	}
	s.Close()
	eventually(t, "all is released", func() bool { return made.Load() == released.Load() })
}

// proxy forwards a connection until it is told to freeze.
type proxy struct {
	ln     net.Listener
	frozen atomic.Bool
}

func newProxy(t *testing.T, to string) *proxy {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			a, err := ln.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				a.Close()
				return
			}
			t.Cleanup(func() { a.Close(); b.Close() })
			go p.pump(a, b)
			go p.pump(b, a)
		}
	}()
	return p
}

// pump drops everything once frozen, as the network of a lost host does.
func (p *proxy) pump(to io.Writer, from io.Reader) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if !p.frozen.Load() {
			to.Write(b[:n])
		}
	}
}

func TestLostHost(t *testing.T) {
	cfg := serverConfig()
	cfg.IdleTimeout = 200 * time.Millisecond
	lost := watcher{HandlerFunc: HandlerFunc(echo), opened: make(chan error, 1), closed: make(chan error, 1)}
	p := newProxy(t, listenWith(t, cfg, lost).Addr().String())
	cfg = clientConfig()
	cfg.IdleTimeout = 200 * time.Millisecond
	c := dialWith(t, p.ln.Addr().String(), cfg, nil)
	if err := c.Call(bg, &wire.Ping{}, nil, nil); err != nil {
		t.Fatal(err)
	}
	p.frozen.Store(true)
	begin := time.Now()
	if err := c.Call(bg, &wire.Ping{}, nil, nil); !errors.Is(err, status.Timeout) {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Fatalf("noticed after %v", d)
	}
	if err := <-lost.closed; !errors.Is(err, status.Timeout) {
		t.Fatalf("the server noticed %v", err)
	}
}

// TestIdleLives: beats keep a connection without calls alive.
func TestIdleLives(t *testing.T) {
	cfg := serverConfig()
	cfg.IdleTimeout = 300 * time.Millisecond
	s := listenWith(t, cfg, echo)
	cfg = clientConfig()
	cfg.IdleTimeout, cfg.Metrics = 300*time.Millisecond, metrics.NewSet()
	c := dialWith(t, s.Addr().String(), cfg, nil)
	eventually(t, "beats for three times the idle timeout", func() bool {
		return c.Err() != nil || c.met.framesIn.Get() > 12
	})
	if err := c.Call(bg, &wire.Ping{}, nil, nil); err != nil {
		t.Fatal(err)
	}
}

// TestSendBackPressure: calls with data wait when the peer does not read.
func TestSendBackPressure(t *testing.T) {
	gate := make(chan struct{})
	s := listen(t, HandlerFunc(func(c *Conn, r *Request) { <-gate; echo(c, r) }))
	c := dial(t, s, nil)
	const calls, size = 100, 1 << 20
	var begun, ended atomic.Int64
	go func() {
		for range calls {
			c.Start(&wire.Write{}, pattern(size, 0), func(r *Reply) {
				if r.Err == nil {
					ended.Add(1)
				}
				r.Free()
			})
			begun.Add(1)
		}
	}()
	full := func() bool {
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		return c.out.calls >= sendLimit
	}
	eventually(t, "the queue is full", full)
	if n := begun.Load(); n > sendLimit/size+32 { // 32: what sockets may hold
		t.Fatalf("%d MiB were taken", n)
	}
	ctx, cancel := context.WithTimeout(bg, 20*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, &wire.Write{}, pattern(10, 0), nil); !errors.Is(err, status.Timeout) {
		t.Fatalf("a call that had to wait gave %v", err)
	}
	c.Notify(&wire.Ping{}) // does not block
	close(gate)
	eventually(t, "all calls ended", func() bool { return ended.Load() == calls })
}

// TestReplyBackPressure: a peer that asks without listening is not served on.
func TestReplyBackPressure(t *testing.T) {
	var served atomic.Int64
	s := listen(t, HandlerFunc(func(c *Conn, r *Request) { served.Add(1); echo(c, r) }))
	gate := make(chan struct{})
	c := dial(t, s, nil)
	const calls = 60
	var ended atomic.Int64
	for range calls {
		c.Start(&wire.Read{Len: wire.MaxData}, nil, func(r *Reply) {
			<-gate
			if len(r.Data) == wire.MaxData {
				ended.Add(1)
			}
			r.Free()
		})
	}
	eventually(t, "the server pauses", func() bool {
		for _, sc := range s.Conns() {
			if sc.met.paused.Get() > 0 {
				return true
			}
		}
		return false
	})
	if n := served.Load(); n > replyLimit/wire.MaxData+8 { // 8: what sockets may hold
		t.Fatalf("%d requests were served", n)
	}
	close(gate)
	eventually(t, "all calls ended", func() bool { return ended.Load() == calls })
}

// TestCancelKeepsData: after a cancelled call its buffer is the caller's again.
func TestCancelKeepsData(t *testing.T) {
	slow := make(chan struct{}, 1)
	s := listen(t, HandlerFunc(func(c *Conn, r *Request) {
		select {
		case <-slow:
		case <-time.After(time.Millisecond):
		}
		echo(c, r)
	}))
	c := dial(t, s, nil)
	var wg sync.WaitGroup
	var cancelled atomic.Int64
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			buf := make([]byte, 300000)
			for i := range 100 {
				seed := uint64(g*60 + i%60)
				copy(buf, pattern(len(buf), seed))
				ctx, cancel := context.WithTimeout(bg, time.Duration(i%10)*500*time.Microsecond)
				err := c.Call(ctx, &wire.Write{Chunk: chunk.ID(seed)}, buf, nil)
				cancel()
				if errors.Is(err, status.Timeout) {
					cancelled.Add(1)
				} else if err != nil {
					t.Errorf("call: %v", err)
					return
				}
			}
		}()
	}
	wg.Wait()
	close(slow)
	if err := c.Call(bg, &wire.Ping{}, nil, nil); err != nil || cancelled.Load() == 0 {
		t.Fatalf("%v after %d cancelled calls", err, cancelled.Load())
	}
}

func TestCancelledReplyIsDropped(t *testing.T) {
	gate := make(chan struct{})
	s := listen(t, HandlerFunc(func(c *Conn, r *Request) { <-gate; echo(c, r) }))
	c := dial(t, s, nil)
	ctx, cancel := context.WithCancel(bg)
	cancel()
	into := make([]byte, 100000)
	if _, err := c.CallData(ctx, &wire.Read{Len: 100000}, into, nil); !errors.Is(err, status.Interrupted) || !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(gate)
	n, err := c.CallData(bg, &wire.Read{Len: 100000, Chunk: 9}, into, nil)
	if err != nil || !bytes.Equal(into[:n], pattern(100000, 9)) {
		t.Fatal(n, err)
	}
}

// TestAnsweredTwice: an own bug is not hidden.
func TestAnsweredTwice(t *testing.T) {
	r := &Request{conn: &Conn{}}
	r.answered.Store(true)
	defer func() {
		if recover() == nil {
			t.Fatal("a second answer went unnoticed")
		}
	}()
	r.Reply(nil, nil, nil)
}
