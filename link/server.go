package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// maxGreeting bounds the handshakes under way; more wait in the listen queue.
const maxGreeting = 256

// Server accepts connections.
type Server struct {
	cfg    Config
	met    *counters
	ln     net.Listener
	accept func(wire.Role) (Handler, error)
	greets chan struct{} // a token for each handshake under way
	wg     sync.WaitGroup
	log    rateLog

	mu     sync.Mutex
	socks  map[net.Conn]struct{} // in the handshake
	conns  map[*Conn]struct{}
	closed bool
}

// Listen accepts connections on a TCP address. accept says who serves a caller
// of the given role (already proved to have the key), or why nobody does. cfg.Role
// is this side's role; callers that want another one are refused.
func Listen(addr string, cfg Config, accept func(wire.Role) (Handler, error)) (*Server, error) {
	return ListenOn("tcp", addr, cfg, accept)
}

// ListenOn is Listen for any stream network, such as "unix".
func ListenOn(network, addr string, cfg Config, accept func(wire.Role) (Handler, error)) (*Server, error) {
	cfg = cfg.withDefaults()
	lc := net.ListenConfig{KeepAlive: -1}
	ln, err := lc.Listen(context.Background(), network, addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	s := &Server{
		cfg: cfg, met: newCounters(cfg.Metrics), ln: ln, accept: accept,
		greets: make(chan struct{}, maxGreeting),
		socks:  make(map[net.Conn]struct{}), conns: make(map[*Conn]struct{}),
	}
	s.wg.Add(1)
	go s.acceptLoop()
	return s, nil
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Conns lists the connections that are at work.
func (s *Server) Conns() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	return all
}

// Close stops listening, closes all connections and waits for their handlers
// and callbacks. It must not be called by one of them.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.wg.Wait()
		return nil
	}
	s.closed = true
	err := s.ln.Close()
	for nc := range s.socks {
		nc.Close()
	}
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for c := range conns {
		c.Close()
	}
	s.wg.Wait()
	return err
}

func (s *Server) acceptLoop() {
	defer s.wg.Done()
	for {
		nc, err := s.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptors, most likely
			s.log.warn(s.cfg.Log, "accept", "addr", s.ln.Addr().String(), "err", err)
			time.Sleep(20 * time.Millisecond)
			continue
		}
		s.greets <- struct{}{}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			nc.Close()
			return
		}
		s.socks[nc] = struct{}{}
		s.wg.Add(1)
		s.mu.Unlock()
		go s.serve(nc)
	}
}

// serve shakes hands and starts the connection, then waits for its end.
func (s *Server) serve(nc net.Conn) {
	defer s.wg.Done()
	nc.SetDeadline(time.Now().Add(s.cfg.HandshakeTimeout))
	g := newGreeter(nc)
	hello, h, err := g.greetClient(&s.cfg, s.accept)
	<-s.greets
	if err != nil {
		s.met.failures.Inc()
		s.log.warn(s.cfg.Log, "connection refused", "err", handshakeError(nc.RemoteAddr().String(), err))
		linger(nc)
		s.forget(nc)
		return
	}
	nc.SetDeadline(time.Time{})
	g.rd.maxBody = wire.MaxBody
	c := newConn(nc, g.rd, &s.cfg, s.met, h)
	c.role, c.client = hello.Role, hello.Client
	s.mu.Lock()
	delete(s.socks, nc)
	closed := s.closed
	if !closed {
		s.conns[c] = struct{}{}
	}
	s.mu.Unlock()
	c.start()
	if closed {
		c.Close()
	}
	<-c.ended
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

func (s *Server) forget(nc net.Conn) {
	s.mu.Lock()
	delete(s.socks, nc)
	s.mu.Unlock()
}

// refusal is the error of an accept function for a role that it does not serve.
func refusal(want wire.Role) error {
	return status.Errorf(status.Unsupported, "a %v is not served on this port", want)
}

// Only makes an accept function that gives all callers of the listed roles to h.
func Only(h Handler, roles ...wire.Role) func(wire.Role) (Handler, error) {
	return func(r wire.Role) (Handler, error) {
		for _, ok := range roles {
			if r == ok {
				return h, nil
			}
		}
		return nil, refusal(r)
	}
}
