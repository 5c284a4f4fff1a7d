package master

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/master/voters"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// Master is a running master. Its methods may be called from any goroutine.
type Master struct {
	cfg     Config
	loop    *loop
	in      *inbox
	log     *journal.Log
	net     *voters.Net                 // nil: the only voter
	opened  atomic.Pointer[journal.Log] // log, for the net's goroutines
	clients *link.Server
	servers *link.Server
	stop    chan struct{}
	once    sync.Once
	err     error
	done    chan struct{}
}

// Start reads the newest image and the changelog behind it, and serves. What
// Dir must not be in use by another master; a damaged image or changelog, and
// an address that cannot be had, are errors that say where.
func Start(cfg Config) (*Master, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	st, meta, file, err := openState(cfg.Dir, begun, cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("master: %w", err)
	}
	read := time.Now()
	l := &loop{
		cfg: cfg, in: newInbox(), st: st, met: newMeters(cfg.Metrics), slog: cfg.Log, begun: begun, opened: read, behind: true,
		images: &images{dir: cfg.Dir, last: file, at: begun, index: meta.Index, hurry: make(chan struct{})},
		index:  meta.Index, term: meta.Term, stopped: make(chan struct{}),
	}
	l.reached.Store(l.index)
	l.met.started("image", read.Sub(begun))
	l.clear()
	m := &Master{cfg: cfg, loop: l, in: l.in, stop: make(chan struct{}), done: make(chan struct{})}
	if err := m.join(meta); err != nil {
		return nil, fmt.Errorf("master: %w", err)
	}
	if err := m.listen(); err != nil {
		return nil, fmt.Errorf("master: %w", m.closeLog(err))
	}
	go l.run(m.stop)
	go m.watch()
	return m, nil
}

// closeLog closes the log after a failed start and passes the cause on.
func (m *Master) closeLog(cause error) error {
	if m.net != nil {
		m.net.Close()
	}
	if err := m.log.Close(); err != nil {
		return fmt.Errorf("%w (and then: %w)", cause, err)
	}
	return cause
}

// listen opens both ports.
func (m *Master) listen() (err error) {
	cfg := link.Config{Key: m.cfg.Key, Role: wire.RoleMaster, Client: "varve " + m.cfg.Version, Log: m.cfg.Log, Metrics: m.cfg.Metrics}
	mounts, tools, chunkds := &mountDesk{m.in}, &adminDesk{m.in}, &chunkdDesk{m.in}
	m.clients, err = link.Listen(m.cfg.ClientAddr, cfg, func(r wire.Role) (link.Handler, error) {
		switch r {
		case wire.RoleMount:
			return mounts, nil
		case wire.RoleAdmin:
			return tools, nil
		}
		return nil, status.Errorf(status.Unsupported, "mounts and tools only on this port")
	})
	if err != nil {
		return fmt.Errorf("port for mounts: %w", err)
	}
	m.servers, err = link.Listen(m.cfg.ServerAddr, cfg, link.Only(chunkds, wire.RoleChunkd))
	if err != nil {
		m.clients.Close()
		return fmt.Errorf("port for chunkservers: %w", err)
	}
	m.loop.hangUp = func() {
		for _, s := range []*link.Server{m.clients, m.servers} {
			for _, c := range s.Conns() {
				c.Close()
			}
		}
	}
	return nil
}

// ClientAddr is where mounts and tools are served.
func (m *Master) ClientAddr() net.Addr { return m.clients.Addr() }

// ServerAddr is where chunkservers are served.
func (m *Master) ServerAddr() net.Addr { return m.servers.Addr() }

// Ready is nil while this master leads and serves.
func (m *Master) Ready() error {
	select {
	case <-m.loop.stopped:
		return status.Errorf(status.Closed, "the master has stopped")
	default:
	}
	if !m.loop.isReady.Load() {
		return status.Errorf(status.NotLeader, "the master has not read its changelog yet, or does not lead")
	}
	return nil
}

// Done is closed when the master has stopped, at Close's wish or because it
// cannot go on; Close says why.
func (m *Master) Done() <-chan struct{} { return m.done }

// Status is the whole cluster at a glance. It is never nil.
func (m *Master) Status() *wire.Status {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	answer := make(chan *wire.Status, 1)
	if m.in.post(func(l *loop) { answer <- l.status() }) {
		select {
		case s := <-answer:
			return s
		case <-m.loop.stopped:
		case <-ctx.Done():
		}
	}
	return &wire.Status{Version: m.cfg.Version, Time: time.Now().UnixNano(), Problems: []string{"the master does not answer"}}
}

// Close stops serving, writes an image and closes the changelog. Requests that
// were answered are in it. The error is why the master had to stop, if it had to.
func (m *Master) Close() error {
	m.once.Do(func() { close(m.stop) })
	<-m.done
	return m.err
}

// watch ends everything in order: no new requests, the loop, the log.
func (m *Master) watch() {
	<-m.loop.stopped
	m.in.close()
	m.clients.Close()
	m.servers.Close()
	m.loop.background.Wait()
	if m.net != nil {
		m.net.Close()
	}
	m.err = m.loop.err
	if err := m.log.Close(); m.err == nil {
		m.err = err
	}
	close(m.done)
}

// newClusterID makes the identity of a new cluster.
func newClusterID() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}
