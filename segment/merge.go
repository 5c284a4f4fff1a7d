package segment

import (
	"time"

	"github.com/varvefs/varve/chunk"
)

// Merging bounds what small writes cost later. A file that is written a hundred bytes at
// a time, each time synced, leaves hundreds of extents in 64 KiB. The keeper reads such a
// stretch, checks it, and logs it again as one entry. Blocks are left alone while they
// are written: to merge those that random writes have scattered would cost more than it
// saves. A chunk of very many extents that has come to rest is merged all the same: it costs
// one write of the chunk, and gives memory back for good.

const (
	mergeWindow = 64 << 10 // bytes of a chunk that are looked at together, at most
	mergeLeast  = 32       // extents in a run that is worth merging
	mergeEvery  = 64       // a chunk is looked at when it has so many more extents

	crowdedMost  = 2048        // extents of a chunk that may stay
	crowdedRest  = time.Minute // without a write until it is merged
	crowdedLeast = 4           // extents in a run that is worth merging then
)

// fragmented notes that a small write has made one more extent. mu is held.
func (s *Store) fragmented(r *record, n uint32) {
	if r.body.n > crowdedMost {
		s.crowded[r.id] = time.Now()
	}
	if n < blockSize/2 && r.body.n%mergeEvery == 0 && r.body.n > 0 {
		s.mergeable[r.id] = struct{}{}
		s.wakeKeeper()
	}
}

// merge merges the small extents of one chunk that has many, and tells whether there
// was one to look at.
func (s *Store) merge() bool {
	s.mu.Lock()
	defer s.unlock()
	for id := range s.mergeable {
		delete(s.mergeable, id)
		return s.mergeChunk(id, min(mergeWindow, s.partMax), mergeLeast)
	}
	for id, last := range s.crowded {
		if time.Since(last) < crowdedRest || s.freeSegments() < s.lowWater() {
			continue
		}
		delete(s.crowded, id)
		return s.mergeChunk(id, s.partMax, crowdedLeast)
	}
	return false
}

// mergeChunk merges all runs of a chunk of at least so many extents in windows of so many
// bytes, and tells whether it could. mu is held; it is given up.
func (s *Store) mergeChunk(id chunk.ID, window uint32, least int) bool {
	for from := uint32(0); from < chunk.Size; {
		if s.usable() != nil || s.freeSegments() <= dataFloor {
			return false
		}
		run, next := s.mergeRun(id, from, window, least)
		if run != nil {
			s.mergeExtents(id, run)
		}
		from = next
	}
	return true
}

// mergeRun finds the next run of neighbouring extents of a chunk that is worth merging:
// all durable, all in one window. It returns where to look next. mu is held.
func (s *Store) mergeRun(id chunk.ID, from, window uint32, least int) (run []extent, next uint32) {
	r := s.index.find(id)
	if r == nil || !r.alive() || r.flags&(recDamaged|recSwitch) != 0 {
		return nil, chunk.Size
	}
	l := s.index.all(&r.body)
	for i := s.index.search(l, from); i < len(l); {
		k := i
		for ; k < len(l); k++ {
			e := s.index.unpack(&l[k])
			if e.zero() || e.off/window != (e.end()-1)/window || e.off/window != l[i].off()/window ||
				k > i && e.off != run[k-i-1].end() || s.segs[e.seg].frameAt(e.pos) != nil {
				break
			}
			run = append(run, e)
		}
		if len(run) >= least {
			return run, run[len(run)-1].end()
		}
		i, run = max(k, i+1), run[:0]
	}
	return nil, chunk.Size
}

// mergeExtents logs a run of extents as one entry, if it is still what it was once it is
// read. mu is held; it is given up.
func (s *Store) mergeExtents(id chunk.ID, run []extent) {
	r := readers.Get().(*reader)
	defer r.recycle()
	off := run[0].off
	data := make([]byte, run[len(run)-1].end()-off)
	r.off, r.buf, r.alone = off, data, s.step != nil
	rec := s.index.find(id)
	s.gather(&rec.body, off, off+uint32(len(data)), r)
	s.unlock()
	err := r.run()
	s.letGo(r)
	var sums []uint32
	if err == nil {
		sums = r.appendSums(nil)
	} else {
		s.damaged(id, err)
	}
	s.mu.Lock()
	if err != nil {
		return
	}
	n, pieces := uint32(len(data)), len(sums)
	f, pos, err := s.reserveClean(off, n, pieces)
	if err != nil {
		return
	}
	if !s.unchanged(id, run) {
		f.undo(pos, n, pieces)
		return
	}
	m := entry{kind: kindData, flags: flagMoved, chunk: id, lsn: s.nextLSN(), off: off, len: n, pos: pos}
	s.logMoved(f, &m, nil, sums)
	s.stat.merged.Add(len(run))
	s.copyIn(f, pos, data, true)
}

// unchanged tells whether the extents of a chunk in the range of run are those of run.
// mu is held.
func (s *Store) unchanged(id chunk.ID, run []extent) bool {
	r := s.index.find(id)
	if r == nil || !r.alive() || r.flags&recSwitch != 0 {
		return false
	}
	l := s.index.all(&r.body)
	i := s.index.search(l, run[0].off)
	if i+len(run) > len(l) {
		return false
	}
	for k := range run {
		a, b := s.index.unpack(&l[i+k]), &run[k]
		if a.off != b.off || a.len != b.len || a.seg != b.seg || a.pos != b.pos || a.edge != b.edge {
			return false
		}
	}
	return true
}
