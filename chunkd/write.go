package chunkd

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/segment"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// writing is one Write under way.
type writing struct {
	s     *Server
	r     *link.Request
	m     wire.Write
	begin time.Time
	disk  *disk
	size  int // bytes of data

	answers atomic.Int32 // of store and next server, still missing
	data    atomic.Int32 // users of the data: store, next server
	refs    atomic.Int32 // users of this struct: store, next server, whoever answers

	err error // the store's

	back func() // lentBack, made once
	lent bool   // the store has its data on loan

	hopSeen atomic.Bool // the next server has answered or is given up
	hopTime *time.Timer
	hop     wire.WriteReply // what it, or one behind it, failed with
}

var writings = sync.Pool{New: func() any { return new(writing) }}

// reset makes w a new one.
func (w *writing) reset() {
	sums, back := w.m.Sums, w.back
	*w = writing{back: back}
	w.m.Sums = sums[:0]
}

// write takes a Write on the read goroutine. Forwarding comes first: the next
// server works while this one does.
func (s *Server) write(r *link.Request) {
	w := writings.Get().(*writing)
	if w.back == nil {
		w.back = w.lentBack
	}
	w.s, w.r, w.begin, w.size = s, r, time.Now(), len(r.Data)
	if err := w.decode(); err != nil {
		s.met.failed(err)
		r.Fail(err)
		r.Free()
		s.leave()
		w.reset()
		writings.Put(w)
		return
	}
	chained := len(w.m.Chain) > 0
	w.answers.Store(1)
	w.data.Store(1)
	w.refs.Store(2)
	if chained {
		w.answers.Store(2)
		w.data.Store(2)
		w.refs.Store(3)
		w.forward()
	}
	t, err := w.store()
	if !w.lent {
		w.dropData() // the store has taken it over
	}
	if err == nil && w.m.Sync {
		// Called back by the engine: no system call there, the write goroutine answers.
		w.r.Lazy = true
		t.Then(func(err error) {
			w.stored(w.disk.check(err))
			w.drop()
		})
		return
	}
	w.stored(err)
	w.drop()
}

// decode reads the message and refuses what cannot be right.
func (w *writing) decode() error {
	m := &w.m
	if err := w.r.Decode(m); err != nil {
		return err
	}
	bad := func(format string, args ...any) error {
		return status.Errorf(status.BadMessage, "write to chunk %v: %s", m.Chunk, fmt.Sprintf(format, args...))
	}
	switch {
	case m.Chunk == 0 || m.What > wire.WriteTrim || m.Min > m.Version:
		return bad("what %d, version %v..%v", m.What, m.Min, m.Version)
	case m.What != wire.WriteTrim && (m.Len == 0 || uint64(m.Off)+uint64(m.Len) > chunk.Size):
		return bad("%d bytes at %d", m.Len, m.Off)
	case m.What == wire.WriteTrim && m.Off > chunk.Size:
		return bad("trim at %d", m.Off)
	case m.What == wire.WriteData && (uint32(len(w.r.Data)) != m.Len || len(m.Sums) != chunk.Pieces(m.Off, m.Len)):
		return bad("%d bytes of data with %d checksums for %d bytes at %d", len(w.r.Data), len(m.Sums), m.Len, m.Off)
	case m.What != wire.WriteData && len(w.r.Data) > 0:
		return bad("data where none belongs")
	}
	epoch, err := w.s.tokens.mayWrite(m)
	if err != nil {
		return err
	}
	if epoch > w.s.fence.high.Load() { // signed by a master, so it has begun
		return w.s.fence.admit(epoch)
	}
	return nil
}

// store hands the write to the disk that has the chunk or is to have it.
func (w *writing) store() (segment.Ticket, error) {
	m, s := &w.m, w.s
	sh := s.fence.of(m.Chunk)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if err := sh.writable(m.Chunk, m.Version); err != nil {
		return segment.Ticket{}, err
	}
	d, info, err := s.shelf.findAt(m.Chunk, m.Min, m.Version)
	fresh := false
	if status.CodeOf(err) == status.NoChunk && m.Create {
		d, err = s.shelf.roomiest()
		fresh = true
	}
	if err == nil && (fresh || info.Version < m.Version) {
		err = s.fence.check(m.Epoch)
	}
	if err != nil {
		return segment.Ticket{}, err
	}
	w.disk = d
	o := segment.Write{
		Chunk: m.Chunk, Version: m.Version, What: m.What, Create: m.Create, Off: m.Off, Len: m.Len, Data: w.r.Data, Sums: m.Sums,
	}
	if w.r.Room != nil {
		w.lent, o.Room, o.Done = true, w.r.Room, w.back
		w.refs.Add(1)
	}
	t, err := d.store.Write(o)
	switch {
	case err != nil:
	case fresh:
		s.appeared(m.Chunk)
	case info.Version < m.Version:
		s.raised(m.Chunk)
	}
	return t, d.check(err)
}

// forward sends the write to the next server of the chain.
func (w *writing) forward() {
	next := w.m.Chain[0]
	fwd := w.m
	fwd.Chain = w.m.Chain[1:]
	sent := time.Now()
	w.hopTime = time.AfterFunc(w.s.cfg.HopTimeout, func() {
		w.answered(next.Server, wire.WriteReply{}, status.Errorf(status.Timeout, "%s has not answered for %v", next.Addr, w.s.cfg.HopTimeout))
	})
	p := w.s.peers.get(peerKey{next.Addr, len(fwd.Chain)})
	p.do(len(w.r.Data), func(c *link.Conn, err error) {
		if err != nil {
			w.answered(next.Server, wire.WriteReply{}, err)
			w.dropData()
			w.drop()
			return
		}
		c.Start(&fwd, w.r.Data, func(r *link.Reply) {
			var m wire.WriteReply
			err := r.Decode(&m)
			r.Free()
			if err == nil {
				since(w.s.met.forward, sent)
			}
			w.dropData()
			w.answered(next.Server, m, err)
			w.drop()
		})
	})
}

// answered notes the first answer of the next server, or that there is none.
func (w *writing) answered(next chunk.Server, m wire.WriteReply, err error) {
	if w.hopSeen.Swap(true) {
		return
	}
	w.hop = m
	if err != nil {
		w.s.met.hopFailures.Inc()
		w.s.log.Warn("next server of a chain failed", "server", next, "chunk", w.m.Chunk, "err", err)
		text := err.Error()
		w.hop = wire.WriteReply{Failed: next, Code: uint16(status.CodeOf(err)), Detail: text[:min(len(text), 1024)]}
	}
	w.step()
}

// stored notes the store's answer.
func (w *writing) stored(err error) {
	w.err = err
	w.step()
}

// step replies when both answers are there.
func (w *writing) step() {
	if w.answers.Add(-1) > 0 {
		return
	}
	met := w.s.met
	if w.err != nil {
		met.failed(w.err)
		w.r.Fail(w.err)
	} else {
		met.writes.Add(1)
		met.writeBytes.Add(w.size)
		if w.m.Sync {
			since(met.writeSync, w.begin)
		} else {
			since(met.write, w.begin)
		}
		w.r.Reply(&w.hop, nil, nil)
	}
	w.s.leave()
	w.drop()
}

// lentBack is called by the store when it does not need the data any more.
func (w *writing) lentBack() {
	w.dropData()
	w.drop()
}

// dropData gives the data back when nobody reads it any more.
func (w *writing) dropData() {
	if w.data.Add(-1) == 0 {
		w.r.Free()
	}
}

// drop ends one use of w.
func (w *writing) drop() {
	if w.refs.Add(-1) > 0 {
		return
	}
	if w.hopTime != nil {
		w.hopTime.Stop()
		return // the timer may have begun to run and look at w: not to be used again
	}
	w.reset()
	writings.Put(w)
}
