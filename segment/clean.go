package segment

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/status"
)

// The cleaner makes free segments out of sealed ones: what is alive in the victim is
// logged again through the clean head, with the sums it was stored with, and the victim
// is marked free when that, and everything that made the rest of it dead, is durable.
// A moved entry tells only which bytes lie where now. It is logged when the index still
// names the old place, under the same mu, so that no write in between is undone.

// clean empties one segment if that is worth while, and tells whether it did.
func (s *Store) clean() bool {
	s.mu.Lock()
	defer s.unlock()
	g := s.victim()
	if g == nil {
		return false
	}
	g.state = segCleaning
	s.emptying(g)
	defer s.rested()
	err := s.empty(g)
	if err == nil {
		s.unlock()
		err = s.markFree(g, !g.unsealed || !g.begun)
		s.mu.Lock()
		if err != nil && !g.retired {
			g.retired = true
			s.retired++
		}
	}
	if err != nil {
		g.state = segBad
		if s.usable() == nil {
			s.log.Error("segment cannot be emptied", "disk", s.diskID, "segment", g.n, "error", err)
		}
		return s.usable() == nil
	}
	s.emptied(g)
	s.stat.cleaned.Inc()
	if g.retired {
		g.state = segBad
		return true
	}
	g.state = segFree
	s.written = append(s.written, g)
	if s.futile++; s.freeSegments() > s.mostFree || s.index.live < s.leastLive {
		s.progress()
	}
	s.changed.Broadcast()
	return true
}

// emptied takes a segment that was marked free out of the books. A deletion that it told
// of may still be named: it was not moved because no other segment had entries of the
// chunk, and then, while the mark was on its way, the chunk began another life. What it
// hid is gone with the segment. mu is held.
func (s *Store) emptied(g *segment) {
	for _, id := range g.chunks {
		if r := s.index.find(id); r != nil && r.state == g.n {
			s.save(r)
			s.index.point(&r.state, noSegment)
			r.hide, r.base = 0, 0
		}
		s.unmention(g, id)
	}
	if g.live != 0 {
		panic(fmt.Sprintf("BUG: segment %d was marked free with %d live bytes", g.n, g.live))
	}
	g.chunks, g.unsealed, g.evict = nil, false, false
}

// progress notes that cleaning is not in vain. mu is held.
func (s *Store) progress() {
	s.futile, s.mostFree, s.leastLive = 0, s.freeSegments(), s.index.live
}

// emptiable tells whether the cleaner may take a segment: one that is sealed and all
// durable, or one that damage kept from being emptied, when nothing in it is alive.
func (g *segment) emptiable() bool {
	full := g.state == segSealed || g.state == segBad && !g.retired && g.live == 0 && g.chunks != nil
	return full && g.pending == 0 && len(g.flight) == 0
}

// follows tells whether g has frames that were written again, or follow the last frame,
// of a segment that is not sealed on disk: without them recovery would take that one's
// end for a loss.
func (g *segment) follows(unsealed []*segment) bool {
	for _, o := range unsealed {
		if o != g && o.head == g.head && g.first <= o.last+1 && g.last >= o.first {
			return true
		}
	}
	return false
}

// empty takes all that is alive out of g and returns when g holds nothing any more that
// a crash could need. mu is held; it is given up for I/O and to wait.
func (s *Store) empty(g *segment) error {
	var errs []error
	for _, id := range g.chunks {
		if err := s.moveChunk(g, id); err != nil {
			errs = append(errs, err)
			if s.usable() != nil {
				break
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// What is dead in g may be so by entries that are not durable yet.
	if err := s.settle(); err != nil {
		return err
	}
	for g.pins > 0 {
		s.wait()
	}
	return s.testify()
}

// testify makes sure that a frame outside of the victim says how far all heads are
// durable now. Else recovery could count on frames of the victim to know that those
// behind them are no torn tail. mu is held; it is given up to wait.
func (s *Store) testify() error {
	for {
		if err := s.usable(); err != nil {
			return err
		}
		for i := range s.heads {
			h := &s.heads[(headClean+i)%heads]
			if h.broken != nil || len(h.flight) >= maxFlight {
				continue
			}
			if h.open == nil && (h.seg == nil || s.room(h.seg) < headerSize) {
				continue
			}
			f := h.open
			if f == nil {
				f = s.newFrame(h, engine.Alloc(headerSize))
				f.lsn = s.nextLSN()
			}
			s.close(h)
			for !f.finished {
				s.wait()
			}
			return f.err
		}
		if !s.roll(&s.heads[headClean], 0) {
			s.wait()
		}
	}
}

// moveChunk moves what a chunk has in g. mu is held; it is given up.
func (s *Store) moveChunk(g *segment, id chunk.ID) error {
	r := readers.Get().(*reader)
	defer r.recycle()
	r.alone = s.step != nil
	for {
		began := time.Now()
		imp, more, err := s.collect(g, id, r)
		if err != nil {
			return err
		}
		if !more {
			return s.moveState(g, id)
		}
		s.unlock()
		err = r.run()
		s.letGo(r)
		if err != nil {
			s.damaged(id, err)
		}
		s.mu.Lock()
		if err != nil {
			return status.Errorf(status.Corrupt, "chunk %v: %v", id, err)
		}
		if err := s.waitSwitch(id); err != nil {
			return err
		}
		for i := range r.list {
			if err := s.moveData(g, id, imp, &r.list[i]); err != nil {
				return err
			}
		}
		r.reset()
		s.unlock()
		s.ease(began)
		s.mu.Lock()
	}
}

// waitSwitch waits until a chunk that was replaced by an import is so durably: a moved
// part of the new content must not end up in the old one. mu is held; it is given up.
func (s *Store) waitSwitch(id chunk.ID) error {
	for {
		r := s.index.find(id)
		if r == nil || r.flags&recSwitch == 0 {
			return nil
		}
		if err := s.usable(); err != nil {
			return err
		}
		s.wait()
	}
}

// moveBatch is how many bytes of a chunk are read at once to be moved.
const moveBatch = 1 << 20

// collect gathers extents of a chunk, or of a copy of it in the making, that lie in g. It
// moves zeros at once. mu is held.
func (s *Store) collect(g *segment, id chunk.ID, r *reader) (*Import, bool, error) {
	var imp *Import
	for b := s.bodyIn(g, id, &imp); b != nil; b = s.bodyIn(g, id, &imp) {
		total := uint32(0)
		l := s.index.all(b)
		for i := range l {
			if l[i].seg != g.n {
				continue
			}
			if total >= moveBatch {
				break
			}
			e := s.index.unpack(&l[i])
			if e.zero() {
				if err := s.waitSwitch(id); err != nil {
					return nil, false, err
				}
				if err := s.moveZero(g, id, imp, e); err != nil {
					return nil, false, err
				}
				break // the extents may have changed
			}
			r.add(s, &e, e.off, e.end())
			total += e.len
		}
		if len(r.list) > 0 {
			return imp, true, nil
		}
	}
	return nil, false, nil
}

// bodyIn returns a body of a chunk that has extents in g, and the import it belongs to,
// nil if there is none. mu is held.
func (s *Store) bodyIn(g *segment, id chunk.ID, imp **Import) *body {
	has := func(b *body) bool {
		return slices.ContainsFunc(s.index.all(b), func(p packed) bool { return p.seg == g.n })
	}
	*imp = nil
	if r := s.index.find(id); r != nil && has(&r.body) {
		return &r.body
	}
	for _, i := range s.imports {
		if i.id == id && has(&i.body) {
			*imp = i
			return &i.body
		}
	}
	return nil
}

// moveZero logs a run of zeros again. mu is held; it is given up to wait.
func (s *Store) moveZero(g *segment, id chunk.ID, imp *Import, e extent) error {
	f, _, err := s.reserveClean(0, 0, 0)
	if err != nil {
		return err
	}
	cur, ok := s.index.still(s.bodyOf(id, imp), &e, g.n)
	if r := s.index.find(id); !ok || r != nil && r.flags&recSwitch != 0 {
		f.undo(0, 0, 0)
		return nil
	}
	m := entry{kind: kindZero, flags: flagMoved, chunk: id, lsn: s.nextLSN(), off: cur.off, len: cur.len}
	s.logMoved(f, &m, imp, nil)
	return nil
}

// moveData logs what is left of an extent that was read. mu is held; it is given up.
func (s *Store) moveData(g *segment, id chunk.ID, imp *Import, p *source) error {
	for {
		cur, ok := s.index.still(s.bodyOf(id, imp), &p.extent, g.n)
		if !ok {
			return nil
		}
		n, pieces := cur.pre()+cur.len+cur.post(), int(cur.pieces())
		f, pos, err := s.reserveClean(cur.off-cur.pre(), n, pieces)
		if err != nil {
			return err
		}
		again, ok := s.index.still(s.bodyOf(id, imp), &p.extent, g.n)
		if r := s.index.find(id); !ok || again != cur || r != nil && r.flags&recSwitch != 0 {
			f.undo(pos, n, pieces)
			if err := s.waitSwitch(id); err != nil {
				return err
			}
			continue
		}
		skip := (cur.pos - cur.pre()) - (p.pos - p.pre())
		first := (cur.off-cur.pre())/blockSize - (p.off-p.pre())/blockSize
		m := entry{kind: kindData, flags: flagMoved, chunk: id, lsn: s.nextLSN(), off: cur.off, len: cur.len,
			pos: pos + cur.pre(), pre: uint16(cur.pre()), post: uint16(cur.post())}
		f.seg.inherit(g, n)
		s.earn(n)
		s.logMoved(f, &m, imp, p.sums[first:][:pieces])
		s.stat.moved.Add(int(n))
		s.copyIn(f, pos, p.buf[skip:][:n], false)
	}
}

// still finds the first extent of b that is what is left of e in segment seg. Extents of
// one segment that overlap in the chunk and lie at the same distance come from one entry.
func (x *index) still(b *body, e *extent, seg uint32) (extent, bool) {
	if b == nil {
		return extent{}, false
	}
	l := x.all(b)
	for i := x.search(l, e.off); i < len(l) && l[i].off() < e.end(); i++ {
		if l[i].seg != seg {
			continue
		}
		if c := x.unpack(&l[i]); c.zero() == e.zero() && (c.zero() || c.pos-c.off == e.pos-e.off) {
			return c, true
		}
	}
	return extent{}, false
}

// bodyOf is the body of a chunk, or that of an import. mu is held.
func (s *Store) bodyOf(id chunk.ID, imp *Import) *body {
	if imp != nil && !imp.ended {
		return &imp.body
	}
	if r := s.index.find(id); r != nil {
		return &r.body
	}
	return nil
}

// logMoved logs an entry of the cleaner; its payload must be copied before the frame can
// leave. mu is held.
func (s *Store) logMoved(f *frame, e *entry, imp *Import, sums []uint32) {
	if imp != nil && !imp.ended {
		e.imp, e.version = imp.number, imp.version
	} else if r := s.index.find(e.chunk); r != nil {
		e.version, e.writes = r.version, r.writes
	}
	s.log1(f, e, sums)
}

// reserveClean finds a place in the clean head. mu is held; it is given up to wait.
func (s *Store) reserveClean(off, n uint32, pieces int) (*frame, uint32, error) {
	for {
		if err := s.usable(); err != nil {
			return nil, 0, err
		}
		if f, pos, ok := s.tryReserve(&s.heads[headClean], &part{off: off}, true, n, pieces); ok {
			return f, pos, nil
		}
		s.wait()
	}
}

// moveState logs anew what is known of a chunk, or that it is gone, if the entry that
// told it lies in g and may be needed. mu is held; it is given up to wait.
func (s *Store) moveState(g *segment, id chunk.ID) error {
	needed := func() (*record, bool) {
		r := s.index.find(id)
		switch {
		case r == nil:
			return nil, false
		case r.alive():
			return r, r.attest == g.n || r.state == g.n
		}
		return r, r.state == g.n && r.refs > 1 // other segments may have older entries
	}
	for {
		r, ok := needed()
		if !ok {
			return nil
		}
		if r.seq > s.heads[r.head].durable.seq { // stays behind what is on its way
			if err := s.usable(); err != nil {
				return err
			}
			s.want(s.frameOf(r))
			s.wait()
			continue
		}
		f, _, err := s.reserveClean(0, 0, 0)
		if err != nil {
			return err
		}
		if r, ok = needed(); !ok || r.seq > s.heads[r.head].durable.seq {
			f.undo(0, 0, 0)
			continue
		}
		e := entry{kind: kindState, chunk: id, lsn: s.nextLSN(), version: r.version, writes: r.writes, hide: r.hide, base: r.base}
		if !r.alive() {
			e = entry{kind: kindDelete, chunk: id, lsn: e.lsn}
		}
		s.log1(f, &e, nil)
		return nil
	}
}
