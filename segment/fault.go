package segment

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/varvefs/varve/status"
)

// maxFaults is how many failed writes a disk may have before it is given up.
const maxFaults = 3

// writeFailed handles an I/O error of a frame. The same blocks are never tried again and
// no later sync is trusted to have saved them: the segment is retired, and what it was
// to hold is written to another one from the buffers, which are kept until then. mu is
// held.
func (s *Store) writeFailed(f *frame, err error) {
	h, g := f.head, f.seg
	f.bad = true
	s.stat.failures.Inc()
	if !errors.Is(err, syscall.ENOSPC) { // that is the host's file system, not the disk
		s.faults++
	}
	s.log.Error("write failed", "disk", s.diskID, "segment", g.n, "offset", f.off, "bytes", f.size, "error", err)
	if s.faults > maxFaults || s.failed != nil {
		s.fail(fmt.Errorf("%d writes failed, the last: %w", s.faults, err))
		return
	}
	if h.broken == nil {
		h.broken = g
	}
	s.retire(h)
}

// retire writes the frames of the head's broken segment anew as soon as the engine has
// let go of all of them. mu is held.
func (s *Store) retire(h *head) {
	g := h.broken
	if g == nil {
		return
	}
	if h.open != nil && h.open.seg == g {
		if h.open.count == 0 {
			panic("BUG: open frame without entries")
		}
		s.close(h)
	}
	var again []*frame
	for _, f := range h.flight {
		if f.seg != g {
			continue
		}
		if f.launched && !f.written || f.filling > 0 {
			return
		}
		again = append(again, f)
	}
	g.retired, g.held = true, nil
	s.retired++
	young := h.seg // the head may have gone on to another segment already
	if young == g {
		young = nil
	}
	h.seg = nil
	for _, f := range again {
		if f.seal { // it cannot be written elsewhere, and recovery can do without
			h.flight = slices.Delete(h.flight, slices.Index(h.flight, f), slices.Index(h.flight, f)+1)
			g.pending, g.unsealed = 0, true
			s.finish(f, nil)
			continue
		}
		if (h.seg == nil || s.room(h.seg) < f.size) && !s.roll(h, 1) {
			s.fail(fmt.Errorf("no segment to write the frames of segment %d to", g.n))
			return
		}
		s.relocate(f, h.seg)
	}
	s.leave(g)
	if young != nil {
		if h.seg != nil {
			s.seal(h.seg, noSegment)
		}
		h.seg = young
	}
	h.broken = nil
	s.log.Warn("segment retired", "disk", s.diskID, "segment", g.n, "frames_moved", len(again))
	for _, f := range h.flight {
		if f.bad { // the segment behind it failed meanwhile
			h.broken = f.seg
			s.retire(h)
			return
		}
	}
	s.advance(h)
	s.changed.Broadcast()
}

// leave makes a segment that is still open one that the cleaner may empty. Its seal tells
// the next recovery that nothing is missing behind its last frame; until it is there the
// cleaner keeps what follows that frame. If its new life has not begun on disk it gets no
// seal: the free mark at its end still tells. mu is held.
func (s *Store) leave(g *segment) {
	if g.state != segOpen {
		return
	}
	g.unsealed = true
	if !g.begun {
		g.close()
		return
	}
	f := s.sealFrame(g, noSegment)
	f.loose = true
	s.launch(f)
}

// relocate gives a frame that is not durable a new place at the end of g and lets it
// leave again. mu is held.
func (s *Store) relocate(f *frame, g *segment) {
	var hd header
	hd.get(f.buf)
	old, from := f.seg, f.off
	err := decodeEntries(f.buf, &hd, func(e *entry, _ []uint32) error {
		s.follow(e, old, g, from, f.size, g.end)
		return nil
	})
	if err != nil {
		panic(fmt.Sprintf("BUG: own frame: %v", err))
	}
	old.landed(f)
	f.seg, f.off, f.launched = g, g.end, false
	g.flight = append(g.flight, f)
	hd.seg, hd.off, hd.incarnation, hd.previous, hd.time = g.n, g.end, g.incarnation, g.previous, time.Now().UnixNano()
	f.sum = hd.put(f.buf)
	g.note(&hd, f.buf[:f.used])
	s.launch(f)
}

// follow changes what the index says of an entry whose frame moves from byte off of old
// to byte to of g. mu is held.
func (s *Store) follow(e *entry, old, g *segment, off, size, to uint32) {
	r := s.index.find(e.chunk)
	s.mention(g, r)
	if r.attest == old.n && e.flags&flagMoved == 0 && e.imp == 0 {
		s.index.point(&r.attest, g.n)
	}
	if r.state == old.n && (e.kind == kindState || e.kind == kindDelete) {
		s.index.point(&r.state, g.n)
	}
	if e.kind != kindData && e.kind != kindZero {
		return
	}
	bodies := []*body{&r.body}
	for _, imp := range s.imports {
		if imp.id == e.chunk {
			bodies = append(bodies, &imp.body)
		}
	}
	for _, b := range bodies {
		l := s.index.all(b)
		for i := s.index.search(l, e.off); i < len(l) && l[i].off() < e.off+e.len; i++ {
			if p := &l[i]; p.seg == old.n && p.pos-off < size {
				x := s.index.unpack(p)
				s.touched(old.n, -x.cost())
				p.seg, p.pos = g.n, p.pos-off+to
				s.touched(g.n, x.cost())
			}
		}
	}
}

// fail gives the disk up: nothing more is accepted, and all that waits is told. mu is
// held.
func (s *Store) fail(err error) {
	if s.failed == nil {
		s.failed = status.Errorf(status.DiskFailed, "disk %016x: %v", s.diskID, err)
		s.log.Error("disk failed", "disk", s.diskID, "error", err)
		s.announce(Event{Kind: Failed, Err: err})
	}
	for i := range s.heads {
		h := &s.heads[i]
		for _, f := range h.flight {
			s.finish(f, s.failed)
		}
		h.flight = nil
		if h.open != nil {
			s.finish(h.open, s.failed)
			h.open = nil
		}
	}
	s.changed.Broadcast()
}
