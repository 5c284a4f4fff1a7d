package placement

import (
	"slices"

	"github.com/varvefs/varve/chunk"
)

// ensure returns the slot of a chunk that the changelog knows, made if needed,
// without what the sweep has not yet taken out of it.
func (p *Placement) ensure(id chunk.ID) (uint32, *slot) {
	p.thaw(id)
	ref, ok := p.table.find(id)
	if !ok {
		ref = p.table.add(id)
	}
	s := p.table.at(ref)
	if s.n > 0 {
		p.clean(s)
	}
	return ref, s
}

// Load says that the changelog has a chunk. It is called for each of them before
// servers come, so that a chunk without any copy is counted as missing.
func (p *Placement) Load(id chunk.ID) {
	w, ok := p.view.Chunk(id)
	if !ok {
		return
	}
	ref, s := p.ensure(id)
	p.adopt(s, Unsure)
	p.note(s, w)
	p.recount(ref)
}

// adopt makes a slot one of a known chunk. What copies an orphan had may be
// anything: they get state st.
func (p *Placement) adopt(s *slot, st CopyState) {
	if s.flags&slotOrphan == 0 {
		return
	}
	p.dropOrphan(s)
	for i := range int(s.n) {
		c := p.table.copyAt(s, i)
		*c = c.with(st)
	}
}

// note takes over what the changelog says about a chunk.
func (p *Placement) note(s *slot, w Want) {
	if was := s.flags&slotLeased != 0; was != w.Leased {
		if w.Leased {
			s.flags |= slotLeased
			p.leased++
		} else {
			s.flags &^= slotLeased | slotSet
			p.leased--
		}
	}
	if s.flags&slotCounted == 0 {
		s.flags |= slotCounted
		s.packed = w.Goal << 4
		p.matrix[w.Goal][0]++
	} else if s.goal() != w.Goal {
		p.count(s, w.Goal, s.valid())
	}
}

// count moves a slot in the matrix.
func (p *Placement) count(s *slot, goal, valid uint8) {
	p.matrix[s.goal()][min(s.valid(), 10)]--
	s.packed = goal<<4 | valid
	p.matrix[goal][min(valid, 10)]++
}

// counts reports whether a copy is one of those that the goal asks for.
func (p *Placement) counts(s *slot, c copyRef) bool {
	if c.state() != Valid || c.has(refGoing) || !p.here(c) {
		return false
	}
	return s.flags&slotSet == 0 || c.has(refLease)
}

// recount brings a slot up to date after anything about it has changed, and puts
// it into the queue where it belongs. It needs no time: what must wait is sent to
// wait when its turn comes.
func (p *Placement) recount(ref uint32) {
	s := p.table.at(ref)
	if s.flags&slotOrphan != 0 {
		if s.n == 0 {
			p.dropOrphan(s)
			p.table.remove(ref)
		}
		return
	}
	var valid uint8
	unsure, bad := false, false
	for i := range int(s.n) {
		c := *p.table.copyAt(s, i)
		switch {
		case p.counts(s, c):
			valid++
		case c.has(refGoing) || !p.here(c):
		case c.state() == Unsure:
			unsure = true
		case c.state() == Stale || c.state() == Damaged:
			bad = true
		}
	}
	if valid != s.valid() {
		p.count(s, s.goal(), valid)
	}
	if p.hold != 0 || s.flags&(slotLeased|slotBusy) != 0 {
		return // there will be a sweep, LeaseEnd or Done
	}
	switch goal := s.goal(); {
	case s.place != placeNone && !unsure && !bad && valid == goal:
		s.place = placeNone // what it waited for has come; its entry is passed over
	case unsure:
		p.enqueue(ref, placeVerify)
	case valid == 0:
	case valid < goal && valid == 1:
		p.enqueue(ref, placeHot)
	case valid < goal:
		p.enqueue(ref, placeUnder)
	case valid > goal || bad:
		p.enqueue(ref, placeExcess)
	}
}

// recheck is recount for a chunk that may be gone.
func (p *Placement) recheck(id chunk.ID) {
	if ref, ok := p.table.find(id); ok {
		p.recount(ref)
	}
}

// enqueue puts a slot into a queue, unless it already waits somewhere as urgent.
func (p *Placement) enqueue(ref uint32, place uint8) {
	s := p.table.at(ref)
	switch {
	case s.place != placeNone && s.place <= place,
		s.place == placeHotLate && place == placeHot,
		s.place == placeLate && place == placeUnder:
		return
	}
	s.place = place
	p.queues[place].push(ref)
}

// postpone has a slot looked at again at due.
func (p *Placement) postpone(ref uint32, due int64, hot bool) {
	s := p.table.at(ref)
	s.place = placeLate
	if hot {
		s.place = placeHotLate
	}
	p.delayed.push(late{due: due, ref: ref})
}

// seatOf finds the copy of a server in a slot, under whatever seat; -1: none.
func (p *Placement) seatOf(s *slot, server int) int {
	for i := range int(s.n) {
		n := p.table.copyAt(s, i).seat()
		if int(p.seats[n].server) == server && !p.seats[n].retired {
			return i
		}
	}
	return -1
}

// putCopy notes that a server has a copy now, whatever was known of it before.
// The flag that it is in the set of the lease is kept.
func (p *Placement) putCopy(s *slot, server int, st CopyState, lease bool) {
	seat := p.servers[server].seat
	if i := p.seatOf(s, server); i >= 0 {
		c := p.table.copyAt(s, i)
		p.seats[c.seat()].copies--
		p.seats[seat].copies++
		n := newRef(seat, st)
		n.set(refLease, lease || c.has(refLease))
		n.set(refGoing, c.has(refGoing) && c.seat() == seat) // the order still stands
		*c = n
		return
	}
	n := newRef(seat, st)
	n.set(refLease, lease)
	if !p.table.push(s, n) {
		if !p.dropAway(s) {
			return // more copies than any goal allows; the server will tell of it again when it comes back
		}
		p.table.push(s, n)
	}
	p.seats[seat].copies++
}

// dropAway makes room in a slot by forgetting a copy whose server is away.
func (p *Placement) dropAway(s *slot) bool {
	for i := range int(s.n) {
		if !p.here(*p.table.copyAt(s, i)) {
			p.dropCopy(s, i)
			return true
		}
	}
	return false
}

// dropCopy forgets copy i of a slot.
func (p *Placement) dropCopy(s *slot, i int) {
	p.seats[p.table.copyAt(s, i).seat()].copies--
	p.table.drop(s, i)
}

// Created says that a new chunk was put on servers, under a lease that the state
// already has.
func (p *Placement) Created(id chunk.ID, servers []chunk.Server) {
	w, ok := p.view.Chunk(id)
	if !ok {
		return
	}
	ref, s := p.ensure(id)
	p.adopt(s, Stale)
	p.note(s, w)
	p.setLease(s, servers)
	p.recount(ref)
}

// setLease makes servers the set of an open lease: they have valid copies, or
// will have them before anybody reads.
func (p *Placement) setLease(s *slot, servers []chunk.Server) {
	s.flags |= slotSet
	for i := range int(s.n) {
		p.table.copyAt(s, i).set(refLease, false)
	}
	for _, id := range servers {
		i, ok := p.lookup(id)
		if !ok {
			continue
		}
		if k := p.seatOf(s, i); k >= 0 {
			c := p.table.copyAt(s, k)
			c.set(refLease, true)
			if p.here(*c) && c.state() != Damaged { // else it went away meanwhile, or is no better now
				*c = c.with(Valid)
			}
			continue
		}
		p.putCopy(s, i, Valid, true)
	}
}

// Lease says that a lease was granted on a chunk that has copies, and returns
// the servers that are its set: those with a valid copy that are up. With none
// the chunk cannot be written now.
func (p *Placement) Lease(id chunk.ID) []chunk.Server {
	w, ok := p.view.Chunk(id)
	if !ok {
		return nil
	}
	ref, s := p.ensure(id)
	set := p.usable(s, func(c copyRef) bool { return p.counts(s, c) })
	p.note(s, w)
	p.setLease(s, set)
	p.recount(ref)
	return set
}

// LeaseFail says that servers are now the set of the open lease, and hold the
// version that the state has now. All others have missed something.
func (p *Placement) LeaseFail(id chunk.ID, servers []chunk.Server) {
	w, ok := p.view.Chunk(id)
	if !ok {
		return
	}
	ref, s := p.ensure(id)
	p.note(s, w)
	p.spoil(s, servers)
	p.setLease(s, servers)
	p.recount(ref)
}

// spoil makes all copies stale that are not on servers.
func (p *Placement) spoil(s *slot, servers []chunk.Server) {
	for i := range int(s.n) {
		c := p.table.copyAt(s, i)
		if !slices.Contains(servers, p.serverOf(*c).info.ID) && c.state() != Damaged {
			*c = c.with(Stale)
		}
	}
}

// LeaseEnd says that a lease is over. If the chunk was written, the writer has
// made the copies of the set equal and all others are stale; after a restart of
// the master nobody knows the set, and copies that have not told the new version
// are asked for it.
func (p *Placement) LeaseEnd(id chunk.ID, written bool) {
	w, ok := p.view.Chunk(id)
	if !ok {
		return
	}
	ref, s := p.ensure(id)
	known := s.flags&slotSet != 0
	for i := range int(s.n) {
		c := p.table.copyAt(s, i)
		member := c.has(refLease)
		c.set(refLease, false)
		switch {
		case c.state() == Stale || c.state() == Damaged:
		case member && written, member && known && c.state() == Valid:
			*c = c.with(Valid)
		case written && known:
			*c = c.with(Stale)
		case written || member:
			*c = c.with(Unsure)
		}
	}
	p.note(s, w)
	p.recount(ref)
}

// Settle says that exactly servers hold the version that the state has, and no
// lease is open: a dead writer's copies were made equal.
func (p *Placement) Settle(id chunk.ID, servers []chunk.Server) {
	w, ok := p.view.Chunk(id)
	if !ok {
		return
	}
	ref, s := p.ensure(id)
	p.spoil(s, servers)
	for _, srv := range servers {
		i, ok := p.lookup(srv)
		if !ok || !p.servers[i].up {
			continue
		}
		if k := p.seatOf(s, i); k < 0 || p.table.copyAt(s, k).state() != Damaged {
			p.putCopy(s, i, Valid, false)
		}
	}
	for i := range int(s.n) {
		p.table.copyAt(s, i).set(refLease, false)
	}
	p.note(s, w)
	p.recount(ref)
}

// Changed says that a chunk's goal has changed.
func (p *Placement) Changed(id chunk.ID) {
	w, ok := p.view.Chunk(id)
	if !ok {
		return
	}
	ref, s := p.ensure(id)
	p.note(s, w)
	p.recount(ref)
}

// Freed says that a chunk is no longer part of any file. Its copies up to version
// are removed; those on servers that are away when they come back.
func (p *Placement) Freed(id chunk.ID, version chunk.Version) {
	p.thaw(id)
	ref, ok := p.table.find(id)
	if !ok {
		return
	}
	s := p.table.at(ref)
	for i := int(s.n) - 1; i >= 0; i-- {
		if c := *p.table.copyAt(s, i); p.here(c) {
			srv := p.serverOf(c)
			srv.doomed = append(srv.doomed, Copy{Chunk: id, Version: version})
		}
		p.dropCopy(s, i)
	}
	delete(p.retries, id)
	p.erase(ref)
}

// erase takes a slot without copies out of all counts.
func (p *Placement) erase(ref uint32) {
	s := p.table.at(ref)
	if s.flags&slotOrphan != 0 {
		p.dropOrphan(s)
	}
	if s.flags&slotCounted != 0 {
		p.matrix[s.goal()][min(s.valid(), 10)]--
	}
	if s.flags&slotLeased != 0 {
		p.leased--
	}
	p.table.remove(ref)
}

// usable lists the servers of the copies that ok allows, beginning anywhere.
func (p *Placement) usable(s *slot, ok func(copyRef) bool) []chunk.Server {
	if s.n == 0 {
		return nil
	}
	var out []chunk.Server
	first := int(p.random(uint64(s.n)))
	for k := range int(s.n) {
		if c := *p.table.copyAt(s, (first+k)%int(s.n)); ok(c) {
			out = append(out, p.serverOf(c).info.ID)
		}
	}
	return out
}

// Usable returns the servers that a reader should try, best first. Behind the
// valid copies come doubtful ones: a reader names the versions it accepts and
// checks all sums, so that it can only fail on them, not be deceived.
func (p *Placement) Usable(id chunk.ID) []chunk.Server {
	p.thaw(id)
	ref, ok := p.table.find(id)
	if !ok {
		return nil
	}
	s := p.table.at(ref)
	out := p.usable(s, func(c copyRef) bool { return p.counts(s, c) })
	for _, st := range []CopyState{Unsure, Damaged} {
		out = append(out, p.usable(s, func(c copyRef) bool { return c.state() == st && !c.has(refGoing) && p.here(c) })...)
	}
	return out
}

// Copies lists all that is known of a chunk's copies.
func (p *Placement) Copies(id chunk.ID) []CopyInfo {
	p.thaw(id)
	ref, ok := p.table.find(id)
	if !ok {
		return nil
	}
	s := p.table.at(ref)
	var out []CopyInfo
	for i := range int(s.n) {
		c := *p.table.copyAt(s, i)
		if p.seats[c.seat()].retired {
			continue
		}
		out = append(out, CopyInfo{
			Server: p.serverOf(c).info.ID, State: c.state(), Up: p.here(c),
			InLease: c.has(refLease), Deleting: c.has(refGoing),
		})
	}
	return out
}
