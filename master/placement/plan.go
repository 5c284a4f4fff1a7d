package placement

import (
	"cmp"
	"slices"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/status"
)

// How much one Next looks at.
const (
	wakeLimit    = 20_000 // slots whose waiting time is over, or that wait no more
	lookLimit    = 5_000  // slots that are waiting for an order
	refusalLimit = 256    // slots in a row that no server has capacity for
	verifyLimit  = 16     // Verify orders of a server at once
	crowded      = 10 * second
)

// order is an Order in flight.
type order struct {
	kind    OrderKind
	server  int
	source  int // Replicate
	chunk   chunk.ID
	version chunk.Version
	deletes []Copy
}

// retry is the back-off of a chunk whose order has failed.
type retry struct {
	until int64
	fails uint8
}

// verdict is what became of a slot whose turn it was.
type verdict uint8

const (
	settled verdict = iota // an order was made, it waits elsewhere, or nothing is to be done
	busy                   // the servers in question have no capacity now
)

// Next carries on with what has to be done and returns the orders that may go
// out now. now must not be less than in earlier calls.
func (p *Placement) Next(now int64) []Order {
	var out []Order
	if p.hold != 0 && !p.held(now) {
		p.hold = 0
		p.startSweep()
	}
	p.sweep()
	for n := 0; n < wakeLimit && len(p.delayed) > 0 && p.delayed[0].due <= now; n++ {
		ref := p.delayed.pop().ref
		s := p.table.at(ref)
		if !s.live() || s.place != placeLate && s.place != placeHotLate {
			continue
		}
		s.place = placeNone
		if s.flags&slotOrphan != 0 {
			p.considerOrphan(ref)
		} else {
			p.recount(ref)
		}
	}
	looked, passed := 0, 0
	for _, place := range []uint8{placeHot, placeVerify, placeUnder, placeExcess} {
		q := &p.queues[place]
		refused := 0
		for n := q.len(); n > 0 && refused < refusalLimit && looked < lookLimit && passed < wakeLimit; n-- {
			ref := q.pop()
			s := p.table.at(ref)
			if !s.live() || s.place != place {
				passed++
				continue
			}
			looked++
			s.place = placeNone
			if p.consider(now, ref, &out) == busy {
				refused++
				s.place = place
				q.push(ref)
			}
		}
	}
	return p.deletes(now, out)
}

// survey is what consider finds in a slot.
type survey struct {
	valid  []copyRef // usable now
	bad    []int     // places of stale and damaged copies that are here
	unsure int       // place of a copy to be asked; -1: none
	coming int       // copies that are away and may come back
	until  int64     // when the next of them is given up
}

func (p *Placement) survey(now int64, s *slot) survey {
	v := survey{unsure: -1}
	away := make([]copyRef, 0, maxCopies)
	for i := range int(s.n) {
		c := *p.table.copyAt(s, i)
		switch {
		case p.counts(s, c):
			v.valid = append(v.valid, c)
		case p.seats[c.seat()].retired || c.has(refGoing):
		case !p.here(c):
			if c.state() == Valid || c.state() == Unsure {
				away = append(away, c)
			}
		case c.state() == Unsure:
			v.unsure = i
		case c.state() == Stale || c.state() == Damaged:
			v.bad = append(v.bad, i)
		}
	}
	delay := p.cfg.Delay
	if len(v.valid) <= 1 {
		delay = p.cfg.EndangeredDelay
	}
	for _, c := range away {
		srv := p.serverOf(c)
		until := srv.at + delay
		if srv.up { // it is telling what it has
			until = srv.at + tellingLimit
		}
		if until <= now {
			continue
		}
		if v.coming == 0 || until < v.until {
			v.until = until
		}
		v.coming++
	}
	return v
}

// consider decides what to do about one slot.
func (p *Placement) consider(now int64, ref uint32, out *[]Order) verdict {
	s := p.table.at(ref)
	id := p.table.id(ref)
	w, ok := p.view.Chunk(id)
	if !ok || s.flags&(slotLeased|slotBusy|slotOrphan) != 0 || w.Leased {
		return settled // LeaseEnd or Done will come back to it
	}
	hot := s.valid() == 1 && s.goal() > 1
	if r, ok := p.retries[id]; ok && r.until > now {
		p.postpone(ref, r.until, hot)
		return settled
	}
	v := p.survey(now, s)
	goal := int(w.Goal)
	switch {
	case v.unsure >= 0:
		return p.verify(ref, v.unsure, &w, out)
	case len(v.valid) == 0:
		return settled // recount will come back to it when a copy appears
	case len(v.valid)+v.coming < goal:
		return p.replicate(now, ref, &v, &w, out)
	case len(v.valid) < goal:
		p.postpone(ref, min(v.until, now+p.cfg.Delay), hot)
		return settled
	}
	p.doomExcess(ref, &v, goal)
	return settled
}

// issue sends an order on its way.
func (p *Placement) issue(o *order, from []chunk.Server, out *[]Order) {
	p.lastOrder++
	p.orders[p.lastOrder] = o
	*out = append(*out, Order{
		ID: p.lastOrder, Kind: o.kind, Server: p.servers[o.server].info.ID,
		Chunk: o.chunk, Version: o.version, From: from, Deletes: o.deletes,
	})
}

func (p *Placement) verify(ref uint32, k int, w *Want, out *[]Order) verdict {
	s := p.table.at(ref)
	i := int(p.seats[p.table.copyAt(s, k).seat()].server)
	if p.servers[i].verifies >= verifyLimit {
		return busy
	}
	p.servers[i].verifies++
	s.flags |= slotBusy
	p.issue(&order{kind: Verify, server: i, chunk: p.table.id(ref), version: w.Version}, nil, out)
	return settled
}

// replicate orders one more copy of a chunk.
func (p *Placement) replicate(now int64, ref uint32, v *survey, w *Want, out *[]Order) verdict {
	s := p.table.at(ref)
	sources := make([]int, 0, len(v.valid))
	for _, c := range v.valid {
		sources = append(sources, int(p.seats[c.seat()].server))
	}
	slices.SortStableFunc(sources, func(a, b int) int { return cmp.Compare(p.servers[a].out, p.servers[b].out) })
	if p.servers[sources[0]].out >= p.cfg.Outgoing {
		return busy
	}
	target, verdict := p.target(now, s, v)
	if target < 0 {
		if verdict == settled { // nowhere to go: a sweep comes back when a server does
			if p.resting(now) {
				p.postpone(ref, now+crowded, len(v.valid) == 1)
			}
		}
		return verdict
	}
	from := make([]chunk.Server, len(sources))
	for k, i := range sources {
		from[k] = p.servers[i].info.ID
	}
	p.servers[target].in++
	p.servers[target].promised += promise
	p.servers[sources[0]].out++
	s.flags |= slotBusy
	p.issue(&order{kind: Replicate, server: target, source: sources[0], chunk: p.table.id(ref), version: w.Version}, from, out)
	return settled
}

// target chooses the server of a new copy: one that has a bad copy, which is
// replaced in place, or else any by free space. -1 with busy: those in question
// have no capacity now; with settled: there is none.
func (p *Placement) target(now int64, s *slot, v *survey) (int, verdict) {
	why := settled
	can := func(srv *server) bool {
		if !srv.up || !srv.ready || srv.rest > now {
			return false
		}
		if srv.in >= p.cfg.Incoming {
			why = busy
			return false
		}
		return true
	}
	for _, k := range v.bad {
		i := int(p.seats[p.table.copyAt(s, k).seat()].server)
		if can(p.servers[i]) && p.servers[i].room() > 0 {
			return i, settled
		}
	}
	for _, reserve := range []uint64{p.cfg.Reserve, 0} {
		srv := p.pick(func(srv *server) bool {
			return srv.room() > reserve && p.seatOf(s, p.byID[srv.info.ID]) < 0 && can(srv)
		})
		if srv != nil {
			return p.byID[srv.info.ID], settled
		}
		if why == busy {
			return -1, busy
		}
	}
	return -1, why
}

// resting reports whether any server is passed over only because it failed.
func (p *Placement) resting(now int64) bool {
	for _, s := range p.servers {
		if s.up && s.rest > now {
			return true
		}
	}
	return false
}

// doomExcess has copies deleted that are bad or too many: there are enough valid
// ones. Of the valid ones those on the fullest servers go.
func (p *Placement) doomExcess(ref uint32, v *survey, goal int) {
	s := p.table.at(ref)
	for _, k := range v.bad {
		p.doom(ref, p.table.copyAt(s, k))
	}
	for len(v.valid) > goal {
		worst := 0
		for k := range v.valid {
			if p.fullness(v.valid[k]) > p.fullness(v.valid[worst]) {
				worst = k
			}
		}
		for k := range int(s.n) {
			if c := p.table.copyAt(s, k); *c == v.valid[worst] {
				p.doom(ref, c)
				break
			}
		}
		v.valid = slices.Delete(v.valid, worst, worst+1)
	}
	if n := uint8(len(v.valid)); n != s.valid() {
		p.count(s, s.goal(), n)
	}
}

// fullness is the used share of a copy's server, in millionths.
func (p *Placement) fullness(c copyRef) uint64 {
	info := &p.serverOf(c).info
	if info.Total == 0 || info.Free > info.Total {
		return 0
	}
	return (info.Total - info.Free) / (info.Total/1_000_000 + 1)
}

func (p *Placement) doom(ref uint32, c *copyRef) {
	c.set(refGoing, true)
	srv := p.serverOf(*c)
	srv.doomed = append(srv.doomed, Copy{Chunk: p.table.id(ref)})
}

// deletes packs what is doomed into orders.
func (p *Placement) deletes(now int64, out []Order) []Order {
	for i, srv := range p.servers {
		for srv.up && srv.restDel <= now && srv.deletes < p.cfg.Deletes && len(srv.doomed) > 0 {
			n := min(len(srv.doomed), p.cfg.DeleteBatch)
			list := make([]Copy, 0, n)
			for _, d := range srv.doomed[:n] {
				if p.justified(i, &d) {
					list = append(list, d)
				}
			}
			srv.doomed = srv.doomed[n:]
			if len(srv.doomed) == 0 {
				srv.doomed = nil
			}
			if len(list) > 0 {
				srv.deletes++
				srv.dooming += len(list)
				p.issue(&order{kind: Delete, server: i, deletes: list}, nil, &out)
			}
		}
	}
	return out
}

// justified asks once more, at the last moment, whether a copy may go: since it
// was doomed, others may have been lost, or a lease may have been granted.
func (p *Placement) justified(server int, d *Copy) bool {
	w, known := p.view.Chunk(d.Chunk)
	if !known {
		return d.Version > 0 // freed: nobody will ever miss it
	}
	ref, ok := p.table.find(d.Chunk)
	if !ok {
		return false
	}
	s := p.table.at(ref)
	k := p.seatOf(s, server)
	if k < 0 || !p.table.copyAt(s, k).has(refGoing) {
		return false
	}
	valid := 0
	for i := range int(s.n) {
		if p.counts(s, *p.table.copyAt(s, i)) {
			valid++
		}
	}
	if w.Leased || valid < int(w.Goal) {
		p.table.copyAt(s, k).set(refGoing, false)
		p.recount(ref)
		return false
	}
	d.Version = w.Version
	return true
}

// finish takes an order out of all counts.
func (p *Placement) finish(id uint64, o *order) {
	delete(p.orders, id)
	srv := p.servers[o.server]
	switch o.kind {
	case Replicate:
		srv.in--
		p.servers[o.source].out--
	case Verify:
		srv.verifies--
	case Delete:
		srv.deletes--
		srv.dooming = max(0, srv.dooming-len(o.deletes))
		return
	}
	if ref, ok := p.table.find(o.chunk); ok {
		p.table.at(ref).flags &^= slotBusy
	}
}

// Done says how an order has ended. An order that is not known any more, because
// its server went, is passed over.
func (p *Placement) Done(now int64, id uint64, code status.Code) {
	o, ok := p.orders[id]
	if !ok {
		return
	}
	p.finish(id, o)
	switch o.kind {
	case Replicate:
		p.doneReplicate(now, o, code)
	case Verify:
		p.doneVerify(now, o, code)
	case Delete:
		p.doneDelete(now, o, code)
	}
	if o.kind != Delete {
		p.recheck(o.chunk)
	}
}

// again puts off the next try for a chunk, for longer every time.
func (p *Placement) again(now int64, id chunk.ID) {
	r := p.retries[id]
	r.until = now + min(p.cfg.RetryMin<<min(r.fails, 20), p.cfg.RetryMax)
	r.fails = min(r.fails+1, 20)
	p.retries[id] = r
}

func (p *Placement) doneReplicate(now int64, o *order, code status.Code) {
	srv := p.servers[o.server]
	if code != status.OK {
		switch code {
		case status.NoChunk, status.StaleVersion, status.Corrupt: // of the source
			p.again(now, o.chunk)
		case status.NoSpace:
			srv.rest = now + crowded
		default:
			srv.rest = now + p.cfg.RetryMin
			p.again(now, o.chunk)
		}
		return
	}
	delete(p.retries, o.chunk)
	ref, ok := p.table.find(o.chunk)
	w, known := p.view.Chunk(o.chunk)
	if !ok || !known { // freed meanwhile
		srv.doomed = append(srv.doomed, Copy{Chunk: o.chunk, Version: o.version})
		return
	}
	// Under a lease that was granted meanwhile, the copy is not in the set.
	st, _ := judge(o.version, w)
	p.putCopy(p.table.at(ref), o.server, st, false)
}

func (p *Placement) doneVerify(now int64, o *order, code status.Code) {
	ref, ok := p.table.find(o.chunk)
	if !ok {
		return
	}
	s := p.table.at(ref)
	w, known := p.view.Chunk(o.chunk)
	k := p.seatOf(s, o.server)
	if k < 0 || !known || !p.here(*p.table.copyAt(s, k)) {
		return
	}
	c := p.table.copyAt(s, k)
	current := c.state() == Unsure && w.Version == o.version && !w.Leased
	switch {
	case code == status.NoChunk:
		p.dropCopy(s, k)
	case code == status.OK && current:
		*c = c.with(Valid)
	case code == status.StaleVersion && current:
		*c = c.with(Stale)
	case code == status.OK, code == status.StaleVersion:
		return // it is another question by now
	default:
		p.again(now, o.chunk)
		return
	}
	delete(p.retries, o.chunk)
}

func (p *Placement) doneDelete(now int64, o *order, code status.Code) {
	srv := p.servers[o.server]
	if code != status.OK {
		srv.restDel = now + p.cfg.RetryMin
		srv.doomed = append(srv.doomed, o.deletes...)
		return
	}
	for _, d := range o.deletes {
		ref, ok := p.table.find(d.Chunk)
		if !ok {
			continue
		}
		s := p.table.at(ref)
		if k := p.seatOf(s, o.server); k >= 0 && p.table.copyAt(s, k).has(refGoing) {
			p.dropCopy(s, k)
			p.recount(ref)
		}
	}
}
