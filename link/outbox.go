package link

import (
	"context"
	"net"
	"sync"

	"github.com/varvefs/varve/buffer"
	"github.com/varvefs/varve/wire"
	"golang.org/x/sys/unix"
)

// frame is one frame on its way out.
type frame struct {
	head    []byte // header and body, from alloc
	data    []byte // the sender's
	release func() // when data has left or never will; may be nil
	id      uint64 // of a call, for withdraw
	reply   bool
	lazy    bool // not to be written by the sender
}

func (f *frame) size() int { return len(f.head) + len(f.data) }

// drop ends the life of a frame, sent or not.
func (f *frame) drop() {
	buffer.Put(f.head)
	if f.release != nil {
		f.release()
	}
	*f = frame{}
}

// encode makes a frame but for its data. Most fit, an answer with a chunk in it does.
func encode(h wire.Header, m wire.Message, data int) []byte {
	return wire.AppendFrame(buffer.Get(512)[:0], h, m, data)
}

// outbox is the queue of frames that wait to be written. Whoever sets writing
// owns batch, iov and the socket's write side until it clears it.
type outbox struct {
	mu       sync.Mutex
	cond     sync.Cond // room has come, a batch has left, or the connection is dead
	queue    []frame
	head     int // frames of queue before it have left
	dead     bool
	writing  bool
	calls    int    // bytes of call data queued or in the batch
	replies  int    // bytes of replies queued or in the batch
	waiting  int    // bytes of all frames queued or in the batch
	sent     uint64 // frames queued since the start
	progress uint64 // batches written
	handed   bool   // the write goroutine may write

	work  sync.Cond // for the write goroutine: handed, or the connection is dead
	batch []frame   // guarded by mu for withdraw; changed by the writer only
	iov   [][]byte
	now   nonblocking
}

func (o *outbox) init() {
	o.cond.L = &o.mu
	o.work.L = &o.mu
	o.now.try = o.now.attempt
}

func (o *outbox) kill() {
	o.mu.Lock()
	o.dead = true
	o.cond.Broadcast()
	o.work.Signal()
	o.mu.Unlock()
}

// drain waits for the writer and returns what never left.
func (o *outbox) drain() []frame {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.writing {
		o.cond.Wait()
	}
	rest := o.queue[o.head:]
	o.queue, o.head = nil, 0
	return rest
}

func (o *outbox) state() (sent uint64, writing bool, progress uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sent, o.writing, o.progress
}

// Backlog is how many bytes wait to be written: for those who send notices,
// which nothing else holds back.
func (c *Conn) Backlog() int {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.waiting
}

// waitReplies holds the read goroutine while too many bytes of replies wait. It
// tells whether the connection is dead.
func (o *outbox) waitReplies(met *counters) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.replies > replyLimit && !o.dead {
		met.paused.Inc()
	}
	for o.replies > replyLimit && !o.dead {
		o.cond.Wait()
	}
	return o.dead
}

// room waits until call data may be queued, ctx is over or the connection dead.
func (o *outbox) room(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.calls < sendLimit || o.dead {
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		o.mu.Lock()
		o.cond.Broadcast()
		o.mu.Unlock()
	})
	defer stop()
	for o.calls >= sendLimit && !o.dead {
		if err := ctx.Err(); err != nil {
			return err
		}
		o.cond.Wait()
	}
	return nil
}

// withdraw takes a call's frame back, or waits until it has left: afterwards
// nobody reads its data any more.
func (o *outbox) withdraw(id uint64) {
	o.mu.Lock()
	for i := o.head; i < len(o.queue); i++ {
		if f := o.queue[i]; f.id == id {
			copy(o.queue[i:], o.queue[i+1:])
			o.queue[len(o.queue)-1] = frame{}
			o.queue = o.queue[:len(o.queue)-1]
			o.forget(&f)
			o.cond.Broadcast()
			o.mu.Unlock()
			f.drop()
			return
		}
	}
	defer o.mu.Unlock()
	for o.inBatch(id) {
		o.cond.Wait()
	}
}

func (o *outbox) inBatch(id uint64) bool {
	for i := range o.batch {
		if o.batch[i].id == id {
			return true
		}
	}
	return false
}

// forget subtracts a frame from the counts. mu is held.
func (o *outbox) forget(f *frame) {
	o.waiting -= f.size()
	if f.reply {
		o.replies -= f.size()
	} else {
		o.calls -= len(f.data)
	}
}

// take moves the next frames into batch and iov. mu is held.
func (o *outbox) take() (bytes int) {
	for len(o.batch) < batchFrames && bytes < batchBytes && o.head < len(o.queue) {
		f := o.queue[o.head]
		o.queue[o.head] = frame{}
		o.head++
		o.batch = append(o.batch, f)
		o.iov = append(o.iov, f.head)
		if len(f.data) > 0 {
			o.iov = append(o.iov, f.data)
		}
		bytes += f.size()
	}
	if o.head == len(o.queue) {
		o.queue, o.head = o.queue[:0], 0
	}
	return bytes
}

// left ends a batch that was written or failed. It reports whether more waits;
// if not, writing is over.
func (o *outbox) left() (more bool) {
	done := o.batch
	for i := range done {
		// Before the batch is forgotten: the owner of the data may wait for it.
		if done[i].release != nil {
			done[i].release()
		}
		buffer.Put(done[i].head)
	}
	o.mu.Lock()
	for i := range done {
		o.forget(&done[i])
		done[i] = frame{}
	}
	clear(o.iov[:cap(o.iov)])
	o.batch, o.iov = done[:0], o.iov[:0]
	o.progress++
	more = o.head < len(o.queue) && !o.dead
	if !more {
		o.writing = false
		if o.dead {
			o.work.Signal()
		}
	}
	o.cond.Broadcast()
	o.mu.Unlock()
	return more
}

// send queues a frame and, when nobody writes and it is small, writes it here
// as far as the socket takes it without waiting. It never blocks.
func (c *Conn) send(f frame) {
	o := &c.out
	o.mu.Lock()
	switch {
	case o.dead:
		o.mu.Unlock()
		f.drop()
		return
	case !o.put(f):
		o.mu.Unlock()
	case c.raw == nil || f.lazy || f.size() > directLimit:
		o.handOver()
		o.mu.Unlock()
	default:
		c.writeQueued()
	}
}

// queue is send for a frame that others will follow at once, the last of them by
// send or Flush.
func (c *Conn) queue(f frame) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dead {
		f.drop()
	} else if o.put(f) {
		o.writing = false // not yet
	}
}

// Flush sends what was queued.
func (c *Conn) Flush() {
	o := &c.out
	o.mu.Lock()
	switch {
	case o.writing || o.dead || o.head == len(o.queue):
		o.mu.Unlock()
	case c.raw == nil:
		o.writing = true
		o.handOver()
		o.mu.Unlock()
	default:
		o.writing = true
		c.writeQueued()
	}
}

// put queues a frame. It reports whether the caller has got the right to write.
// mu is held.
func (o *outbox) put(f frame) bool {
	if o.head > 1024 && o.head > len(o.queue)/2 {
		n := copy(o.queue, o.queue[o.head:])
		clear(o.queue[n:])
		o.queue, o.head = o.queue[:n], 0
	}
	o.queue = append(o.queue, f)
	o.sent++
	o.waiting += f.size()
	if f.reply {
		o.replies += f.size()
	} else {
		o.calls += len(f.data)
	}
	if o.writing {
		return false
	}
	o.writing = true
	return true
}

// writeQueued writes the next batch as far as the socket takes it without
// waiting. mu is held, and let go; the caller has the right to write.
func (c *Conn) writeQueued() {
	o := &c.out
	bytes := o.take()
	frames := len(o.batch)
	o.mu.Unlock()

	n, err := c.writeNow(o.iov, bytes)
	if err != nil {
		c.fail(c.lost("write to", err))
	} else if n < bytes {
		o.iov = advance(o.iov, n)
		o.mu.Lock()
		o.handOver()
		o.mu.Unlock()
		return
	}
	c.met.direct.Inc()
	c.met.framesOut.Add(frames)
	c.met.bytesOut.Add(n)
	if o.left() {
		o.mu.Lock()
		o.handOver()
		o.mu.Unlock()
	}
}

// handOver gives the right to write to the write goroutine. mu is held.
func (o *outbox) handOver() {
	o.handed = true
	o.work.Signal()
}

// writeNow writes what the socket takes of iov, which has that many bytes, without
// waiting. The caller has the right to write, so that the fields of now are its own.
func (c *Conn) writeNow(iov [][]byte, bytes int) (int, error) {
	w := &c.out.now
	w.iov, w.bytes, w.n, w.err = iov, bytes, 0, nil
	err := c.raw.Write(w.try)
	w.iov = nil
	if err == nil && w.err != unix.EAGAIN {
		err = w.err
	}
	return max(w.n, 0), err
}

// advance drops the first n bytes of iov.
func advance(iov [][]byte, n int) [][]byte {
	i := 0
	for i < len(iov) && n >= len(iov[i]) {
		n -= len(iov[i])
		i++
	}
	iov = iov[:copy(iov, iov[i:])]
	if len(iov) > 0 {
		iov[0] = iov[0][n:]
	}
	return iov
}

// writeLoop is the write goroutine. It ends when the connection is dead and
// nobody else is writing.
func (c *Conn) writeLoop() {
	for c.out.handedOver() {
		for more := true; more; more = c.out.left() {
			n, err := c.out.writeTo(c.nc)
			if err != nil {
				c.fail(c.lost("write to", err))
			}
			c.met.writes.Inc()
			c.met.framesOut.Add(len(c.out.batch))
			c.met.bytesOut.Add(int(n))
		}
	}
}

// handedOver waits until the right to write is handed to the write goroutine;
// false: the connection is dead and nobody writes.
func (o *outbox) handedOver() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.handed && (o.writing || !o.dead) {
		o.work.Wait()
	}
	mine := o.handed
	o.handed = false
	return mine
}

// writeTo writes the rest of the batch, or the next one.
func (o *outbox) writeTo(nc net.Conn) (int64, error) {
	if len(o.iov) == 0 {
		o.mu.Lock()
		o.take()
		o.mu.Unlock()
	}
	bufs := net.Buffers(o.iov)
	return bufs.WriteTo(nc)
}
