package chunkd

import (
	"context"
	"sync"
	"time"

	"github.com/varvefs/varve/link"
)

const (
	peerRetry = 300 * time.Millisecond // after a failed dial, calls fail at once for this long
	peerQueue = 16 << 20               // bytes that may wait for a dial
	peerMany  = 256                    // more peers than this: forget the dead ones
	copyPeer  = -1                     // peerKey.rest of connections for Replicate
)

// peerKey names a connection to another server. rest is the number of servers
// that follow it in the chain: a read goroutine that waits for room on such a
// connection only ever waits for a server whose own forwarding waits for one
// with a smaller rest, so the waits of all servers form no circle.
type peerKey struct {
	addr string
	rest int
}

// peers are the connections to other chunkservers, made when needed.
type peers struct {
	cfg     link.Config
	timeout time.Duration // of a dial

	mu     sync.Mutex
	all    map[peerKey]*peer
	closed bool
}

func newPeers(cfg link.Config, timeout time.Duration) *peers {
	return &peers{cfg: cfg, timeout: timeout, all: make(map[peerKey]*peer)}
}

func (ps *peers) get(k peerKey) *peer {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.all[k]
	if p == nil {
		if len(ps.all) > peerMany {
			for k, p := range ps.all {
				if p.idle() {
					delete(ps.all, k)
				}
			}
		}
		p = &peer{owner: ps, addr: k.addr}
		p.room.L = &p.mu
		ps.all[k] = p
	}
	return p
}

// conn gives a live connection for calls that may wait.
func (ps *peers) conn(ctx context.Context, addr string) (*link.Conn, error) {
	type result struct {
		c   *link.Conn
		err error
	}
	ch := make(chan result, 1)
	ps.get(peerKey{addr, copyPeer}).do(0, func(c *link.Conn, err error) { ch <- result{c, err} })
	select {
	case r := <-ch:
		return r.c, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (ps *peers) close() {
	ps.mu.Lock()
	ps.closed = true
	all := ps.all
	ps.mu.Unlock()
	for _, p := range all {
		p.mu.Lock()
		if p.conn != nil {
			p.conn.Close()
		}
		p.mu.Unlock()
	}
}

func (ps *peers) isClosed() bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.closed
}

// peer is one connection to another server, or the attempt to have one.
type peer struct {
	owner *peers
	addr  string

	mu      sync.Mutex
	room    sync.Cond // waiting has shrunk
	conn    *link.Conn
	dialing bool
	queue   []func(*link.Conn, error) // in order, while dialing
	waiting int                       // bytes of queue
	retry   time.Time                 // no dial before
	err     error                     // of the last dial
}

// do calls f with a live connection, or with the reason why there is none: here
// and now if that is known, else when it is. Calls come in the order of do, so
// that what f sends keeps its order, too. It blocks only for back-pressure.
func (p *peer) do(bytes int, f func(*link.Conn, error)) {
	p.mu.Lock()
	for p.dialing && p.waiting > peerQueue {
		p.room.Wait()
	}
	switch {
	case p.dialing:
		p.queue = append(p.queue, f)
		p.waiting += bytes
	case p.conn != nil && p.conn.Err() == nil:
		f(p.conn, nil) // under mu, for the order
	case time.Now().Before(p.retry):
		err := p.err
		p.mu.Unlock()
		f(nil, err)
		return
	default:
		p.dialing = true
		p.queue = append(p.queue, f)
		p.waiting += bytes
		go p.dial()
	}
	p.mu.Unlock()
}

func (p *peer) dial() {
	ctx, cancel := context.WithTimeout(context.Background(), p.owner.timeout)
	defer cancel()
	c, err := link.Dial(ctx, "tcp", p.addr, p.owner.cfg, nil)
	p.mu.Lock()
	if err == nil {
		p.conn, p.err = c, nil
	} else {
		p.conn, p.err, p.retry = nil, err, time.Now().Add(peerRetry)
	}
	for _, f := range p.queue {
		f(p.conn, err)
	}
	p.queue, p.waiting, p.dialing = nil, 0, false
	p.room.Broadcast()
	p.mu.Unlock()
	if c != nil && p.owner.isClosed() {
		c.Close()
	}
}

// idle tells whether nothing is lost when the peer is forgotten.
func (p *peer) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.dialing && (p.conn == nil || p.conn.Err() != nil)
}
