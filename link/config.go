package link

import (
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/varvefs/varve/wire"
)

// Limits of one connection.
const (
	sendLimit   = 16 << 20 // bytes of call data that may wait before a call blocks
	replyLimit  = 64 << 20 // bytes of replies that may wait before reading stops
	directLimit = 64 << 10 // larger frames are left to the write goroutine
	batchFrames = 256      // frames of one writev
	batchBytes  = 4 << 20  // bytes after which a writev takes no further frame
	stallFactor = 12       // times IdleTimeout without progress of a write
	maxBeat     = time.Second
)

// Config is what both Dial and Listen need.
type Config struct {
	Key    []byte    // of the cluster
	Role   wire.Role // what this process is
	Want   wire.Role // what the called process must be (Dial only)
	Client string    // version text for the other side's log
	Log    *slog.Logger
	// Metrics takes the counters varve_link_*; nil counts for nobody.
	Metrics *metrics.Set
	// IdleTimeout is how long a silent peer is believed to live; 0 is 5 s. A
	// peer sends something every quarter of its own IdleTimeout, at most 1 s.
	IdleTimeout time.Duration
	// HeadRoom, 0 or 4096, is how many bytes a Request.Room has before the data.
	HeadRoom int
	// HandshakeTimeout bounds the exchange of the keys' proofs; 0 is 5 s.
	HandshakeTimeout time.Duration
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	if c.IdleTimeout <= 0 {
		c.IdleTimeout = 5 * time.Second
	}
	if c.HandshakeTimeout <= 0 {
		c.HandshakeTimeout = 5 * time.Second
	}
	return c
}

// beat is the longest silence that this side keeps.
func (c *Config) beat() time.Duration { return min(c.IdleTimeout/4, maxBeat) }

// Handler serves the requests of the other side.
type Handler interface {
	// Serve runs on the connection's read goroutine in the order of the
	// frames. It must not block for long; the reply may come later and from any
	// goroutine. The request belongs to the handler until it calls r.Free.
	Serve(c *Conn, r *Request)
}

// Watcher is what a Handler may also be, to learn of a connection's beginning
// and end. Opened runs before the first Serve and Closed after the last one and
// after the last callback, both on the read goroutine.
type Watcher interface {
	Opened(c *Conn)
	Closed(c *Conn, err error)
}

// Batcher is what a Handler may also be, to deal with requests together that came
// together. Pause runs on the read goroutine when all requests that are here have
// been given to Serve, before more are waited for.
type Batcher interface {
	Pause(c *Conn)
}

// HandlerFunc makes a function a Handler.
type HandlerFunc func(c *Conn, r *Request)

// Serve calls f.
func (f HandlerFunc) Serve(c *Conn, r *Request) { f(c, r) }

// counters are the metrics of all connections that share a Set.
type counters struct {
	conns, failures              *metrics.Counter
	framesIn, framesOut          *metrics.Counter
	bytesIn, bytesOut            *metrics.Counter
	direct, writes, dead, paused *metrics.Counter
}

func newCounters(s *metrics.Set) *counters {
	return &counters{
		conns:     s.GetOrCreateCounter("varve_link_connections_total"),
		failures:  s.GetOrCreateCounter("varve_link_handshake_failures_total"),
		framesIn:  s.GetOrCreateCounter("varve_link_received_frames_total"),
		framesOut: s.GetOrCreateCounter("varve_link_sent_frames_total"),
		bytesIn:   s.GetOrCreateCounter("varve_link_received_bytes_total"),
		bytesOut:  s.GetOrCreateCounter("varve_link_sent_bytes_total"),
		direct:    s.GetOrCreateCounter("varve_link_direct_writes_total"),
		writes:    s.GetOrCreateCounter("varve_link_queued_writes_total"),
		dead:      s.GetOrCreateCounter("varve_link_dead_peers_total"),
		paused:    s.GetOrCreateCounter("varve_link_read_pauses_total"),
	}
}
