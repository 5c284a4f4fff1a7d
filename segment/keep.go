package segment

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/varvefs/varve/engine"
)

// wakeKeeper lets the keeper look for work. It does not block.
func (s *Store) wakeKeeper() {
	select {
	case s.keeper <- struct{}{}:
	default:
	}
}

// wakePreparer lets the preparer look for work. It does not block.
func (s *Store) wakePreparer() {
	select {
	case s.prepare <- struct{}{}:
	default:
	}
}

// keep is the keeper: it makes sure that there are free segments.
func (s *Store) keep() {
	defer s.workers.Done()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-s.stop:
			return
		case <-s.keeper:
		case <-tick.C:
			s.tick(n)
		}
		for s.keepOnce() {
		}
	}
}

// tick does what is due every second.
func (s *Store) tick(n int) {
	s.mu.Lock()
	if s.usable() == nil {
		s.mark()
		if s.index.live <= s.level(fillWarn) {
			s.warned = false
		} else if !s.warned {
			s.warned = true
			s.log.Warn("disk is nearly full; add disks or delete files", "disk", fmt.Sprintf("%016x", s.diskID), "live_bytes", s.index.live,
				"refuses_copies_at", s.level(fillImport), "refuses_writes_at", s.level(fillWrite))
		}
	}
	s.unlock()
	if n%10 == 0 {
		if err := s.measure(); err != nil {
			s.log.Warn("free space", "disk", s.diskID, "error", err)
		}
	}
}

// keepOnce does one piece of the keeper's work and tells whether there may be more.
func (s *Store) keepOnce() bool {
	s.mu.Lock()
	grow := s.atHand() < growAhead && len(s.segs) < s.maxSegments
	lsn := s.lsn >= s.super.lsn-lsnSlack
	ok := s.usable() == nil
	s.unlock()
	if !ok {
		return false
	}
	if lsn {
		if err := s.changeSuper(func(p *super) { p.lsn += lsnStride }); err != nil {
			s.log.Error("superblock", "error", err)
			return false
		}
	}
	if grow && s.grow() == nil {
		return true
	}
	return s.clean() || s.merge() || s.step != nil && s.checkpointIfDue()
}

// growAhead is how many segments the keeper has ready to be opened at any time.
const growAhead = dataFloor + 8

// lowWater is the number of free segments, made or not, below which the keeper cleans. mu
// is held.
func (s *Store) lowWater() int { return dataFloor + max(2, s.maxSegments/100) }

// pressed is the number of free segments up to which it cleans in haste. mu is held.
func (s *Store) pressed() int { return dataFloor + max(2, s.maxSegments/256) }

// cheap is the number of live bytes below which a segment is emptied even if there is
// no need. mu is held.
func (s *Store) cheap() int64 { return int64(s.segSize) / 32 }

// measure finds out how many segments the store may have. mu is not held.
func (s *Store) measure() error {
	limit := s.limit
	if limit == 0 {
		total, free, err := s.disk.Space()
		if err != nil {
			return err
		}
		s.mu.Lock()
		own := uint64(len(s.segs)) * uint64(s.segSize)
		s.unlock()
		limit = own
		if keep := total / 100 * 3; free > keep {
			limit += (free - keep) / s.share
		}
	}
	s.mu.Lock()
	defer s.unlock()
	n := min(limit/uint64(s.segSize), math.MaxInt32)
	n -= n % uint64(s.perFile)
	s.maxSegments = max(int(n), len(s.segs))
	if s.maxSegments < minSegments {
		return fmt.Errorf("room for %d segments of %d bytes; %d are the least", n, s.segSize, minSegments)
	}
	return nil
}

// grow adds a container. A full file system lowers the limit instead.
func (s *Store) grow() error {
	s.mu.Lock()
	n := s.super.containers
	size := int64(s.perFile) * int64(s.segSize)
	s.unlock()
	f, err := s.disk.Create(containerName(n), size)
	if err == nil {
		if err = s.changeSuper(func(p *super) { p.containers = n + 1 }); err != nil {
			err = errors.Join(err, f.Close())
		}
	}
	s.mu.Lock()
	defer s.unlock()
	if err != nil {
		s.maxSegments = len(s.segs) // until it is measured again
		s.changed.Broadcast()
		s.log.Error("no new container", "disk", s.diskID, "error", err)
		return err
	}
	fresh := slices.Clone(s.addContainer(f))
	slices.Reverse(fresh)
	s.blank = append(fresh, s.blank...) // pick takes from the end
	s.changed.Broadcast()
	s.wakePreparer()
	return nil
}

// markFree makes a segment one that was emptied, durably: nothing it holds can count
// any more. One end is written after the other, so that at any moment the other one
// tells what the segment is. endTells says that its last block does: that is a seal, or
// the free mark from before a life that has not begun. Else its first frame tells. mu is
// not held.
func (s *Store) markFree(g *segment, endTells bool) error {
	s.mu.Lock()
	lsn := s.nextLSN()
	for i := range s.heads {
		if d := &s.heads[i].durable; d.seg == g.n { // from here on no frame says that g has it
			d.seg, d.end = noSegment, 0
		}
	}
	s.unlock()
	if endTells {
		return s.markEnds(g, lsn, 0, s.segSize-blockSize)
	}
	return s.markEnds(g, lsn, s.segSize-blockSize, 0)
}

// markEnds writes free marks to the given blocks of a segment, one after the other. mu
// is not held.
func (s *Store) markEnds(g *segment, lsn uint64, ends ...uint32) error {
	b := engine.Alloc(blockSize)
	defer engine.Free(b)
	m := free{disk: s.diskID, seg: g.n, lsn: lsn}
	m.put(b)
	for _, off := range ends {
		if err := do(g.file, engine.WriteSync, b, g.base+int64(off), s.step); err != nil {
			return err
		}
	}
	return nil
}

// prepareLoop is the preparer: it fills new segments with zeros, so that a synced write
// to them costs no change of the file system's books. On ext4 a frame of 8 KiB took 0.22
// ms in a segment that was written before and 0.52 ms in a new one.
func (s *Store) prepareLoop() {
	defer s.workers.Done()
	for {
		for s.prepareOne() {
		}
		select {
		case <-s.stop:
			return
		case <-s.prepare:
		}
	}
}

// preparedAhead is how many segments that were written before are kept at hand.
const preparedAhead = 2

// prepareOne prepares a segment if there are too few and tells whether it did.
func (s *Store) prepareOne() bool {
	s.mu.Lock()
	n := len(s.blank)
	if len(s.written) >= preparedAhead || n == 0 || s.usable() != nil {
		s.unlock()
		return false
	}
	g := s.blank[n-1]
	s.blank = s.blank[:n-1]
	g.state = segPrepare
	s.preparing++
	s.unlock()
	err := s.zeroFill(g)
	s.mu.Lock()
	defer s.unlock()
	s.preparing--
	s.changed.Broadcast() // in any case: a head that found none but this one waits
	if err != nil {
		if s.usable() == nil {
			s.log.Warn("segment not prepared", "segment", g.n, "error", err)
		}
		g.state = segBlank
		s.blank = append(s.blank, g)
		return false
	}
	g.state = segFree
	s.written = append(s.written, g)
	return true
}

// zeroFill writes zeros over a segment, at half of the speed that the disk has at the
// time: nobody waits for it.
func (s *Store) zeroFill(g *segment) error {
	const step = 1 << 20
	for off := int64(0); off < int64(s.segSize); off += step {
		began := time.Now()
		if err := g.file.Zero(g.base+off, min(step, int64(s.segSize)-off)); err != nil {
			return err
		}
		select {
		case <-s.stop:
			return errors.New("store is closed")
		case <-time.After(time.Since(began)):
		}
	}
	if err := do(g.file, engine.Sync, nil, 0, s.step); err != nil {
		return err
	}
	return s.markFree(g, false)
}
