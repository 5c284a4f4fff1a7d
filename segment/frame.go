package segment

import (
	"sync"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
)

const (
	maxFlight  = 8    // frames of one head that are in flight
	eagerSmall = 2    // a frame that is not full leaves when fewer are in flight
	inlineMax  = 3072 // payload that may lie in the header when it is alone in its frame
	inlineFew  = 256  // payload that always may
)

// frame is one I/O: being filled, in flight, or durable and kept for its waiters. The
// seal of a segment travels as a frame too. Guarded by Store.mu, but for buf: its
// payload is written by those who reserved it while filling is not 0, and read only
// from then on.
type frame struct {
	store *Store
	head  *head
	seg   *segment
	buf   []byte // from engine.Alloc, or on loan; nil when it is durable and nobody reads it
	done  func() // whose loan it is; nil: nobody's
	off   uint32 // bytes from the start of the segment
	limit uint32 // bytes that the frame may have at most

	used   uint32 // header bytes in use
	inline uint32 // first byte of inline payload
	size   uint32 // bytes in use, without padding; after closing with it
	count  uint32 // entries
	lsn    uint64 // of the first entry
	seq    uint64
	sum    uint32 // of the header

	repeated uint16 // names of chunks of the frame before, at the end of the header

	filling  int  // reservations that are not yet copied
	readers  int  // reads that copy out of buf
	seal     bool // seal of a segment, no entries
	loose    bool // seal of a retired segment: nobody waits for it, and it may fail
	hurry    bool // somebody waits for it: it leaves as soon as it may
	closed   bool // takes no more entries
	launched bool // the engine has it, or is about to
	written  bool // its I/O is done
	bad      bool // its I/O failed: it is written again elsewhere
	finished bool // durable in order, or failed

	err   error   // valid when finished
	waits *waiter // those in Ticket.Wait
	then  []func(error)

	began time.Time // when the engine got it
	next  *frame    // in Store.ready, or in Store.lent
	io    *carrier  // from launch until the I/O is done
}

// carrier is the operation of a frame that is launched. Carriers and waiters are used again
// and again: a write that waits costs no garbage but its frame, which all writes in it share.
type carrier struct {
	f   *frame
	op  engine.Op
	ops [1]*engine.Op // the op, as Submit wants it
}

var carriers = sync.Pool{New: func() any {
	c := new(carrier)
	c.op.Kind, c.ops[0] = engine.WriteSync, &c.op
	return c
}}

// waiter is one Wait under way.
type waiter struct {
	next *waiter
	done chan struct{} // of one element
}

var waiters = sync.Pool{New: func() any { return &waiter{done: make(chan struct{}, 1)} }}

// newFrame starts a frame in buf at the end of the head's segment. mu is held.
func (s *Store) newFrame(h *head, buf []byte) *frame {
	f := &frame{store: s, head: h, seg: h.seg, buf: buf, off: h.seg.end, limit: uint32(len(buf)), used: fixedSize, size: headerSize, repeated: uint16(len(h.names))}
	f.inline = headerSize - 4*uint32(len(h.names))
	putNames(f.buf, h.names)
	h.names = h.names[:0]
	h.seg.flight = append(h.seg.flight, f)
	h.open = f
	return f
}

// place finds room for an entry with n stored bytes, whose first byte lies at start in
// its chunk, and reserves it. It returns the position of the first byte in the frame.
func (f *frame) place(start, n uint32, pieces int, alone bool) (pos uint32, ok bool) {
	need := uint32(entrySize + 4*pieces)
	if f.used+need > f.inline {
		return 0, false
	}
	switch {
	case n == 0:
	case f.used+need+n <= f.inline && (n <= inlineFew || alone && n <= inlineMax && f.count == 0):
		f.inline -= n
		pos = f.inline
	default:
		pos = (f.size + 7) &^ 7
		if n >= blockSize {
			pos = f.size + (start-f.size)%blockSize
		}
		if pos > f.limit || n > f.limit-pos {
			return 0, false
		}
		clear(f.buf[f.size:pos])
		f.size = pos + n
	}
	f.used += need
	return pos, true
}

// add writes an entry for which place has found room.
func (f *frame) add(e *entry, sums []uint32) {
	if f.count == 0 {
		f.lsn = e.lsn
	}
	at := f.used - uint32(entrySize+4*len(sums))
	e.append(f.buf[at:at:f.used], f.lsn, sums)
	f.count++
	name := nameOf(e.chunk)
	if names := f.head.names; len(names) == 0 || names[len(names)-1] != name {
		f.head.names = append(names, name)
	}
}

// close ends a frame and writes its header. mu is held.
func (s *Store) close(h *head) {
	f := h.open
	h.open = nil
	size := (f.size + blockSize - 1) &^ (blockSize - 1)
	clear(f.buf[f.size:size])
	clear(f.buf[f.used:f.inline])
	f.size, f.closed = size, true
	h.seq++
	f.seq = h.seq
	g := f.seg
	hd := header{head: h.n, used: f.used, inline: f.inline, size: size, entries: f.count, disk: s.diskID, seg: g.n, off: f.off,
		incarnation: g.incarnation, seq: f.seq, lsn: f.lsn, previous: g.previous, repeated: f.repeated, time: time.Now().UnixNano()}
	for i := range s.heads {
		hd.durable[i] = s.heads[i].durable
	}
	f.sum = hd.put(f.buf)
	g.note(&hd, f.buf[:f.used])
	h.flight = append(h.flight, f)
	s.stat.frames.Inc()
	s.stat.entries.Add(int(f.count))
	s.stat.written.Add(int(size))
	if f.filling == 0 && h.broken != g {
		s.launch(f)
	}
}

// launch queues a frame for the engine; unlock hands it over. Nothing else is written
// to a segment before its first frame is durable: so that what is found behind a first
// block that is torn is never from a life of the segment that did not begin. mu is held.
func (s *Store) launch(f *frame) {
	g := f.seg
	if len(g.flight) > 0 && g.flight[0].off == 0 && g.flight[0] != f {
		g.held = append(g.held, f)
		return
	}
	f.written, f.bad = false, false
	if f.io = carriers.Get().(*carrier); f.io.op.Done == nil {
		f.io.op.Done = f.io.completed
	}
	f.io.f, f.io.op.Buf, f.io.op.Off = f, f.buf[:f.size], g.base+int64(f.off)
	f.launched, f.began = true, time.Now()
	f.next = s.ready
	s.ready = f
}

// filled tells that one reservation is copied. mu is held.
func (s *Store) filled(f *frame) {
	f.filling--
	if f.filling > 0 {
		return
	}
	switch {
	case f.finished: // the disk failed meanwhile
		f.release()
	case f.seg == f.head.broken:
		s.retire(f.head)
	case f.closed:
		s.launch(f)
	}
	s.changed.Broadcast()
}

// pump lets the open frame of h leave if there is a reason to. Natural group commit: a
// frame leaves at once when little is in flight, else it waits and collects until a
// frame before it is done. What only the cleaner has filled waits until it is full. mu
// is held.
func (s *Store) pump(h *head) {
	if f := h.open; f != nil && f.hurry && f.count > 0 && len(h.flight) < eagerSmall && h.broken == nil {
		s.close(h)
	}
}

// want tells that somebody waits for a frame. mu is held.
func (s *Store) want(f *frame) {
	if !f.closed {
		f.hurry = true
		s.pump(f.head)
	}
}

// mark writes a frame without entries to each head whose last frame has some and
// nothing behind it. The mark says that the frame was durable and what it was about: if
// it decays, that is seen. mu is held.
func (s *Store) mark() {
	for i := range s.heads {
		h := &s.heads[i]
		if len(h.names) == 0 || h.open != nil || len(h.flight) > 0 || h.seg == nil || h.broken != nil || s.room(h.seg) < headerSize {
			continue
		}
		f := s.newFrame(h, engine.Alloc(headerSize))
		f.lsn = s.nextLSN()
		s.close(h)
	}
}

// completed runs in the engine when the frame's I/O is done.
func (c *carrier) completed(op *engine.Op) {
	f, err := c.f, op.Err
	s := f.store
	s.mu.Lock()
	f.io, c.f, op.Buf, op.Err = nil, nil, nil, nil
	carriers.Put(c)
	f.written = true
	s.health.worst = max(s.health.worst, time.Since(f.began))
	switch {
	case f.loose:
		f.seg.landed(f)
		f.seg.unsealed = err != nil
		s.finish(f, err)
	case f.finished:
		f.release()
	case err != nil:
		s.writeFailed(f, err)
	default:
		s.timed(f)
		s.advance(f.head)
		s.retire(f.head)
	}
	s.unlock()
}

// advance takes the frames that are durable in order off the head's queue. mu is held.
func (s *Store) advance(h *head) {
	n := 0
	for n < len(h.flight) && h.flight[n].written && !h.flight[n].bad {
		f := h.flight[n]
		if !f.seal {
			h.durable = mark{f.seq, f.seg.n, f.off + f.size}
		}
		f.seg.landed(f)
		s.finish(f, nil)
		n++
	}
	if n > 0 {
		h.flight = append(h.flight[:0], h.flight[n:]...)
		s.changed.Broadcast()
	}
	s.pump(h)
}

// finish tells all waiters of a frame how it ended and lets go of its buffer. mu is held.
func (s *Store) finish(f *frame, err error) {
	f.finished, f.err = true, err
	for w := f.waits; w != nil; {
		next := w.next // w is another's when it is told
		w.done <- struct{}{}
		w = next
	}
	f.waits = nil
	if len(f.then) > 0 {
		s.acked = append(s.acked, f)
	}
	if f.seal && err == nil {
		s.wakeKeeper()
	}
	f.release()
}

// release gives the buffer back once the frame has ended and neither the engine nor
// anybody else uses it. That of a frame that never became durable stays: it is all there
// is of what it holds. mu is held.
func (f *frame) release() {
	if f.finished && f.err == nil && f.readers == 0 && f.filling == 0 && f.written == f.launched && f.buf != nil {
		if f.done == nil {
			engine.Free(f.buf)
		} else {
			f.next, f.store.lent = f.store.lent, f
		}
		f.buf = nil
	}
}

// Ticket stands for writes that are accepted and on their way to the disk. The zero
// Ticket is one that has arrived.
type Ticket struct{ f *frame }

// Wait returns when the write is durable, or the error that keeps it from becoming so.
func (t Ticket) Wait() error {
	if t.f == nil {
		return nil
	}
	s := t.f.store
	s.mu.Lock()
	if t.f.finished {
		err := t.f.err
		s.unlock()
		return err
	}
	w := waiters.Get().(*waiter)
	w.next, t.f.waits = t.f.waits, w
	s.want(t.f)
	s.unlock()
	if s.step != nil {
		s.mu.Lock()
		for !t.f.finished {
			s.wait()
		}
		s.unlock()
	}
	<-w.done
	w.next = nil
	waiters.Put(w)
	return t.f.err
}

// Then calls fn when the write is durable or has failed: now, if that is already known,
// else on a goroutine of the engine, for one write of a head after the other. fn must
// be short, must not block and must not call the store.
func (t Ticket) Then(fn func(error)) {
	if t.f == nil {
		fn(nil)
		return
	}
	s := t.f.store
	s.mu.Lock()
	if !t.f.finished {
		t.f.then = append(t.f.then, fn)
		s.want(t.f)
		s.unlock()
		return
	}
	err := t.f.err
	s.unlock()
	fn(err)
}

// unlock gives up mu and does what was queued under it.
func (s *Store) unlock() {
	ready, lent := s.ready, s.lent
	s.ready, s.lent = nil, nil
	run := len(s.acked) > 0 && !s.acking
	if run {
		s.acking = true
	}
	s.mu.Unlock()
	for ready != nil {
		f := ready
		ready, f.next = f.next, nil
		f.seg.file.Submit(f.io.ops[:]...)
	}
	for lent != nil {
		f := lent
		lent, f.next = f.next, nil
		f.done()
	}
	if run {
		s.acknowledge()
	}
}

// acknowledge calls back those who wait for finished frames, in order, one goroutine at
// a time.
func (s *Store) acknowledge() {
	for {
		s.mu.Lock()
		frames := s.acked
		s.acked = nil
		if len(frames) == 0 {
			s.acking = false
			s.unlock()
			return
		}
		s.unlock()
		for _, f := range frames {
			for _, fn := range f.then {
				fn(f.err)
			}
			f.then = nil
		}
	}
}

// wait gives up mu until something has changed. The caller looks again at what it
// waits for.
func (s *Store) wait() {
	if s.ready != nil || s.lent != nil || len(s.acked) > 0 && !s.acking {
		s.unlock()
		s.mu.Lock()
		return
	}
	if s.step == nil {
		s.changed.Wait()
		return
	}
	s.unlock()
	s.stepOn()
	s.mu.Lock()
}

// stepOn makes something happen when nobody else does.
func (s *Store) stepOn() {
	if s.step() {
		return
	}
	if s.inKeep {
		panic("BUG: the keeper waits for something that nobody does")
	}
	s.inKeep = true
	defer func() { s.inKeep = false }()
	if !s.keepOnce() && !s.stuck && s.usable() == nil {
		panic("BUG: somebody waits for something that nobody does")
	}
}

// do carries out one operation and waits for it.
func do(f engine.File, kind engine.Kind, buf []byte, off int64, step func() bool) error {
	if step == nil {
		return engine.Do(f, kind, buf, off)
	}
	done := false
	op := engine.Op{Kind: kind, Buf: buf, Off: off, Done: func(*engine.Op) { done = true }}
	f.Submit(&op)
	for !done {
		if !step() {
			panic("BUG: an operation of the disk does not end")
		}
	}
	return op.Err
}

// mention notes that a segment has an entry of a chunk. mu is held.
func (s *Store) mention(g *segment, r *record) {
	if _, ok := g.set[r.id]; !ok {
		g.set[r.id] = struct{}{}
		r.refs++
	}
}

// sumsFor returns the sums of data at off: those given if they match, else an error.
func sumsFor(off uint32, data []byte, sums []uint32) ([]uint32, bool) {
	if sums == nil {
		return chunk.AppendSums(nil, off, data), true
	}
	return sums, chunk.Verify(sums, off, data) < 0
}
