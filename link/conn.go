package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/varvefs/varve/buffer"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// Conn is an authenticated connection. All its methods may be called from any
// goroutine.
type Conn struct {
	cfg     *Config
	met     *counters
	nc      net.Conn
	raw     syscall.RawConn // nil: no direct writes
	rd      *reader         // owned by the read goroutine
	handler Handler
	role    wire.Role // of the peer
	client  string    // the peer's version text
	addr    string

	calls calls
	out   outbox

	value atomic.Value // holds valueBox
	once  sync.Once
	err   error // written once before done is closed
	done  chan struct{}
	ended chan struct{} // closed when the read goroutine has finished

	timer     *time.Timer
	seenRead  uint64 // by tick: reader.progress at the last tick
	silent    time.Duration
	seenSent  uint64
	seenWrite uint64
	stalled   time.Duration
}

type valueBox struct{ v any }

// newConn makes a connection of an authenticated socket; start sets it going.
func newConn(nc net.Conn, rd *reader, cfg *Config, met *counters, h Handler) *Conn {
	c := &Conn{
		cfg: cfg, met: met, nc: nc, rd: rd, handler: h, addr: nc.RemoteAddr().String(),
		done: make(chan struct{}), ended: make(chan struct{}),
	}
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw, rd.src = raw, newSocketReader(raw)
		}
	}
	c.calls.pending = make(map[uint64]*call)
	c.out.init()
	return c
}

func (c *Conn) start() {
	c.met.conns.Inc()
	c.timer = time.AfterFunc(time.Hour, c.tick)
	c.timer.Reset(c.cfg.beat())
	go c.writeLoop()
	go c.readLoop()
}

// Peer tells the role and the address of the other side.
func (c *Conn) Peer() (wire.Role, string) { return c.role, c.addr }

// LocalAddr is this side's address of the connection.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// PeerVersion is the version text that the other side gave; "" on the calling side.
func (c *Conn) PeerVersion() string { return c.client }

// SetValue keeps v with the connection, for the handler that serves it.
func (c *Conn) SetValue(v any) { c.value.Store(valueBox{v}) }

// Value is what SetValue stored, or nil.
func (c *Conn) Value() any {
	b, _ := c.value.Load().(valueBox)
	return b.v
}

// Done is closed when the connection is dead.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err says why the connection is dead; nil while it lives.
func (c *Conn) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Close ends the connection at once; calls without a reply fail with
// status.Closed. It does not wait for callbacks.
func (c *Conn) Close() { c.fail(status.Errorf(status.Closed, "connection to %s", c.addr)) }

// fail marks the connection dead and closes the socket, which makes both
// goroutines stop. The read goroutine cleans up.
func (c *Conn) fail(err error) {
	c.once.Do(func() {
		c.err = err
		close(c.done)
		c.out.kill()
		c.nc.Close()
	})
}

// lost makes a socket's error one of the dictionary that names the peer.
func (c *Conn) lost(what string, err error) error {
	if status.CodeOf(err) == status.BadMessage || status.CodeOf(err) == status.BadVersion {
		return fmt.Errorf("%s %s: %w", what, c.addr, err)
	}
	if errors.Is(err, io.EOF) {
		return status.Errorf(status.Closed, "%s closed the connection", c.addr)
	}
	return status.Errorf(status.Closed, "%s %s: %v", what, c.addr, err)
}

// readLoop is the read goroutine.
func (c *Conn) readLoop() {
	defer close(c.ended)
	w, watched := c.handler.(Watcher)
	if watched {
		w.Opened(c)
	}
	batcher, gathers := c.handler.(Batcher)
	for {
		if gathers && !c.rd.holds() {
			batcher.Pause(c)
		}
		if c.out.waitReplies(c.met) {
			break
		}
		h, body, err := c.rd.next()
		if err == nil {
			c.met.framesIn.Inc()
			c.met.bytesIn.Add(wire.HeaderSize + len(body) + int(h.Data))
			err = c.dispatch(h, body)
		}
		if err != nil {
			c.fail(c.lost("read from", err))
			break
		}
	}
	c.finish()
	if watched {
		w.Closed(c, c.err)
	}
}

// finish ends all that still waits for this connection. The writer is waited
// for first: until it has stopped it may still read the data of a call.
func (c *Conn) finish() {
	<-c.done
	c.timer.Stop()
	for _, f := range c.out.drain() {
		f.drop()
	}
	c.calls.end(c.err)
	if status.CodeOf(c.err) != status.Closed {
		c.cfg.Log.Warn("connection lost", "peer", c.addr, "err", c.err)
	}
}

// dispatch hands one frame to whom it is for and reads its data.
func (c *Conn) dispatch(h wire.Header, body []byte) error {
	if h.Flags&wire.FlagReply != 0 {
		return c.calls.reply(c.rd, h, body)
	}
	notice := h.Flags&wire.FlagNotice != 0
	if notice && h.Kind == wire.KindEmpty && h.Data == 0 {
		return nil // the other side is alive
	}
	r := &Request{Kind: h.Kind, Notice: notice, conn: c, id: h.ID}
	if h.Data > 0 {
		r.makeRoom(c.cfg.HeadRoom, int(h.Data))
		if err := c.rd.full(r.Data); err != nil {
			r.Free()
			return err
		}
	}
	if len(body) > 0 {
		r.body = append(buffer.Get(len(body))[:0], body...)
	}
	if c.handler == nil {
		r.Fail(status.Errorf(status.Unsupported, "request of kind %#x: nobody serves requests here", uint16(h.Kind)))
		r.Free()
		return nil
	}
	c.handler.Serve(c, r)
	return nil
}

// tick runs every beat: it keeps the connection alive and notices when the
// other side is dead. Time in which this side itself does not read counts as
// alive. A process that was stopped sees one late tick, not many.
func (c *Conn) tick() {
	beat := c.cfg.beat()
	p := c.rd.progress.Load()
	if p != c.seenRead || !c.rd.waiting.Load() {
		c.seenRead, c.silent = p, 0
	} else if c.silent += beat; c.silent >= c.cfg.IdleTimeout {
		c.met.dead.Inc()
		c.fail(status.Errorf(status.Timeout, "%s has said nothing for %v", c.addr, c.cfg.IdleTimeout))
		return
	}
	sent, writing, progress := c.out.state()
	if writing && progress == c.seenWrite {
		if c.stalled += beat; c.stalled >= stallFactor*c.cfg.IdleTimeout {
			c.met.dead.Inc()
			c.fail(status.Errorf(status.Timeout, "%s has taken nothing for %v", c.addr, c.stalled))
			return
		}
	} else {
		c.seenWrite, c.stalled = progress, 0
	}
	if sent == c.seenSent && !writing {
		c.send(frame{head: encode(wire.Header{Flags: wire.FlagNotice, Kind: wire.KindEmpty}, nil, 0)})
		sent++
	}
	c.seenSent = sent
	select {
	case <-c.done:
	default:
		c.timer.Reset(beat)
	}
}
