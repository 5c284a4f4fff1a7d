package client

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

const (
	maxHeld     = 65000 // inodes named in one SessionOpen
	backoffMin  = 20 * time.Millisecond
	backoffMax  = time.Second
	connectTime = 3 * time.Second // for connection, handshake and SessionOpen
)

// session is the standing with the masters: the connection to the one that
// leads, the session's number and lease, and the calls that wait for a reply.
type session struct {
	c     *Client
	lease atomic.Int64 // monotonic nanoseconds at which all rights end
	epoch atomic.Uint64
	root  atomic.Uint64
	id    atomic.Uint64
	tries atomic.Uint64 // SessionOpens sent

	mu         sync.Mutex
	closed     bool
	conn       *link.Conn // nil while there is none
	leaseTime  time.Duration
	nextCall   uint64
	pending    map[uint64]*call
	lastSeq    uint64
	doneSeq    uint64
	unanswered map[uint64]struct{}
	scouts     []string      // addresses of masters that are asked who leads
	stirred    int64         // when a master was last reached or lost
	stirs      chan struct{} // closed at the next time

	offers chan offer // masters that lead
}

func newSession(c *Client) *session {
	return &session{c: c, pending: make(map[uint64]*call), unanswered: make(map[uint64]struct{}), offers: make(chan offer), stirs: make(chan struct{})}
}

// left is how long rights are still good.
func (s *session) left() time.Duration { return time.Duration(s.lease.Load() - s.c.now()) }

// alive says whether rights are good now.
func (s *session) alive() bool { return s.left() > 0 }

// open makes the first connection, so that a wrong key or path is an error of Connect.
func (s *session) open(ctx context.Context) error {
	wait := backoffMin
	for {
		conn, addr, err := s.connect(ctx)
		if err == nil {
			s.scoutFor(addr, conn)
			for _, addr := range s.c.cfg.Masters {
				s.scoutFor(addr, nil)
			}
			s.c.spawn(func() { s.run(conn) })
			return nil
		}
		if hopeless(err) || ctx.Err() != nil {
			return err
		}
		s.c.log.Info("no master answers yet", "err", err)
		if !s.c.sleep(ctx, wait) {
			return err
		}
		wait = min(2*wait, backoffMax)
	}
}

// hopeless says whether trying again cannot help.
func hopeless(err error) bool {
	switch status.CodeOf(err) {
	case status.BadKey, status.BadVersion, status.BadMessage, status.NotFound, status.NotDir,
		status.Access, status.Perm, status.ReadOnly, status.Invalid, status.Unsupported:
		return true
	}
	return false
}

// run keeps a connection until the client is closed.
func (s *session) run(conn *link.Conn) {
	for {
		o := s.ping(conn)
		s.detach(conn)
		part(conn)
		if conn = s.next(o); conn == nil {
			return
		}
		s.c.met.reconnects.Inc()
		s.c.log.Info("connected to the master again", slog.Uint64("session", s.id.Load()))
	}
}

func (s *session) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending)
}

func (s *session) detach(conn *link.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == conn {
		s.conn = nil
	}
}

// part closes a connection to a master and waits until its last frame was dealt
// with. What is said to the next master about rights must not be changed by a
// grant that was still on its way.
func part(conn *link.Conn) {
	conn.Close()
	<-conn.Value().(*recallDesk).ended
}

// ping renews the lease until the connection dies, or another master leads.
func (s *session) ping(conn *link.Conn) *offer {
	s.mu.Lock()
	every := max(s.leaseTime/4, 50*time.Millisecond)
	lease := s.leaseTime
	s.mu.Unlock()
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-conn.Done():
			return nil
		case <-s.c.ctx.Done():
			return nil
		case o := <-s.offers:
			if o.epoch > s.epoch.Load() {
				s.c.log.Info("another master leads", "epoch", o.epoch)
				return &o
			}
			o.taken <- false
			continue
		case <-t.C:
		}
		sent := s.c.now()
		conn.Start(&wire.Ping{}, nil, func(r *link.Reply) {
			err := r.Err
			r.Free()
			if err == nil {
				s.lease.Store(sent + int64(lease))
			} else if conn.Err() == nil {
				conn.Close() // it knows no such session: open it again
			}
		})
	}
}

// connect tries every master once, for the first session.
func (s *session) connect(ctx context.Context) (*link.Conn, string, error) {
	var errs []error
	for _, addr := range s.c.cfg.Masters {
		conn, err := s.dial(ctx, addr)
		if err == nil {
			if err = s.openOn(ctx, conn); err == nil {
				return conn, addr, nil
			}
			part(conn)
		}
		if hopeless(err) {
			return nil, "", err
		}
		errs = append(errs, err)
	}
	return nil, "", errors.Join(errs...)
}

// openOn opens the session, or takes it up, on a connection to the master that leads.
func (s *session) openOn(ctx context.Context, conn *link.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	open := &wire.SessionOpen{
		Session: s.id.Load(), Try: s.tries.Add(1), Host: s.c.cfg.Host, Mount: s.c.cfg.Mount,
		Path: s.c.cfg.Path, ReadOnly: s.c.cfg.ReadOnly, Held: s.c.held(),
		Locks: s.c.lockbook.list(),
	}
	sent := s.c.now()
	done := make(chan error, 1)
	conn.Start(open, nil, func(r *link.Reply) {
		var reply wire.SessionReply
		err := r.Decode(&reply)
		r.Free()
		if err == nil {
			s.attach(&reply, sent)
		}
		done <- err
	})
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		conn.Close()
		err = <-done
	}
	if err == nil {
		s.resend(conn)
	}
	return err
}

// attach runs on the read goroutine, before any recall of the new connection.
func (s *session) attach(reply *wire.SessionReply, sent int64) {
	fresh := s.id.Swap(reply.Session) != reply.Session
	s.root.Store(uint64(reply.Root))
	s.epoch.Store(reply.Epoch)
	lease := time.Duration(reply.LeaseMillis) * time.Millisecond
	s.mu.Lock()
	s.leaseTime = lease
	s.mu.Unlock()
	if fresh {
		reply.Kept = nil
		s.c.early.begin(reply.Session)
	}
	s.c.kept(reply.Kept)
	s.lease.Store(sent + int64(lease))
}

// resend sends what has no reply yet, in the order in which it was made. Only
// then is the connection open for new calls, so that the order stays.
func (s *session) resend(conn *link.Conn) {
	for {
		s.mu.Lock()
		var again []*call
		for _, num := range slices.Sorted(maps.Keys(s.pending)) {
			if k := s.pending[num]; k.conn != conn {
				k.conn, k.sent = conn, true
				again = append(again, k)
			}
		}
		if s.closed {
			conn.Close()
		}
		if len(again) == 0 || conn.Err() != nil {
			s.conn = conn
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		for _, k := range again {
			s.send(conn, k)
		}
		conn.Flush()
	}
}

// lost begins anew after the master said that the session no longer exists.
// Whether a change that was sent has been made, nobody can tell any more: it
// fails. The others get numbers of the new session.
func (s *session) lost() {
	s.c.log.Error("the master has ended this session: rights, locks and unwritten data may be lost",
		"session", s.id.Load())
	s.id.Store(0)
	s.c.lockbook.drop()
	s.c.early.lost()
	for _, k := range s.orphans() {
		k.install(k, status.Errorf(status.Stale, "%T: its session was ended before the reply came", k.req))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastSeq, s.doneSeq = 0, 0
	clear(s.unanswered)
	for _, num := range slices.Sorted(maps.Keys(s.pending)) {
		k := s.pending[num]
		m, ok := k.req.(changing)
		if !ok {
			continue
		}
		if k.sent {
			delete(s.pending, num)
			k.end(status.Errorf(status.Stale, "%T: its session was ended before the reply came", k.req))
			continue
		}
		s.lastSeq++
		s.unanswered[s.lastSeq] = struct{}{}
		k.encode.Lock()
		*m.OnceOf() = wire.Once{Seq: s.lastSeq}
		k.encode.Unlock()
	}
}

// orphans takes out the early changes: they have numbers of inodes and of their
// own that mean nothing in another session.
func (s *session) orphans() (list []*call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, num := range slices.Sorted(maps.Keys(s.pending)) {
		if k := s.pending[num]; k.early {
			list = append(list, k)
			delete(s.pending, num)
		}
	}
	return list
}

// end closes the session at the master, if there is a connection.
func (s *session) end(ctx context.Context) error {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn == nil {
		return status.Errorf(status.Closed, "no master is connected")
	}
	return conn.Call(ctx, &wire.SessionClose{}, nil, nil)
}

// shut fails all calls that still wait.
func (s *session) shut() {
	s.mu.Lock()
	s.closed = true
	conn := s.conn
	pending := s.pending
	s.pending = make(map[uint64]*call)
	s.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
	for _, k := range pending {
		k.end(status.Errorf(status.Closed, "the client is closed"))
	}
}

// held lists what must outlive the connection: what is open or unwritten first,
// then as many other rights as fit.
func (c *Client) held() []wire.Held {
	var first, rest []wire.Held
	for _, n := range c.table.all() {
		n.mu.Lock()
		h := wire.Held{Ino: n.ino, Rights: n.rights, Open: n.opens > 0 || n.told}
		busy := h.Open || n.rights&inode.W != 0
		if h.Open {
			n.told = true
		}
		n.mu.Unlock()
		n.unpin()
		if busy {
			first = append(first, h)
		} else if h.Rights != 0 {
			rest = append(rest, h)
		}
	}
	all := append(first, rest...)
	return all[:min(len(all), maxHeld)]
}

// kept takes away the rights that the master no longer confirms. It runs on the
// read goroutine of a new connection.
func (c *Client) kept(kept []wire.Held) {
	confirmed := make(map[inode.Ino]inode.Rights, len(kept))
	for _, k := range kept {
		confirmed[k.Ino] = k.Rights
	}
	nodes := c.table.all()
	var gone []*node
	for _, n := range nodes {
		if n.confirm(confirmed[n.ino]) {
			gone = append(gone, n)
		} else {
			n.unpin()
		}
	}
	if len(gone) > 0 {
		c.spawn(func() {
			for _, n := range gone {
				c.forgetInKernel(n)
				n.unpin()
			}
		})
	}
}
