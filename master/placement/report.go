package placement

import (
	"math"

	"github.com/varvefs/varve/chunk"
)

// Report takes in copies that a server has. last says that the server has now
// told all: what it had before it went and has not told again is gone.
func (p *Placement) Report(now int64, id chunk.Server, copies []Copy, last bool) {
	i, ok := p.lookup(id)
	if !ok || !p.servers[i].up {
		return
	}
	for _, c := range copies {
		p.reported(now, i, c)
	}
	srv := p.servers[i]
	if !last || srv.ready {
		return
	}
	srv.ready, srv.awaited = true, false
	for _, n := range srv.ghost {
		p.retire(n)
	}
	srv.ghost = nil
	p.startSweep()
}

func (p *Placement) reported(now int64, server int, c Copy) {
	p.thaw(c.Chunk)
	w, ok := p.view.Chunk(c.Chunk)
	if !ok {
		p.orphan(now, server, c.Chunk)
		return
	}
	ref, s := p.ensure(c.Chunk)
	p.adopt(s, Unsure)
	p.note(s, w)
	st, member := judge(c.Version, w)
	srv := p.servers[server]
	if k := p.seatOf(s, server); k >= 0 && p.table.copyAt(s, k).seat() == srv.seat {
		now := p.table.copyAt(s, k).state()
		if now != Valid || st == Valid || w.Leased {
			st = now // nothing new
		} else {
			st = Unsure
		}
	} else if st == Stale || srv.ready && st == Valid {
		// What is told was true when it was written down. Since then a writer may
		// have raised the copy, or it may have been deleted again.
		st = Unsure
	}
	p.putCopy(s, server, st, member && s.flags&slotSet == 0)
	p.recount(ref)
}

// judge says what a version means, if it is still true. A copy that has reached the version of an
// open lease got it from the writer: it is in the set.
func judge(v chunk.Version, w Want) (st CopyState, member bool) {
	switch {
	case v < w.Min:
		return Stale, false
	case v > w.Version:
		return Ahead, false
	}
	return Valid, w.Leased && v == w.Version && v > w.Min
}

// orphan notes a copy of a chunk that no file has. It is removed later: the
// server may have been told so already.
func (p *Placement) orphan(now int64, server int, id chunk.ID) {
	ref, ok := p.table.find(id)
	if !ok {
		ref = p.table.addStray(id)
		s := p.table.at(ref)
		s.flags |= slotOrphan
		if p.view.Allocated(id) {
			p.orphans++
			p.postpone(ref, now+p.cfg.OrphanDelay, false)
		} else {
			s.flags |= slotRiddle
			p.riddles++
		}
	}
	p.putCopy(p.table.at(ref), server, Stale, false)
}

// dropOrphan takes the mark off a slot.
func (p *Placement) dropOrphan(s *slot) {
	if s.flags&slotRiddle != 0 {
		p.riddles--
	} else {
		p.orphans--
	}
	s.flags &^= slotOrphan | slotRiddle
}

// considerOrphan removes an orphan whose time has come.
func (p *Placement) considerOrphan(ref uint32) {
	s := p.table.at(ref)
	id := p.table.id(ref)
	if _, known := p.view.Chunk(id); known {
		p.Load(id)
		return
	}
	if s.flags&slotRiddle == 0 {
		p.Freed(id, math.MaxUint32)
	}
}

// Lost says that copies are gone with their disk.
func (p *Placement) Lost(id chunk.Server, chunks []chunk.ID) {
	i, ok := p.lookup(id)
	if !ok {
		return
	}
	for _, c := range chunks {
		p.thaw(c)
		if ref, ok := p.table.find(c); ok {
			s := p.table.at(ref)
			if k := p.seatOf(s, i); k >= 0 {
				p.dropCopy(s, k)
				p.recount(ref)
			}
		}
	}
}

// Damaged says that copies exist but that not all of their bytes can be read.
func (p *Placement) Damaged(id chunk.Server, chunks []chunk.ID) {
	i, ok := p.lookup(id)
	if !ok || !p.servers[i].up {
		return
	}
	for _, c := range chunks {
		p.thaw(c)
		ref, ok := p.table.find(c)
		if !ok || p.table.at(ref).flags&slotOrphan != 0 {
			continue
		}
		s := p.table.at(ref)
		p.clean(s)
		if k := p.seatOf(s, i); k < 0 || p.table.copyAt(s, k).state() != Damaged {
			p.putCopy(s, i, Damaged, false)
			p.damaged++
			p.recount(ref)
		}
	}
}

// clean takes copies out of a slot whose servers do not have them any more.
func (p *Placement) clean(s *slot) {
	for k := int(s.n) - 1; k >= 0; k-- {
		if !p.seats[p.table.copyAt(s, k).seat()].retired {
			continue
		}
		p.forgo(s, k)
		if s.flags&slotOrphan == 0 && (s.place == placeLate || s.place == placeHotLate) {
			s.place = placeNone // it waited for this copy, which will not come
		}
	}
}

// forgo deals with copy k of a slot, which its server had before it went and does
// not have now. In the set of an open lease it stays: the writer sends again what
// the server has lost, or says that it failed.
func (p *Placement) forgo(s *slot, k int) {
	c := *p.table.copyAt(s, k)
	p.dropCopy(s, k)
	if s.flags&slotLeased == 0 || s.flags&slotSet == 0 || !c.has(refLease) {
		return
	}
	i := int(p.seats[c.seat()].server)
	if known, ok := p.lookup(p.servers[i].info.ID); !ok || known != i {
		return // forgotten
	}
	if other := p.seatOf(s, i); other >= 0 {
		p.table.copyAt(s, other).set(refLease, true)
		return
	}
	p.putCopy(s, i, Unsure, true)
}

// startSweep has all slots looked at, because what is true of a server has changed.
// Slots that are made from now on need no look.
func (p *Placement) startSweep() {
	p.sweeps[0].start(p.table.used)
	p.sweeps[1].start(uint32(len(p.table.strays)))
}

// round goes round the slots below span from wherever it is.
type round struct {
	cursor uint32 // where it goes on
	span   uint32
	left   uint32 // slots that it still has to look at
}

func (r *round) start(span uint32) { r.span, r.left = span, span }

// next gives the next slot.
func (r *round) next() uint32 {
	if r.cursor >= r.span {
		r.cursor = 0
	}
	r.cursor++
	r.left--
	return r.cursor - 1
}

// sweeping reports whether slots are still to be looked at.
func (p *Placement) sweeping() bool { return p.sweeps[0].left+p.sweeps[1].left > 0 }

// sweep looks at the next slots: it forgets copies that are no more and recounts.
func (p *Placement) sweep() {
	if !p.sweeping() {
		return
	}
	limit := uint32(p.cfg.Sweep)
	for i, base := range [...]uint32{0, strayBase} {
		r := &p.sweeps[i]
		for ; r.left > 0 && limit > 0; limit-- {
			ref := base + r.next()
			if s := p.table.at(ref); s.live() {
				p.clean(s)
				p.recount(ref)
			}
		}
	}
	if !p.sweeping() { // every slot was visited since the last seat retired
		for n := range p.seats {
			if p.seats[n].retired {
				p.seats[n] = seat{}
			}
		}
	}
}
