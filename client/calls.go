package client

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// changing is a request that the master executes at most once.
type changing interface{ OnceOf() *wire.Once }

// States of a call, for the race between its reply and its caller's patience.
const (
	callWaiting int32 = iota
	callInstalling
	callAbandoned
)

// call is one request to the master. It stays in session.pending, and is sent
// again after every reconnect, until its reply has been installed.
type call struct {
	num     uint64 // order of making; see node.quarantine
	req     wire.Message
	reply   wire.Message
	install func(k *call, err error)
	conn    *link.Conn // on which it was last sent; guarded by session.mu
	sent    bool       // at least once; guarded by session.mu
	early   bool       // it has its number already, and nobody waits but install
	encode  sync.Mutex // held while req is encoded or its Once changed
	state   atomic.Int32
	done    chan error // one element
}

// end hands the result to the caller. Only the first one counts.
func (k *call) end(err error) {
	select {
	case k.done <- err:
	default:
	}
}

// abandoned tells an install function that nobody waits for its result.
func (k *call) abandoned() bool { return k.state.Load() == callAbandoned }

// do sends a request to the master and waits for the reply. install (may be
// nil) runs on the connection's read goroutine, after reply was decoded and
// before any later frame of the master is looked at: that is where granted
// rights are noted. It also runs when the caller has given up. A lost
// connection is not an error: the request is sent again on the next one. For a program
// that is being killed (ErrKilled) nothing is sent any more, and of a change that
// was sent the outcome is awaited.
func (s *session) do(ctx context.Context, req, reply wire.Message, install func(*call, error)) error {
	if reply == nil {
		reply = &wire.Empty{}
	}
	k := &call{req: req, reply: reply, install: install, done: make(chan error, 1)}
	if t := s.c.cfg.Timeout; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t)
		defer cancel()
	}
	defer func(began int64) { s.c.met.calls.Update(float64(s.c.now()-began) / 1e9) }(s.c.now())
	if doomed(ctx) {
		return status.Errorf(status.Interrupted, "%T", req)
	}
	Waits(ctx)
	if !s.begin(k) {
		return status.Errorf(status.Closed, "the client is closed")
	}
	select {
	case err := <-k.done:
		return err
	case <-ctx.Done():
	}
	if doomed(ctx) {
		if s.withdraw(k) {
			return status.Errorf(status.Interrupted, "%T", req)
		}
		if _, ok := req.(changing); ok {
			select {
			case err := <-k.done:
				return err
			case <-caller(ctx).Over():
			}
		}
	}
	if !k.state.CompareAndSwap(callWaiting, callAbandoned) {
		return <-k.done
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return status.Errorf(status.Timeout, "%T", req)
	}
	return status.Errorf(status.Interrupted, "%T", req)
}

// begin registers the call and sends it if there is a connection; false: closed.
func (s *session) begin(k *call) bool {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	s.nextCall++
	k.num = s.nextCall
	if m, ok := k.req.(changing); ok {
		if !k.early {
			s.lastSeq++
			s.unanswered[s.lastSeq] = struct{}{}
			m.OnceOf().Seq = s.lastSeq
		}
		m.OnceOf().Done = s.doneSeq
	}
	s.pending[k.num] = k
	conn := s.conn
	k.conn, k.sent = conn, conn != nil
	s.mu.Unlock()
	if conn != nil {
		s.send(conn, k)
	}
	return true
}

// number gives an early change its number before it is sent.
func (s *session) number(m wire.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastSeq++
	s.unanswered[s.lastSeq] = struct{}{}
	*m.(changing).OnceOf() = wire.Once{Seq: s.lastSeq}
}

// mark returns a number greater than that of every call made so far: a reply
// to a call with a smaller number may speak of rights given back before.
func (s *session) mark() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextCall++
	return s.nextCall
}

// send sends a call; an early change leaves with the next one, or at flush.
func (s *session) send(conn *link.Conn, k *call) {
	k.encode.Lock()
	defer k.encode.Unlock()
	start := conn.Start
	if k.early {
		start = conn.Queue
	}
	start(k.req, nil, func(r *link.Reply) { s.answered(conn, k, r) })
}

// flush sends the early changes that have begun.
func (s *session) flush() {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn != nil {
		conn.Flush()
	}
}

// answered runs on the read goroutine of conn, or when conn has died.
func (s *session) answered(conn *link.Conn, k *call, r *link.Reply) {
	err := r.Err
	if err == nil {
		err = r.Decode(k.reply)
	}
	r.Free()
	if err != nil && (conn.Err() != nil || again(err)) {
		s.unsent(conn, k)
		if conn.Err() == nil {
			conn.Close() // another master may lead; the loop looks for it
		}
		return
	}
	if !s.mine(conn, k) {
		return // a reply of a connection that has been replaced
	}
	if k.install != nil {
		k.state.CompareAndSwap(callWaiting, callInstalling)
		k.install(k, err)
	}
	s.finish(k)
	k.end(err)
}

// again says whether an error means that another master should be asked.
func again(err error) bool {
	switch status.CodeOf(err) {
	case status.NotLeader, status.OldEpoch, status.Closed:
		return true
	}
	return false
}

func (s *session) unsent(conn *link.Conn, k *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.conn == conn {
		k.conn = nil
	}
}

func (s *session) mine(conn *link.Conn, k *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return k.conn == conn && s.pending[k.num] == k
}

// withdraw takes a call out that no master can know of; false: it was sent, or ended.
func (s *session) withdraw(k *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.sent || s.pending[k.num] != k {
		return false
	}
	s.takeOut(k)
	return true
}

// finish takes an answered call out.
func (s *session) finish(k *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeOut(k)
}

// takeOut is finish with mu held.
func (s *session) takeOut(k *call) {
	delete(s.pending, k.num)
	if m, ok := k.req.(changing); ok {
		delete(s.unanswered, m.OnceOf().Seq)
		for s.doneSeq < s.lastSeq {
			if _, waits := s.unanswered[s.doneSeq+1]; waits {
				break
			}
			s.doneSeq++
		}
	}
}
