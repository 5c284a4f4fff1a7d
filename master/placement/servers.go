package placement

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/varvefs/varve/chunk"
)

// server is one chunkserver, up or down.
type server struct {
	info     ServerInfo
	up       bool
	ready    bool   // its list of copies is complete
	awaited  bool   // the changelog knows it, and it has not been ready yet
	at       int64  // when it came or went
	promised uint64 // bytes for which it was chosen since its last beat
	rest     int64  // until then it gets no copies: it failed to make one
	restDel  int64  // the same for deletes

	seat  uint16   // of the copies that it has told since it last came
	ghost []uint16 // seats of what it had before, until it has told all anew

	in, out  int // Replicate orders in flight
	verifies int
	deletes  int    // Delete orders in flight
	doomed   []Copy // copies to be deleted, not yet ordered
	dooming  int    // copies in Delete orders in flight
}

// seat is a number under which copies of one server are known. A server gets a
// new one whenever it comes: copies under an old one are what it had before.
type seat struct {
	server  int32 // index in Placement.servers
	used    bool
	retired bool // its copies are gone and are being forgotten by a sweep
	copies  uint64
}

// tellingLimit is how long a server may take to tell all that it has before the
// rest of the cluster goes on without it.
const tellingLimit = 600 * second

// ghostLimit bounds the seats of a server that comes and goes without ever
// telling all that it has.
const ghostLimit = 4

// promise is what one new chunk is taken to need until a beat tells better. Most
// chunks never get near their full size.
const promise = 1 << 20

// takeSeat gives a server a new seat.
func (p *Placement) takeSeat(i int) uint16 {
	for n := range p.seats {
		if !p.seats[n].used {
			p.seats[n] = seat{server: int32(i), used: true}
			return uint16(n)
		}
	}
	if len(p.seats) == maxSeats {
		panic(fmt.Sprintf("BUG: more than %d chunkservers", maxSeats))
	}
	p.seats = append(p.seats, seat{server: int32(i), used: true})
	return uint16(len(p.seats) - 1)
}

// retire forgets a seat: its copies are no more.
func (p *Placement) retire(n uint16) {
	p.seats[n].retired = true
	p.startSweep()
}

// serverOf returns the server of a copy.
func (p *Placement) serverOf(c copyRef) *server { return p.servers[p.seats[c.seat()].server] }

// here reports whether a copy can be used now: its server is up and has told of it.
func (p *Placement) here(c copyRef) bool {
	n := c.seat()
	srv := p.servers[p.seats[n].server]
	return srv.up && srv.seat == n && !p.seats[n].retired
}

// lookup finds a server by its identity.
func (p *Placement) lookup(id chunk.Server) (int, bool) {
	i, ok := p.byID[id]
	return i, ok
}

func (p *Placement) enroll(id chunk.Server, now int64) int {
	i := len(p.servers)
	p.servers = append(p.servers, &server{info: ServerInfo{ID: id}, at: now, seat: p.takeSeat(i)})
	p.byID[id] = i
	return i
}

// Start says which servers the changelog knows. Nothing is repaired or removed
// until all of them have come and told what they have, or Config.Delay is over.
func (p *Placement) Start(now int64, known []chunk.Server) {
	p.hold = now + p.cfg.Delay
	for _, id := range known {
		if _, ok := p.lookup(id); !ok {
			p.servers[p.enroll(id, now)].awaited = true
		}
	}
}

// held reports whether it is too early after the start to judge what is missing.
// A server that is telling what it has is waited for much longer than one that
// does not come.
func (p *Placement) held(now int64) bool {
	telling, absent := false, false
	for _, s := range p.servers {
		if s.awaited && s.up {
			telling = true
		} else if s.awaited {
			absent = true
		}
	}
	return absent && now < p.hold || telling && now < p.hold+tellingLimit
}

// ServerUp says that a server has registered. Its reports follow.
func (p *Placement) ServerUp(now int64, info ServerInfo) {
	i, ok := p.lookup(info.ID)
	if !ok {
		i = p.enroll(info.ID, now)
	} else {
		if p.servers[i].up {
			p.ServerDown(now, info.ID)
		}
		srv := p.servers[i]
		srv.ghost = append(srv.ghost, srv.seat)
		if len(srv.ghost) > ghostLimit {
			p.retire(srv.ghost[0])
			srv.ghost = srv.ghost[1:]
		}
		srv.seat = p.takeSeat(i)
	}
	srv := p.servers[i]
	srv.info, srv.up, srv.ready, srv.at = info, true, false, now
	srv.promised, srv.rest, srv.restDel = 0, 0, 0
}

// Beat brings a server's space up to date.
func (p *Placement) Beat(now int64, info ServerInfo) {
	i, ok := p.lookup(info.ID)
	if !ok || !p.servers[i].up {
		return
	}
	srv := p.servers[i]
	poor := srv.info.Free < p.cfg.Reserve
	srv.info, srv.promised = info, 0
	if poor && info.Free >= p.cfg.Reserve {
		p.startSweep() // it can take what nobody else could
	}
}

// ServerDown says that a server is gone. What it was ordered to do is void; Done
// for it does nothing.
func (p *Placement) ServerDown(now int64, id chunk.Server) {
	i, ok := p.lookup(id)
	if !ok || !p.servers[i].up {
		return
	}
	srv := p.servers[i]
	srv.up, srv.ready, srv.at = false, false, now
	for _, oid := range slices.Sorted(maps.Keys(p.orders)) {
		if o := p.orders[oid]; o.server == i {
			p.finish(oid, o)
			p.recheck(o.chunk)
		}
	}
	srv.doomed, srv.dooming = nil, 0
	p.startSweep()
}

// Forget removes a server that is down for good, with its copies.
func (p *Placement) Forget(id chunk.Server) {
	i, ok := p.lookup(id)
	if !ok || p.servers[i].up {
		return
	}
	srv := p.servers[i]
	for _, n := range append(srv.ghost, srv.seat) {
		p.retire(n)
	}
	srv.ghost = nil
	srv.seat = p.takeSeat(i) // seats must have a server; nothing will sit here
	srv.info.Total, srv.info.Free = 0, 0
	delete(p.byID, id)
}

// Place chooses n servers for a new chunk, or for a copy, by free space. None of
// exclude is chosen. Fewer than n come back when there are not enough.
func (p *Placement) Place(now int64, n int, exclude []chunk.Server) []chunk.Server {
	var out []chunk.Server
	for reserve := p.cfg.Reserve; ; reserve = 0 {
		for len(out) < n {
			srv := p.pick(func(s *server) bool {
				return s.rest <= now && s.room() > reserve && !slices.Contains(exclude, s.info.ID) && !slices.Contains(out, s.info.ID)
			})
			if srv == nil {
				break
			}
			srv.promised += promise
			out = append(out, srv.info.ID)
		}
		if reserve == 0 || len(out) == n {
			return out
		}
	}
}

// room is the free space that was not promised away.
func (s *server) room() uint64 {
	if s.promised >= s.info.Free {
		return 0
	}
	return s.info.Free - s.promised
}

// pick draws one of the servers that are up and that ok allows; free space is
// their chance.
func (p *Placement) pick(ok func(*server) bool) *server {
	var sum uint64
	var found *server
	for _, s := range p.servers {
		if !s.up || !ok(s) {
			continue
		}
		w := s.room()>>20 + 1
		sum += w
		if p.random(sum) < w {
			found = s
		}
	}
	return found
}

// random returns a number below n (splitmix64; its bias does not matter here).
func (p *Placement) random(n uint64) uint64 {
	p.seed += 0x9e3779b97f4a7c15
	return mix(p.seed) % n
}

// Servers lists all servers in the order of their identities.
func (p *Placement) Servers() []ServerStats {
	var out []ServerStats
	for id, i := range p.byID {
		s := p.servers[i]
		st := ServerStats{ServerInfo: s.info, Up: s.up, Ready: s.ready, Incoming: s.in, Outgoing: s.out, Deleting: len(s.doomed) + s.dooming}
		st.ID = id
		st.Copies = p.seats[s.seat].copies
		if !s.ready { // what it had is all that is known
			for _, n := range s.ghost {
				st.Copies = max(st.Copies, p.seats[n].copies)
			}
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b ServerStats) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
