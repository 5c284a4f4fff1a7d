package link

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// logBuffer is a log that tests may read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.buf.String(), s)
}

func loggedServer(t *testing.T) (*Server, *logBuffer) {
	l := new(logBuffer)
	cfg := serverConfig()
	cfg.Log = slog.New(slog.NewTextHandler(l, nil))
	return listenWith(t, cfg, echo), l
}

func TestWrongKey(t *testing.T) {
	s, log := loggedServer(t)
	cfg := clientConfig()
	cfg.Key = []byte("another key, of another cluster")
	_, err := Dial(bg, "tcp", s.Addr().String(), cfg, nil)
	if !errors.Is(err, status.BadKey) || !strings.Contains(err.Error(), "cluster.key") {
		t.Fatalf("error is %v", err)
	}
	eventually(t, "the server logs it", func() bool { return log.has("different cluster key") })
}

// TestForgedProof: a caller that ignores the server's proof is refused by its own.
func TestForgedProof(t *testing.T) {
	s, _ := loggedServer(t)
	nc, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	g := newGreeter(nc)
	hello := wire.Hello{Role: wire.RoleMount, Want: wire.RoleChunkd}
	rand.Read(hello.Nonce[:])
	var ch wire.Challenge
	if err := errors.Join(g.put(status.OK, wire.KindHello, &hello), g.get(&ch)); err != nil {
		t.Fatal(err)
	}
	// The server's own proof sent back is the obvious forgery.
	if err := g.put(status.OK, wire.KindProof, &wire.Proof{Proof: ch.Proof}); err != nil {
		t.Fatal(err)
	}
	if err := g.get(&wire.Welcome{}); !errors.Is(err, status.BadKey) {
		t.Fatalf("the server says %v", err)
	}
	if _, err := nc.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the connection is open: %v", err)
	}
}

func TestRoles(t *testing.T) {
	s, _ := loggedServer(t)
	cfg := clientConfig()
	cfg.Want = wire.RoleMaster
	if _, err := Dial(bg, "tcp", s.Addr().String(), cfg, nil); !errors.Is(err, status.BadMessage) || !strings.Contains(err.Error(), "port of a chunkserver") {
		t.Fatalf("wrong port: %v", err)
	}
	cfg = clientConfig()
	cfg.Role = wire.RoleAdmin
	if _, err := Dial(bg, "tcp", s.Addr().String(), cfg, nil); !errors.Is(err, status.Unsupported) {
		t.Fatalf("role that is not served: %v", err)
	}
}

// TestOtherVersion: both sides say clearly that the versions differ.
func TestOtherVersion(t *testing.T) {
	s, log := loggedServer(t)
	nc, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	b := encode(wire.Header{Kind: wire.KindHello}, &wire.Hello{}, 0)
	b[2] = wire.Version + 8
	if _, err := nc.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := newGreeter(nc).get(&wire.Welcome{}); !errors.Is(err, status.BadVersion) {
		t.Fatalf("the server says %v", err)
	}
	eventually(t, "the server logs it", func() bool { return log.has("another protocol version") })

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.Write(b)
		io.Copy(io.Discard, c)
	}()
	if _, err := Dial(bg, "tcp", ln.Addr().String(), clientConfig(), nil); !errors.Is(err, status.BadVersion) {
		t.Fatalf("calling another version gave %v", err)
	}
}

// TestStrangers: what is not our protocol is hung up on, at once.
func TestStrangers(t *testing.T) {
	s, _ := loggedServer(t)
	huge := encode(wire.Header{Kind: wire.KindHello}, nil, 0)
	huge[18] = 0x30 // a body of 3 MiB before the key is proved
	early := encode(wire.Header{Kind: wire.KindRead}, &wire.Read{}, 0)
	withData := encode(wire.Header{Kind: wire.KindHello}, &wire.Hello{Want: wire.RoleChunkd}, 9)
	random := make([]byte, 100)
	rand.Read(random)
	for name, b := range map[string][]byte{
		"http":   []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"tls":    {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"random": random, "huge body": huge, "request first": early, "data in hello": withData,
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := net.Dial("tcp", s.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			nc.SetDeadline(time.Now().Add(4 * time.Second)) // before the handshake's own
			nc.Write(b)
			if _, err := io.Copy(io.Discard, nc); isTimeout(err) {
				t.Fatalf("not hung up: %v", err)
			}
		})
	}
	if err := dial(t, s, nil).Call(bg, &wire.Ping{}, nil, nil); err != nil {
		t.Fatalf("the server suffered: %v", err)
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// TestGarbageAfterHandshake: an authenticated peer that goes mad is closed.
func TestGarbageAfterHandshake(t *testing.T) {
	w := watcher{HandlerFunc: HandlerFunc(echo), opened: make(chan error, 1), closed: make(chan error, 1)}
	s := listen(t, w)
	c := dial(t, s, nil)
	<-w.opened
	b := encode(wire.Header{Kind: wire.KindRead}, &wire.Read{}, 0)
	b[len(b)-1] ^= 1
	if _, err := c.nc.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := <-w.closed; !errors.Is(err, status.BadMessage) {
		t.Fatal(err)
	}
}

func TestSilentCaller(t *testing.T) {
	cfg := serverConfig()
	cfg.HandshakeTimeout = 50 * time.Millisecond
	s := listenWith(t, cfg, echo)
	nc, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := nc.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
}

func TestSilentServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cfg := clientConfig()
	cfg.HandshakeTimeout = 50 * time.Millisecond
	if _, err := Dial(bg, "tcp", ln.Addr().String(), cfg, nil); !errors.Is(err, status.Timeout) {
		t.Fatal(err)
	}
}

func TestCloseDuringHandshake(t *testing.T) {
	s := listen(t, echo)
	nc, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	eventually(t, "the handshake begins", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.socks) == 1
	})
	s.Close() // returns although the caller says nothing
	if _, err := Dial(bg, "tcp", s.Addr().String(), clientConfig(), nil); !errors.Is(err, status.Closed) {
		t.Fatal(err)
	}
}

// TestPipe: a connection without a descriptor works, through the write goroutine.
func TestPipe(t *testing.T) {
	a, b := net.Pipe()
	scfg, ccfg := serverConfig().withDefaults(), clientConfig().withDefaults()
	met := newCounters(scfg.Metrics)
	ready := make(chan *Conn)
	go func() {
		g := newGreeter(b)
		_, h, err := g.greetClient(&scfg, Only(echo, wire.RoleMount))
		if err != nil {
			t.Error(err)
		}
		g.rd.maxBody = wire.MaxBody
		c := newConn(b, g.rd, &scfg, met, h)
		c.start()
		ready <- c
	}()
	g := newGreeter(a)
	if err := g.greetServer(&ccfg); err != nil {
		t.Fatal(err)
	}
	g.rd.maxBody = wire.MaxBody
	c := newConn(a, g.rd, &ccfg, met, nil)
	c.start()
	peer := <-ready
	into := make([]byte, 1<<20)
	for i := range 20 {
		if n, err := c.CallData(bg, &wire.Read{Len: 1 << 20, Chunk: 5}, into, nil); err != nil || !bytes.Equal(into[:n], pattern(1<<20, 5)) {
			t.Fatal(i, n, err)
		}
	}
	c.Close()
	<-c.ended
	<-peer.ended
}
