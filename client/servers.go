package client

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

const (
	dialTimeout = 500 * time.Millisecond // a chunkserver that takes longer is skipped
	dialAgain   = 200 * time.Millisecond // after a failure the next ones fail at once for so long
	serverIdle  = 2 * time.Second        // of silence, after which a chunkserver is dead
)

// lane is one of the connections to a chunkserver: writes keep their order on
// one, reads don't wait behind them on the other.
type lane int

const (
	laneWrite lane = iota
	laneRead
	lanes
)

// server is one chunkserver, by the address of its data port.
type server struct {
	c       *Client
	addr    string
	load    atomic.Int64 // bytes of reads in work
	latency atomic.Int64 // of reads, smoothed, in nanoseconds
	lender  lender

	lanes [lanes]struct {
		mu     sync.Mutex // held while dialing
		conn   atomic.Pointer[link.Conn]
		err    error
		failed time.Time
	}
}

// servers are the chunkservers that were ever spoken to.
type servers struct {
	c  *Client
	mu sync.Mutex
	m  map[string]*server
}

func (s *servers) get(addr string) *server {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.m[addr]
	if v == nil {
		v = &server{c: s.c, addr: addr}
		s.m[addr] = v
	}
	return v
}

// shut closes all connections.
func (s *servers) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.m {
		for l := range v.lanes {
			if conn := v.lanes[l].conn.Load(); conn != nil {
				conn.Close()
			}
		}
	}
}

// dial returns a living connection, made if need be.
func (v *server) dial(ctx context.Context, l lane) (*link.Conn, error) {
	p := &v.lanes[l]
	if conn := p.conn.Load(); conn != nil && conn.Err() == nil {
		return conn, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if conn := p.conn.Load(); conn != nil && conn.Err() == nil {
		return conn, nil
	}
	if p.err != nil && time.Since(p.failed) < dialAgain {
		return nil, p.err
	}
	if v.c.ctx.Err() != nil {
		return nil, status.Errorf(status.Closed, "the client is closed")
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := link.Dial(ctx, "tcp", v.addr, v.c.linkConfig(wire.RoleChunkd), nil)
	if err != nil {
		p.err, p.failed = err, time.Now()
		v.c.met.dialErrors.Inc()
		return nil, err
	}
	p.err = nil
	p.conn.Store(conn)
	if l == laneRead {
		v.lender.met(conn)
	}
	if v.c.ctx.Err() != nil {
		conn.Close() // shut may have missed it
	}
	return conn, nil
}

// alive returns the living connection of a lane, or nil.
func (v *server) alive(l lane) *link.Conn {
	if conn := v.lanes[l].conn.Load(); conn != nil && conn.Err() == nil {
		return conn
	}
	return nil
}
