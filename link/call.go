package link

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/varvefs/varve/buffer"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// Reply is the answer to a call made by Start.
type Reply struct {
	Err  error // of the other side, or why there is no answer
	Kind wire.Kind
	Data []byte // from link's pool, until Free
	body []byte
}

// Decode fills m from the reply. It gives r.Err when there is one.
func (r *Reply) Decode(m wire.Message) error {
	if r.Err != nil {
		return r.Err
	}
	return wire.DecodeBody(r.Kind, r.body, m)
}

// Free gives the reply's buffers back; Data must not be used any more.
func (r *Reply) Free() {
	buffer.Put(r.Data)
	buffer.Put(r.body)
	r.Data, r.body = nil, nil
}

// call is one request that has no reply yet: either done (Start) or the other
// fields (Call) are used.
type call struct {
	done func(*Reply)
	msg  wire.Message // the reply is decoded into it, may be nil
	into []byte       // the reply's data goes here
	n    int
	ch   chan error // one element
}

var callPool = sync.Pool{New: func() any { return &call{ch: make(chan error, 1)} }}

// end gives the call its error.
func (k *call) end(err error) {
	if k.done != nil {
		k.done(&Reply{Err: err})
		return
	}
	k.ch <- err
}

// calls are those of a connection that wait for a reply.
type calls struct {
	mu      sync.Mutex
	pending map[uint64]*call
	dead    bool
	lastID  atomic.Uint64
}

// add registers a call; false: the connection is dead.
func (s *calls) add(id uint64, k *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return false
	}
	s.pending[id] = k
	return true
}

// remove takes a call out; nil when it has been answered.
func (s *calls) remove(id uint64) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.pending[id]
	delete(s.pending, id)
	return k
}

// end fails all calls, in the order in which they were made.
func (s *calls) end(err error) {
	s.mu.Lock()
	s.dead = true
	all := s.pending
	s.pending = nil
	s.mu.Unlock()
	ids := make([]uint64, 0, len(all))
	for id := range all {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		all[id].end(err)
	}
}

// reply hands a reply frame to its call. An error is one of the connection.
func (s *calls) reply(rd *reader, h wire.Header, body []byte) error {
	k := s.remove(h.ID)
	if k == nil { // cancelled
		return rd.skip(int(h.Data))
	}
	if k.done != nil {
		return s.callback(rd, h, body, k)
	}
	var err error
	if int(h.Data) > len(k.into) {
		err = status.Errorf(status.BadMessage, "reply with %d bytes of data where %d fit", h.Data, len(k.into))
		if fatal := rd.skip(int(h.Data)); fatal != nil {
			k.ch <- err
			return fatal
		}
	} else if h.Data > 0 {
		k.n = int(h.Data)
		if fatal := rd.full(k.into[:k.n]); fatal != nil {
			k.ch <- status.Errorf(status.Closed, "connection lost within a reply: %v", fatal)
			return fatal
		}
	}
	if err == nil {
		if h.Status != status.OK {
			err = failure(h, body)
		} else if k.msg != nil {
			err = wire.DecodeBody(h.Kind, body, k.msg)
		}
	}
	k.ch <- err
	return nil
}

// callback reads the data of a reply and runs a Start's done.
func (s *calls) callback(rd *reader, h wire.Header, body []byte, k *call) error {
	r := &Reply{Kind: h.Kind}
	if h.Data > 0 {
		r.Data = buffer.Get(int(h.Data))
		if err := rd.full(r.Data); err != nil {
			r.Free()
			k.done(&Reply{Err: status.Errorf(status.Closed, "connection lost within a reply: %v", err)})
			return err
		}
	}
	if h.Status != status.OK {
		r.Err = failure(h, body)
	} else if len(body) > 0 {
		r.body = append(buffer.Get(len(body))[:0], body...)
	}
	k.done(r)
	return nil
}

// failure is the error in a reply's frame.
func failure(h wire.Header, body []byte) error {
	var d wire.Detail
	if err := wire.DecodeBody(wire.KindEmpty, body, &d); err != nil {
		return &status.Error{Code: h.Status, Detail: "(its detail is not readable)"}
	}
	return &status.Error{Code: h.Status, Detail: d.Text}
}

// Call sends a request with optional data and waits for its reply, which is
// decoded into reply (nil: only success counts). When it returns, data is the
// caller's again. The end of ctx gives Timeout or Interrupted; the request may
// have been carried out all the same. If data is being written when ctx ends,
// Call first waits until it has left or the connection is found dead.
func (c *Conn) Call(ctx context.Context, req wire.Message, data []byte, reply wire.Message) error {
	_, err := c.call(ctx, req, data, nil, reply)
	return err
}

// CallData is Call for a reply that brings data, which is read straight into
// the given buffer; n is how much came. More than fits is BadMessage.
func (c *Conn) CallData(ctx context.Context, req wire.Message, into []byte, reply wire.Message) (n int, err error) {
	return c.call(ctx, req, nil, into, reply)
}

func (c *Conn) call(ctx context.Context, req wire.Message, data, into []byte, reply wire.Message) (int, error) {
	id := c.calls.lastID.Add(1)
	head, err := request(id, req, data)
	if err != nil {
		return 0, err
	}
	if len(data) > 0 {
		if err := c.out.room(ctx); err != nil {
			buffer.Put(head)
			return 0, over(req, err)
		}
	}
	k := callPool.Get().(*call)
	k.msg, k.into, k.n = reply, into, 0
	if !c.calls.add(id, k) {
		buffer.Put(head)
		return 0, c.deadErr()
	}
	c.send(frame{head: head, data: data, id: id})
	select {
	case err = <-k.ch:
	case <-ctx.Done():
		if c.calls.remove(id) == nil {
			err = <-k.ch // the reply is being read
			break
		}
		if len(data) > 0 {
			c.out.withdraw(id)
		}
		return 0, over(req, ctx.Err())
	}
	n := k.n
	*k = call{ch: k.ch}
	callPool.Put(k)
	return n, err
}

// Start sends a request with optional data and returns. done runs once: on the
// read goroutine, in the order of the frames, or, when the connection dies,
// with the error in Reply.Err; on a dead connection in a goroutine of its own.
// It must not block. data must not change until then. Start blocks while too
// much data of other calls waits (see the package comment); without data never.
func (c *Conn) Start(req wire.Message, data []byte, done func(*Reply)) {
	if f, ok := c.prepare(req, data, done); ok {
		c.send(f)
	}
}

// Queue is Start for one of several requests in a row, which are to leave
// together: the last is followed by Flush.
func (c *Conn) Queue(req wire.Message, data []byte, done func(*Reply)) {
	if f, ok := c.prepare(req, data, done); ok {
		c.queue(f)
	}
}

// prepare registers a request of Start and makes its frame; ok false: it has failed.
func (c *Conn) prepare(req wire.Message, data []byte, done func(*Reply)) (f frame, ok bool) {
	id := c.calls.lastID.Add(1)
	head, err := request(id, req, data)
	if err != nil {
		go done(&Reply{Err: err})
		return frame{}, false
	}
	if len(data) > 0 {
		_ = c.out.room(context.Background()) // never over; a dead connection is seen next
	}
	if !c.calls.add(id, &call{done: done}) {
		buffer.Put(head)
		go done(&Reply{Err: c.deadErr()})
		return frame{}, false
	}
	return frame{head: head, data: data, id: id}, true
}

// Notify sends a message that has no reply. It never blocks, and nobody learns
// whether it arrived.
func (c *Conn) Notify(m wire.Message) {
	head := encode(wire.Header{Flags: wire.FlagNotice, Kind: m.Kind()}, m, 0)
	c.send(frame{head: head})
}

// request encodes a call's frame.
func request(id uint64, req wire.Message, data []byte) ([]byte, error) {
	if len(data) > wire.MaxData {
		return nil, status.Errorf(status.BadMessage, "%T with %d bytes of data, the limit is %d", req, len(data), wire.MaxData)
	}
	head := encode(wire.Header{Kind: req.Kind(), ID: id}, req, len(data))
	if n := len(head) - wire.HeaderSize; n > wire.MaxBody {
		buffer.Put(head)
		return nil, status.Errorf(status.BadMessage, "%T of %d bytes, the limit is %d", req, n, wire.MaxBody)
	}
	return head, nil
}

// deadErr is why the connection is dead.
func (c *Conn) deadErr() error {
	<-c.done
	return c.err
}

// over makes the end of a context an error of the dictionary.
func over(req wire.Message, err error) error {
	code := status.Interrupted
	if errors.Is(err, context.DeadlineExceeded) {
		code = status.Timeout
	}
	return fmt.Errorf("%T: %w (%w)", req, code, err)
}
