package chunkd

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine/open"
	"github.com/varvefs/varve/segment"
	"github.com/varvefs/varve/status"
)

// shelf is the set of disks. Their places are fixed at start; a disk that fails stays
// in its place, marked, until it is put back (revive.go).
type shelf struct {
	places  atomic.Pointer[[]*disk] // replaced, never changed
	server  chunk.Server            // the same on all disks, for life
	cluster string                  // "" until a master has told; changed by agents under Server.mu
	epoch   uint64                  // highest on any disk at start
}

// all lists the disks in the order of their directories.
func (s *shelf) all() []*disk { return *s.places.Load() }

// openShelf opens all disks. Those that were used before say who this server
// is; empty ones are made for it. A disk that cannot be opened is an error,
// unless another one can: then it counts as failed and its chunks as lost.
func openShelf(cfg *Config, o owner) (*shelf, error) {
	s := new(shelf)
	s.places.Store(new([]*disk))
	var empty []*disk
	var first error
	for _, dir := range cfg.Dirs {
		d, fresh, err := openDisk(cfg, dir, o)
		switch {
		case err != nil:
			cfg.Log.Error("disk cannot be used", "dir", dir, "err", err)
			d.markFailed(err)
			d.gone.Store(true)
			first = cmpErr(first, fmt.Errorf("disk %s: %w", dir, err))
		case fresh:
			empty = append(empty, d)
		default:
			if err := s.adopt(d); err != nil {
				s.close()
				d.close()
				return nil, err
			}
		}
		all := append(slices.Clone(s.all()), d)
		s.places.Store(&all)
	}
	if s.server == 0 && first != nil {
		// Without a disk that knows it, a new identity would be drawn.
		s.close()
		return nil, first
	}
	if s.server == 0 {
		s.server = chunk.Server(random())
	}
	for _, d := range empty {
		id := segment.Identity{Disk: random(), Server: s.server, Cluster: s.cluster}
		if err := d.openStore(cfg, &id); err != nil {
			s.close()
			return nil, fmt.Errorf("disk %s: %w", d.path, err)
		}
	}
	s.dropDoubles(cfg)
	return s, nil
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// random draws an identity that is not 0.
func random() uint64 {
	var b [8]byte
	for {
		rand.Read(b[:])
		if id := binary.LittleEndian.Uint64(b[:]); id != 0 {
			return id
		}
	}
}

// adopt checks that a used disk belongs to the others.
func (s *shelf) adopt(d *disk) error {
	id := d.store.Identity()
	if s.server == 0 {
		s.server = id.Server
	}
	if id.Server != s.server {
		return fmt.Errorf("%s belongs to chunkserver %v, %s to %v; give each chunkserver its own directories", s.all()[0].path, s.server, d.path, id.Server)
	}
	if s.cluster == "" {
		s.cluster = id.Cluster
	}
	if id.Cluster != "" && id.Cluster != s.cluster {
		return fmt.Errorf("%s belongs to cluster %s, another directory of this server to %s", d.path, id.Cluster, s.cluster)
	}
	for _, o := range s.all() {
		if o.store != nil && o.store.Identity().Disk == id.Disk {
			return fmt.Errorf("%s is a copy of %s (the same disk %016x); use one of them", d.path, o.path, id.Disk)
		}
	}
	s.epoch = max(s.epoch, d.store.Epoch())
	return nil
}

// dropDoubles removes the older copy of chunks that are on two disks, as after
// a disk that had failed comes back.
func (s *shelf) dropDoubles(cfg *Config) {
	type place struct {
		d *disk
		v chunk.Version
	}
	if len(s.all()) < 2 {
		return
	}
	seen := make(map[chunk.ID]place)
	drop := make(map[*disk][]chunk.ID)
	for _, d := range s.alive() {
		d.store.Chunks(func(id chunk.ID, info segment.Info) bool {
			old, double := seen[id]
			switch {
			case double && old.v >= info.Version:
				drop[d] = append(drop[d], id)
				return true
			case double:
				drop[old.d] = append(drop[old.d], id)
			}
			seen[id] = place{d, info.Version}
			return true
		})
	}
	for d, ids := range drop {
		cfg.Log.Warn("chunks that are also on another disk are removed", "dir", d.path, "chunks", len(ids))
		if err := d.store.Delete(ids); err != nil {
			d.check(err)
		}
	}
}

// alive lists the disks that have not failed.
func (s *shelf) alive() []*disk {
	list := make([]*disk, 0, len(s.all()))
	for _, d := range s.all() {
		if d.ok() {
			list = append(list, d)
		}
	}
	return list
}

// find returns the disk that has a copy, and what it says of it.
func (s *shelf) find(id chunk.ID) (*disk, segment.Info, error) {
	for _, d := range s.all() {
		if d.ok() {
			if info, ok := d.store.Stat(id); ok {
				return d, info, nil
			}
		}
	}
	return nil, segment.Info{}, status.Errorf(status.NoChunk, "chunk %v", id)
}

// findAt is find for a copy whose version must be in lo..hi.
func (s *shelf) findAt(id chunk.ID, lo, hi chunk.Version) (*disk, segment.Info, error) {
	d, info, err := s.find(id)
	if err == nil && (info.Version < lo || info.Version > hi) {
		err = status.Errorf(status.StaleVersion, "chunk %v: version %v here, %v..%v asked for", id, info.Version, lo, hi)
	}
	return d, info, err
}

// roomiest picks the disk for a new chunk: the one with the most free space, a slow one
// only if there is no other with room.
func (s *shelf) roomiest() (*disk, error) {
	var best *disk
	var most uint64
	for _, d := range s.all() {
		if !d.ok() {
			continue
		}
		free := d.store.Space().Free
		if _, slow := d.store.Slow(); slow {
			free /= slowShare
		}
		if best == nil || free > most {
			best, most = d, free
		}
	}
	if best == nil {
		return nil, status.Errorf(status.DiskFailed, "all disks of this server")
	}
	return best, nil
}

// slowShare is how many times as much room a slow disk must have to be chosen.
const slowShare = 1 << 20

// setEpoch makes an epoch durable. One disk would do; all are asked, so that
// any of them may fail later.
func (s *shelf) setEpoch(epoch uint64) error {
	var err error
	done := 0
	for _, d := range s.alive() {
		if e := d.store.SetEpoch(epoch); e != nil {
			d.check(e)
			err = e
			continue
		}
		done++
	}
	if done > 0 {
		return nil
	}
	if err == nil {
		err = status.Errorf(status.DiskFailed, "all disks of this server")
	}
	return fmt.Errorf("epoch %d cannot be stored: %w", epoch, err)
}

// setCluster notes on all disks which cluster they belong to.
func (s *shelf) setCluster(name string) error {
	for _, d := range s.alive() {
		if d.store.Identity().Cluster != name {
			if err := d.store.SetCluster(name); err != nil {
				return fmt.Errorf("disk %s: %w", d.path, err)
			}
		}
	}
	s.cluster = name
	return nil
}

func (s *shelf) close() error {
	var errs []error
	for _, d := range s.all() {
		errs = append(errs, d.close())
	}
	return errors.Join(errs...)
}

// openDisk opens the directory or device and, unless it is fresh, its store. Fresh is one that is
// empty, or in which the making of a store was cut short before it held anything.
func openDisk(cfg *Config, dir string, o owner) (d *disk, fresh bool, err error) {
	d = &disk{path: dir, log: cfg.Log, owner: o}
	d.reads.limit = readLane
	if err := makeDir(dir); err != nil {
		return d, false, err
	}
	if d.dir, err = os.Stat(dir); err != nil {
		return d, false, err
	}
	if d.eng, err = open.Open(dir, cfg.Backend, cfg.Log); err != nil {
		return d, false, err
	}
	d.backend = d.eng.Backend()
	files, err := d.eng.List()
	fresh = len(files) == 0
	if err == nil && !fresh {
		fresh, err = segment.Unmade(d.eng)
	}
	if err == nil && !fresh {
		err = d.openStore(cfg, nil)
	}
	if err != nil {
		d.eng.Close()
	}
	return d, fresh, err
}

// makeDir makes a directory unless there is something: a directory, or a device. What is
// missing below /dev is a device that is not there, and not for us to make.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if strings.HasPrefix(filepath.Clean(dir), "/dev/") {
		return fmt.Errorf("there is no device %s: %w", dir, fs.ErrNotExist)
	}
	return os.MkdirAll(dir, 0o700)
}

// openStore opens the disk's store, or makes it for an identity.
func (d *disk) openStore(cfg *Config, create *segment.Identity) error {
	store, err := segment.Open(segment.Config{
		Disk: d.eng, Limit: cfg.Limit, Share: cfg.Share, Scrub: cfg.Scrub, SlowAfter: cfg.SlowAfter, SegmentSize: segmentSize(cfg), ContainerSegments: cfg.ContainerSegments,
		Metrics: cfg.Metrics, Log: cfg.Log.With("dir", d.path), Create: create,
	})
	if err != nil {
		return err
	}
	d.store, d.id = store, store.Identity().Disk
	d.watched = make(chan struct{})
	go d.watch()
	return nil
}

// Bounds of the segments of a new store. A small store gets small ones, so that
// there are enough of them to clean one while others fill.
const (
	minSegment  = 4 << 20
	maxSegment  = 64 << 20
	segmentsMin = 64
)

// segmentSize chooses the size of the segments of a new store, in bytes.
func segmentSize(cfg *Config) uint32 {
	if cfg.SegmentSize != 0 || cfg.Limit == 0 {
		return cfg.SegmentSize
	}
	size := uint32(maxSegment)
	for size > minSegment && cfg.Limit/uint64(size) < segmentsMin {
		size /= 2
	}
	return size
}
