package chunkd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/segment"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// Server is a running chunkserver.
type Server struct {
	cfg     Config
	log     *slog.Logger
	met     *meters
	shelf   *shelf
	fence   *fence
	tokens  *tokens
	peers   *peers
	lending lending
	ln      *link.Server
	agents  []*agent
	syncs   lane
	orders  lane
	copies  lane

	ctx     context.Context // over when Close begins
	stop    context.CancelFunc
	closing atomic.Bool
	wg      sync.WaitGroup // agents and the prober
	once    sync.Once
	closed  error // result of Close

	mu     sync.Mutex // guards shelf.cluster and what follows
	broken map[chunk.ID]struct{}
}

// Start opens the disks, listens, and begins to register with the masters. It
// returns when data can be served; whether a master has taken the server up is
// what Ready tells.
func Start(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("chunkserver: %w", err)
	}
	s := &Server{cfg: cfg, log: cfg.Log, met: newMeters(cfg.Metrics), tokens: newTokens(cfg.Key), broken: make(map[chunk.ID]struct{})}
	s.syncs.limit, s.orders.limit, s.copies.limit = orderLane, orderLane, replicateLane
	s.ctx, s.stop = context.WithCancel(context.Background())
	lc := link.Config{Key: cfg.Key, Role: wire.RoleChunkd, Want: wire.RoleMaster, Client: cfg.Version, Log: cfg.Log, Metrics: cfg.Metrics, IdleTimeout: cfg.IdleTimeout, HeadRoom: segment.HeadRoom}
	for _, addr := range cfg.Masters { // before the disks, which may have news for them
		s.agents = append(s.agents, &agent{s: s, addr: addr, link: lc, wake: make(chan struct{}, 1)})
	}
	if s.shelf, err = openShelf(&cfg, s); err != nil {
		return nil, fmt.Errorf("chunkserver: %w", err)
	}
	s.met.disks(s.shelf)
	s.fence = newFence(s.shelf.epoch, s.shelf.setEpoch)
	lc.Want = wire.RoleChunkd
	s.peers = newPeers(lc, cfg.DialTimeout)
	s.openLending()
	s.ln, err = link.Listen(cfg.DataAddr, lc, link.Only(link.HandlerFunc(s.serve), wire.RoleMount, wire.RoleChunkd))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("chunkserver: %w", err), s.lending.close(), s.shelf.close())
	}
	for _, a := range s.agents {
		s.wg.Add(1)
		go a.run()
	}
	s.wg.Add(1)
	go s.probe()
	return s, nil
}

// Addr is where data is served.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// ID is the identity that the server keeps on its disks.
func (s *Server) ID() chunk.Server { return s.shelf.server }

// Ready is nil when a disk serves and a master has taken the server up.
func (s *Server) Ready() error {
	if s.closing.Load() {
		return errors.New("the server is stopping")
	}
	if len(s.shelf.alive()) == 0 {
		return errors.New("all disks have failed")
	}
	for _, a := range s.agents {
		if a.registered() {
			return nil
		}
	}
	return errors.New("no master has registered this server yet")
}

// Close stops taking requests, lets those under way finish for at most
// Config.StopTimeout, and closes the disks in good order.
func (s *Server) Close() error {
	s.once.Do(func() {
		s.closing.Store(true)
		for end := time.Now().Add(s.cfg.StopTimeout); s.met.queue.Load() > 0 && time.Now().Before(end); {
			time.Sleep(2 * time.Millisecond)
		}
		s.stop()
		s.peers.close()
		err := s.ln.Close()
		s.wg.Wait()
		s.closed = errors.Join(err, s.lending.close(), s.shelf.close())
	})
	return s.closed
}

// probe looks after the disks' directories.
func (s *Server) probe() {
	defer s.wg.Done()
	t := time.NewTicker(s.probeEvery())
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-t.C:
			for _, d := range s.shelf.alive() {
				d.probe()
			}
			s.revive()
		}
	}
}

func (s *Server) probeEvery() time.Duration {
	if s.cfg.Beat > 0 {
		return s.cfg.Beat
	}
	return time.Second
}

// serve is the desk of mounts and other chunkservers.
func (s *Server) serve(c *link.Conn, r *link.Request) {
	if !s.enter(r) {
		return
	}
	switch r.Kind {
	case wire.KindWrite:
		s.write(r)
	case wire.KindRead:
		s.read(r)
	case wire.KindSync:
		s.sync(r)
	case wire.KindMap:
		s.mapRanges(r)
	case wire.KindPlaces:
		s.places(r)
	case wire.KindLend:
		s.lend(c, r)
	case wire.KindPing:
		r.Free()
		r.Reply(nil, nil, nil)
		s.leave()
	default:
		k := r.Kind
		r.Free()
		s.refuse(r, status.Errorf(status.Unsupported, "request of kind %#x at a chunkserver", uint16(k)))
	}
}

// enter counts a request in, unless the server is stopping.
func (s *Server) enter(r *link.Request) bool {
	s.met.queue.Add(1)
	if !s.closing.Load() {
		return true
	}
	r.Free()
	s.refuse(r, status.Errorf(status.Closed, "the chunkserver is stopping"))
	return false
}

// leave counts a request out when it is answered.
func (s *Server) leave() { s.met.queue.Add(-1) }

// refuse answers with an error and counts the request out.
func (s *Server) refuse(r *link.Request, err error) {
	s.met.failed(err)
	r.Fail(err)
	s.leave()
}

// lost is called when a disk has failed.
func (s *Server) lost(d *disk) {
	copies := d.chunks()
	ids := make([]chunk.ID, len(copies))
	for i := range copies {
		ids[i] = copies[i].Chunk
	}
	for _, a := range s.agents {
		a.tell(func(n *news) { n.lost = append(n.lost, ids...) }, true)
	}
}

// damaged notes chunks whose bytes do not match their checksums, or may not be
// the last ones, and tells the masters, once.
func (s *Server) damaged(d *disk, ids ...chunk.ID) {
	s.mu.Lock()
	ids = slices.DeleteFunc(slices.Clone(ids), func(id chunk.ID) bool {
		_, known := s.broken[id]
		s.broken[id] = struct{}{}
		return known
	})
	s.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	d.bad.Add(uint64(len(ids)))
	for _, a := range s.agents {
		a.tell(func(n *news) { n.damaged = append(n.damaged, ids...) }, true)
	}
}

// renewed forgets that a chunk was damaged: the copy is new, or gone.
func (s *Server) renewed(id chunk.ID) {
	s.fence.forget(id)
	s.mu.Lock()
	delete(s.broken, id)
	s.mu.Unlock()
}

// brokenChunks lists the damaged copies that nobody has replaced yet.
func (s *Server) brokenChunks() []chunk.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]chunk.ID, 0, len(s.broken))
	for id := range s.broken {
		ids = append(ids, id)
	}
	return ids
}

// appeared notes a new copy for the next report.
func (s *Server) appeared(id chunk.ID) {
	for _, a := range s.agents {
		a.tell(func(n *news) { n.made = append(n.made, id) }, false)
	}
}

// raised notes a copy's new version for the next report.
func (s *Server) raised(id chunk.ID) {
	for _, a := range s.agents {
		a.tell(func(n *news) { n.raised = append(n.raised, id) }, false)
	}
}

// removed notes copies that were removed, for masters that did not order it.
func (s *Server) removed(ids []chunk.ID) {
	for _, a := range s.agents {
		a.tell(func(n *news) { n.gone = append(n.gone, ids...) }, false)
	}
}
