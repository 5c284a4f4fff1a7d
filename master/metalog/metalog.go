// Package metalog is the metalogger: a voter of the changelog that keeps the
// log and the images of the tree, but no tree. With two masters it is the third
// vote; with its files alone a master can be started anew.
//
// It wants no power: its candidacies are held back, and when it has to lead,
// because no master has all of the log, it brings one up to date and hands over.
// It serves nobody but other voters.
//
// cmd/varve starts it. One goroutine (run) reads what the log commits and
// forgets it; another one (collect) fetches images from the masters and lets go of
// what is old (prune.go). They share
// nothing but the log and the directory.
package metalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/varvefs/varve/master/image"
	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/master/voters"
	"github.com/varvefs/varve/wire"
)

// Config says who this voter is. All but Keep, HTTP, Sync, Metrics and Log must be set.
type Config struct {
	Dir      string // log and images; made if missing
	Key      []byte // of the cluster
	ID       uint64
	Peers    map[uint64]string // host:port of all voters, this one's too
	RaftAddr string            // listen for them here
	Name     string            // in status
	Version  string
	HTTP     string        // of the web page, for status
	Keep     time.Duration // how long log and images are kept while there is room; default 24 h
	Sync     string        // durability: fsync (default) or quorum
	Metrics  *metrics.Set
	Log      *slog.Logger
}

const (
	imagesKept   = 2 // at least, while there is room
	collectEvery = 2 * time.Second
	handEvery    = 20 * time.Millisecond
)

// Metalogger is a running metalogger. Its methods may be called from any goroutine.
type Metalogger struct {
	cfg    Config
	begun  time.Time
	net    *voters.Net
	log    *journal.Log
	opened atomic.Pointer[journal.Log]
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	short  bool          // the disk is nearly full; of collect, as the next one
	kept   time.Duration // while it is, how long things are kept
	image  atomic.Uint64 // index of the newest image
	index  atomic.Uint64 // of the last entry that was committed
	done   chan struct{}
	once   sync.Once
	err    error // read after done
}

// Start opens the log and joins the other voters.
func Start(cfg Config) (*Metalogger, error) {
	if cfg.Peers[cfg.ID] == "" || len(cfg.Peers) < 2 || cfg.RaftAddr == "" {
		return nil, fmt.Errorf("metalogger: voter %d must be one of several peers, which are %v", cfg.ID, cfg.Peers)
	}
	if cfg.Keep == 0 {
		cfg.Keep = 24 * time.Hour
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.NewSet()
	}
	m := &Metalogger{cfg: cfg, begun: time.Now(), done: make(chan struct{})}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	if err := m.open(); err != nil {
		m.cancel()
		return nil, fmt.Errorf("metalogger: %w", err)
	}
	m.wg.Go(m.collect)
	go m.run()
	return m, nil
}

func (m *Metalogger) open() error {
	cfg := m.cfg
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return err
	}
	jc := journal.Config{
		Dir: filepath.Join(cfg.Dir, "log"), ID: cfg.ID, SyncMode: cfg.Sync, Reluctant: true, BackLogs: -1,
		Log: cfg.Log, Metrics: cfg.Metrics,
	}
	newest, err := m.Newest()
	if err == nil {
		meta, err := image.MetaOf(image.File{Path: newest.Path, Index: newest.Index})
		if err != nil {
			return err
		}
		jc.Applied, jc.AppliedTerm = meta.Index, meta.Term
		m.image.Store(meta.Index)
		m.index.Store(meta.Index)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for id := range cfg.Peers {
		jc.Peers = append(jc.Peers, id)
	}
	slices.Sort(jc.Peers)
	m.net, err = voters.Start(voters.Config{
		ID: cfg.ID, Own: cfg.Peers[cfg.ID], Listen: cfg.RaftAddr, Peers: cfg.Peers, Key: cfg.Key, Version: cfg.Version,
		Self: m.beat, Images: m, Log: cfg.Log, Metrics: cfg.Metrics,
	})
	if err != nil {
		return err
	}
	jc.Transport = m.net
	jc.Addrs, jc.Await, jc.Changed = cfg.Peers, true, m.net.Follow
	jc.Fetch = (&voters.Fetcher{
		Net: m.net, Dir: cfg.Dir,
		Adopt: func(dir, path string) (uint64, uint64, error) {
			_, meta, err := image.Adopt(dir, path)
			return meta.Index, meta.Term, err
		},
		Done: func(index, term uint64) {
			m.image.Store(index)
			m.opened.Load().Install(index, term)
		},
	}).Fetch
	if m.log, err = journal.Open(jc); err != nil {
		m.net.Close()
		return err
	}
	m.opened.Store(m.log)
	m.net.Attach(m.log)
	return nil
}

// run reads the log until it ends and hands over leadership when it has it.
func (m *Metalogger) run() {
	t := time.NewTicker(handEvery)
	defer t.Stop()
	defer m.end()
	for {
		select {
		case list, open := <-m.log.Committed():
			if !open {
				return
			}
			for i := range list {
				if list[i].Index > 0 {
					m.index.Store(list[i].Index)
				}
			}
		case lead := <-m.log.Leading():
			if lead.Leader {
				m.cfg.Log.Warn("the metalogger leads, since no master has all of the log; handing over", "term", lead.Term)
				m.handOver()
			}
		case <-t.C:
			m.handOver()
		}
	}
}

// handOver gives leadership to the master that has most of the log.
func (m *Metalogger) handOver() {
	s := m.log.Status()
	if s.Leader != m.cfg.ID {
		return
	}
	masters := map[uint64]bool{}
	for _, b := range m.net.Beats() {
		masters[b.ID] = b.What == wire.VoterMaster
	}
	var best journal.Peer
	for _, p := range s.Peers {
		if masters[p.ID] && p.Active && !p.Learner && (best.ID == 0 || p.Match > best.Match) {
			best = p
		}
	}
	if best.ID != 0 {
		m.log.Handover(best.ID, "it is a metalogger, which cannot serve")
	}
}

// collect fetches images that are newer than the newest one here, and lets go
// of what is older than Config.Keep.
func (m *Metalogger) collect() {
	t := time.NewTicker(collectEvery)
	defer t.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-t.C:
		}
		for _, b := range m.net.Beats() {
			if b.What != wire.VoterMaster || b.ImageAt <= m.image.Load() || b.ImageAt > m.index.Load() {
				continue
			}
			if err := m.fetch(b.Raft, b.ImageAt); err != nil && m.ctx.Err() == nil {
				m.cfg.Log.Warn("metalogger: no image", "from", b.Raft, "err", err)
			}
		}
		if err := m.prune(); err != nil {
			m.cfg.Log.Error("metalogger: cannot remove what is old", "err", err)
		}
	}
}

func (m *Metalogger) fetch(addr string, index uint64) error {
	offer, path, err := m.net.Fetch(m.ctx, addr, index, m.cfg.Dir)
	if err != nil {
		return err
	}
	file, _, err := image.Adopt(m.cfg.Dir, path)
	if err != nil {
		return err
	}
	m.image.Store(file.Index)
	m.cfg.Log.Info("image fetched", "file", file.Path, "index", offer.Index, "bytes", file.Size, "from", addr)
	return nil
}

// Newest implements voters.Images.
func (m *Metalogger) Newest() (voters.Image, error) {
	list, err := image.List(m.cfg.Dir)
	if err != nil {
		return voters.Image{}, err
	}
	if len(list) == 0 {
		return voters.Image{}, fs.ErrNotExist
	}
	return voters.Image{Path: list[0].Path, Index: list[0].Index, Size: list[0].Size}, nil
}

// Open implements voters.Images.
func (m *Metalogger) Open(index uint64) (*os.File, error) {
	list, err := image.List(m.cfg.Dir)
	if err != nil {
		return nil, err
	}
	for _, f := range list {
		if f.Index == index {
			return os.Open(f.Path)
		}
	}
	return nil, fs.ErrNotExist
}

// beat is what other voters hear of this one.
func (m *Metalogger) beat() wire.VoterBeat {
	b := wire.VoterBeat{
		ID: m.cfg.ID, What: wire.VoterMetalogger, Name: m.cfg.Name, Version: m.cfg.Version, Pid: uint32(os.Getpid()),
		Raft: m.cfg.Peers[m.cfg.ID], HTTP: m.cfg.HTTP, Applied: m.index.Load(), ImageAt: m.image.Load(), Uptime: uint64(time.Since(m.begun)),
	}
	if log := m.opened.Load(); log != nil {
		s := log.Status()
		b.Term, b.Leader, b.Commit, b.Last = s.Term, s.Leader, s.Commit, s.Last
	}
	return b
}

// Log is the changelog, for those who decide about elections.
func (m *Metalogger) Log() *journal.Log { return m.log }

// Addr is where other voters are served.
func (m *Metalogger) Addr() string { return m.net.Addr().String() }

// Ready is nil while this voter follows a leader or leads.
func (m *Metalogger) Ready() error {
	select {
	case <-m.done:
		return errors.New("the metalogger has stopped")
	default:
	}
	if m.log.Status().Leader == 0 {
		return errors.New("no leader is known")
	}
	return nil
}

// Done is closed when the metalogger has stopped; Close says why.
func (m *Metalogger) Done() <-chan struct{} { return m.done }

// Close hands over if it leads, and ends. The error is why it had to stop, if it had to.
func (m *Metalogger) Close() error {
	m.once.Do(func() { _ = m.log.Close() }) // its error is Err's, which end keeps
	<-m.done
	return m.err
}

// end runs when the log has ended.
func (m *Metalogger) end() {
	m.cancel()
	m.net.Close()
	m.wg.Wait()
	m.err = m.log.Close()
	close(m.done)
}
