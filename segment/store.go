package segment

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/status"
)

// Config says what a store is made of. Disk is needed, all else has a default.
type Config struct {
	Disk              engine.Disk
	Limit             uint64 // bytes to use at most; 0: what the file system has, less a reserve
	Share             int    // stores on that file system, each of which takes its part of what is free; 0: 1
	SegmentSize       uint32 // bytes, of a new store; 64 MiB
	ContainerSegments uint32 // segments in one file, of a new store; 8
	Metrics           *metrics.Set
	Log               *slog.Logger
	Create            *Identity // make a store if the disk has none; nil: refuse

	// Scrub is the time in which the whole store is read and checked, again and again; 0:
	// never. What was done survives a restart.
	Scrub time.Duration

	// SlowAfter is how long an operation of a good disk takes at most, FailAfter when one
	// is held for never ending; 0: 2 s and 60 s.
	SlowAfter, FailAfter time.Duration

	// offline is for Check and InspectIndex: no goroutine runs, and abandon ends it.
	offline bool

	// step is for tests: no goroutine runs by itself, and whoever waits calls step, which
	// ends one disk operation or reports that there is none.
	step func() bool
}

const (
	minSegments = 16 // segments that a store must have room for
	dataFloor   = 5  // free segments that data does not touch
	metaFloor   = 2  // free segments that only the cleaner touches
	reserved    = 10 // segments that are no room for data: open ones, and those above
	lsnSlack    = 1 << 32
)

// head is a place where the log grows. Guarded by Store.mu; n is constant.
type head struct {
	n       uint8
	seg     *segment // open segment, nil: none yet
	open    *frame   // frame that is filling, nil: none
	flight  []*frame // closed frames and seals in order
	seq     uint64   // number of the last frame that was closed
	durable mark
	names   []uint32 // chunks of the open frame, else of the last one that was closed
	broken  *segment // a write to it failed; nothing leaves until its frames are written elsewhere
}

// Store is the segment store of one disk. All methods may be called from several
// goroutines.
type Store struct {
	disk  engine.Disk
	log   *slog.Logger
	limit uint64
	share uint64
	step  func() bool
	stat  *stats

	queues bool // what is submitted to the disk from many goroutines shares system calls

	diskID  uint64 // these do not change once the store is open
	segSize uint32 // bytes of a segment
	perFile uint32 // segments of a container

	superMu   sync.Mutex // orders changes of the superblock; taken before mu
	superFile engine.File

	mu          sync.Mutex
	changed     *sync.Cond // frames done, segments freed, reads done
	super       super
	files       []engine.File // containers
	index       *index
	segs        []*segment
	written     []*segment // free, written before
	blank       []*segment // free, never written
	preparing   int        // free, in the hands of the preparer
	heads       [heads]head
	imports     map[uint64]*Import
	mergeable   map[chunk.ID]struct{}  // chunks that small writes have cut into many extents
	crowded     map[chunk.ID]time.Time // chunks of very many extents, and when one came last
	lsn         uint64                 // last LSN given out
	frameMax    uint32                 // bytes of a frame
	partMax     uint32                 // bytes of one data entry
	maxSegments int                    // segments that the limit allows
	stuck       bool                   // the cleaner found nothing that gives room
	failed      error                  // the disk is given up
	closing     bool
	faults      int   // failed writes
	retired     int   // segments that are never used again
	futile      int   // segments emptied since there was progress
	mostFree    int   // free segments when there was
	leastLive   int64 // live bytes when there was
	warned      bool  // that it is nearly full
	pacing      pacing
	plan        []*segment // to be emptied next

	health health
	scrub  scrubber

	ready  *frame   // to be handed to the engine by unlock
	lent   *frame   // whose buffers are to be given back by unlock
	acked  []*frame // to be called back by unlock
	acking bool     // somebody does that
	inKeep bool     // with step: the keeper's work is being done

	checkpoints checkpointing
	snap        *snapshot // nil: none is being taken

	events  chan Event
	keeper  chan struct{}
	prepare chan struct{}
	stop    chan struct{}
	workers sync.WaitGroup
}

// Info is what is known of one chunk.
type Info struct {
	Version chunk.Version
	Length  uint32 // bytes up to the end of the last data
	Writes  uint64 // writes taken at Version
}

// Range is a run of bytes of a chunk.
type Range struct{ Off, Len uint32 }

// Space is the state of a store's room in bytes.
type Space struct {
	Total  uint64 // that data can take
	Used   uint64 // by live data with its checksums
	Free   uint64 // for new data
	Chunks uint64
}

// EventKind says what an Event announces.
type EventKind uint8

// The events.
const (
	Damaged EventKind = iota + 1 // Chunk has bytes that fail their checksum; once for each chunk
	Lost                         // entries of the log that were durable are unreadable, and whose they are is not known
	Failed                       // the disk takes no more writes
)

// Event is what a store has to announce by itself.
type Event struct {
	Kind  EventKind
	Chunk chunk.ID
	Err   error
}

func (c *Config) defaults() {
	if c.SegmentSize == 0 {
		c.SegmentSize = 64 << 20
	}
	if c.ContainerSegments == 0 {
		c.ContainerSegments = 8
	}
	c.SlowAfter, c.FailAfter = cmp.Or(c.SlowAfter, slowAfter), cmp.Or(c.FailAfter, failAfter)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
}

// Open opens the store of a disk, or makes one if there is none and cfg.Create is set.
// After a crash it finds everything that was acknowledged; what is damaged is announced
// by Events and does not keep it from opening. The disk stays the caller's and must be
// open until the store is closed.
func Open(cfg Config) (*Store, error) {
	cfg.defaults()
	s := &Store{disk: cfg.Disk, log: cfg.Log, limit: cfg.Limit, share: uint64(max(cfg.Share, 1)), step: cfg.step, queues: strings.HasPrefix(cfg.Disk.Backend(), "uring"), imports: make(map[uint64]*Import), mergeable: make(map[chunk.ID]struct{}), crowded: make(map[chunk.ID]time.Time),
		events: make(chan Event, 1024), keeper: make(chan struct{}, 1), prepare: make(chan struct{}, 1), stop: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	s.index = newIndex(s.touched)
	s.health.enter, s.health.giveUp = cfg.SlowAfter, cfg.FailAfter
	for i := range s.heads {
		s.heads[i].n = uint8(i)
		s.heads[i].durable.seg = noSegment
	}
	var err error
	if s.superFile, s.super, err = openSuper(&cfg); err != nil {
		return nil, fmt.Errorf("open segment store: %w", err)
	}
	s.diskID, s.segSize, s.perFile = s.super.id.Disk, s.super.segment, s.super.perFile
	s.scrub.at = s.super.scrub
	s.stat = newStats(cfg.Metrics)
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open segment store: %w", err), s.closeFiles())
	}
	if s.step == nil && !cfg.offline {
		s.workers.Add(4)
		go s.keep()
		go s.checkpointLoop()
		go s.watch()
		if cfg.Scrub > 0 {
			s.workers.Add(1)
			go s.scrubLoop(cfg.Scrub)
		}
		go s.prepareLoop()
		s.wakeKeeper()
	}
	return s, nil
}

func (s *Store) open() error {
	s.partMax = min(1<<20, s.segSize/8&^(blockSize-1))
	s.frameMax = headerSize + s.partMax + blockSize
	s.lsn = s.super.lsn
	if err := s.changeSuper(func(p *super) { p.lsn += lsnStride }); err != nil {
		return err
	}
	if err := s.openContainers(); err != nil {
		return err
	}
	if err := s.recover(); err != nil {
		return err
	}
	if err := s.measure(); err != nil {
		return err
	}
	return s.growLeast()
}

// growLeast makes the containers without which a store cannot always take deletions and
// clean: later the host may have given their room to others. A store that has some
// already opens without.
func (s *Store) growLeast() error {
	for len(s.segs) < minSegments {
		fresh := len(s.segs) == 0
		if err := s.grow(); err != nil {
			if fresh {
				return err
			}
			return nil
		}
	}
	return nil
}

// changeSuper changes the superblock durably. mu is not held.
func (s *Store) changeSuper(change func(*super)) error {
	s.superMu.Lock()
	defer s.superMu.Unlock()
	s.mu.Lock()
	p := s.super
	s.unlock()
	change(&p)
	p.generation++
	if err := p.write(s.superFile, s.step); err != nil {
		s.mu.Lock()
		s.super.generation++ // the next change must not meet this one's copies
		s.unlock()
		return err
	}
	s.mu.Lock()
	s.super = p
	s.unlock()
	return nil
}

// openContainers opens the containers that the superblock counts, and removes one whose
// creation was cut short.
func (s *Store) openContainers() error {
	names, err := s.disk.List()
	if err != nil {
		return err
	}
	for _, name := range names {
		if n, ok := containerNumber(name); ok && n >= s.super.containers {
			s.log.Info("remove container that was never used", "file", name)
			if err := s.disk.Remove(name); err != nil {
				return err
			}
		}
	}
	want := int64(s.perFile) * int64(s.segSize)
	for n := range s.super.containers {
		f, err := s.disk.Open(containerName(n))
		if err != nil {
			return err
		}
		s.addContainer(f)
		if f.Size() != want {
			return fmt.Errorf("%s: %d bytes, %d expected", f.Name(), f.Size(), want)
		}
	}
	return nil
}

// nextLSN draws a number. mu is held.
func (s *Store) nextLSN() uint64 {
	s.lsn++
	if s.lsn == s.super.lsn-lsnSlack {
		s.wakeKeeper() // sets more numbers aside, long before these are used up
	}
	if s.lsn >= s.super.lsn {
		panic("BUG: log numbers used up")
	}
	return s.lsn
}

// Identity tells whose disk this is.
func (s *Store) Identity() Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.super.id
}

// SetCluster notes, durably, the cluster whose chunks the disk holds.
func (s *Store) SetCluster(cluster string) error {
	if len(cluster) > maxCluster {
		return status.Errorf(status.Invalid, "cluster name of %d bytes", len(cluster))
	}
	return s.changeSuper(func(p *super) { p.id.Cluster = cluster })
}

// SetServer notes, durably, the chunkserver that the disk belongs to.
func (s *Store) SetServer(server chunk.Server) error {
	return s.changeSuper(func(p *super) { p.id.Server = server })
}

// Epoch is the highest one given to SetEpoch.
func (s *Store) Epoch() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.super.epoch
}

// SetEpoch notes an epoch durably. A lower one than before changes nothing.
func (s *Store) SetEpoch(epoch uint64) error {
	if epoch <= s.Epoch() {
		return nil
	}
	return s.changeSuper(func(p *super) { p.epoch = max(p.epoch, epoch) })
}

// Events announces damage and failure. It is closed by Close. Who does not read it
// loses events of damage, not of failure.
func (s *Store) Events() <-chan Event { return s.events }

// announce sends an event and tells whether it could. mu is held.
func (s *Store) announce(e Event) bool {
	if s.closing {
		return false
	}
	for {
		select {
		case s.events <- e:
			return true
		default:
		}
		if e.Kind != Failed {
			return false
		}
		select { // mu is held: nobody else sends
		case <-s.events:
		default:
		}
	}
}

// announceDamage tells once of a chunk with bytes that cannot be trusted. mu is held.
func (s *Store) announceDamage(r *record, err error) {
	if r.flags&recDamaged != 0 {
		return
	}
	if !s.announce(Event{Kind: Damaged, Chunk: r.id, Err: err}) {
		return
	}
	r.flags |= recDamaged
	s.log.Error("damaged chunk", "chunk", r.id, "disk", s.diskID, "error", err)
}

// Close makes what was accepted durable, stops all goroutines and closes the files. The
// disk stays open. Calls under way end with status.Closed.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closing {
		s.unlock()
		return status.Errorf(status.Closed, "segment store")
	}
	s.closing = true
	close(s.stop)
	s.changed.Broadcast()
	s.drain()
	s.unlock()
	s.workers.Wait()
	s.mu.Lock()
	if s.drain() == nil {
		s.mark()
	}
	err := s.drain()
	last := err == nil && s.checkpoints.opened >= closeAfter
	s.unlock()
	if last {
		if err := s.checkpoint(false); err != nil {
			s.log.Warn("no checkpoint at the end", "disk", fmt.Sprintf("%016x", s.diskID), "error", err)
		}
	}
	s.mu.Lock()
	close(s.events)
	s.unlock()
	return errors.Join(err, s.closeFiles())
}

// drain waits until nothing is in flight and returns why the disk failed, if it has.
// mu is held.
func (s *Store) drain() error {
	for i := range s.heads {
		h := &s.heads[i]
		for len(h.flight) > 0 || h.open != nil {
			if s.failed != nil && len(h.flight) == 0 {
				break
			}
			if h.open != nil {
				s.want(h.open)
			}
			s.wait()
		}
	}
	return s.failed
}

func (s *Store) closeFiles() error {
	var errs []error
	for _, f := range append([]engine.File{s.superFile}, s.files...) {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

var _ io.Closer = (*Store)(nil)

// Space tells how much room there is.
func (s *Store) Space() Space {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := Space{Used: uint64(max(0, s.index.live)), Chunks: s.index.count}
	capacity := s.capacity()
	p.Total = uint64(max(0, capacity))
	if s.failed == nil {
		p.Free = uint64(max(0, capacity-s.index.live))
	}
	return p
}

// How full a store may get, in percent of what its segments hold without the reserve: the
// rest is what cleaning lives on. Deletions, trims and the cleaner are never refused.
const (
	fillWarn   = 85 // from here on it is told
	fillImport = 90 // no copies of chunks from elsewhere
	fillWrite  = 95 // no data at all
)

// capacity is the cost of live extents that the store takes, in bytes. mu is held.
func (s *Store) capacity() int64 { return s.level(fillWrite) }

// level is the cost of live extents at which the store is full to the given percentage. mu
// is held.
func (s *Store) level(percent int64) int64 {
	n := s.maxSegments - s.retired
	n -= max(reserved, n*3/100)
	return max(0, int64(n)) * s.payload() / 100 * percent
}

// payload is the cost of extents that a segment is sure to hold: what frame headers, the
// seal and the end that is too short for another frame leave.
func (s *Store) payload() int64 {
	part := int64(s.partMax)
	usable := int64(s.segSize) - part*3/4 - 2*blockSize
	return usable * part / (part + headerSize)
}

// Stat tells what is known of a chunk, and whether there is one.
func (s *Store) Stat(id chunk.ID) (Info, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.index.find(id)
	if r == nil || !r.alive() {
		return Info{}, false
	}
	return r.info(), true
}

func (r *record) info() Info {
	return Info{Version: r.version, Length: r.length, Writes: uint64(r.writes)}
}

// Chunks calls fn for every chunk, in no order, until it returns false. Chunks that come
// or go meanwhile may be seen or not. fn may call the store.
func (s *Store) Chunks(fn func(chunk.ID, Info) bool) {
	s.mu.Lock()
	ids := make([]chunk.ID, 0, s.index.count)
	for id := range s.index.table {
		ids = append(ids, id)
	}
	s.unlock()
	for _, id := range ids {
		if info, ok := s.Stat(id); ok && !fn(id, info) {
			return
		}
	}
}
