package placement

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/status"
)

var simTrace = flag.Int("sim.trace", 40, "lines of a failed simulation to print")

// held is one copy on a simulated chunkserver's disk. Its content is told by the
// number of the last write that it took.
type held struct {
	version chunk.Version
	gen     int
	rotten  bool
}

// box is a simulated chunkserver.
type box struct {
	id     chunk.Server
	up     bool
	disk   map[chunk.ID]held
	told   []Copy     // still to be reported
	news   []chunk.ID // copies that appeared
	letter []Copy     // news on their way
	orders []Order
}

// writer is an open lease.
type writer struct{ set []chunk.Server }

// cluster is a master with its changelog, chunkservers and writers: everything
// around a Placement, with the faults that happen.
type cluster struct {
	t       *testing.T
	rnd     *rand.Rand
	now     int64
	f       *files
	p       *Placement
	boxes   []*box
	gens    map[chunk.ID]int // what the newest write of a chunk was
	writers map[chunk.ID]*writer
	calm    bool // no more faults
	trace   []string
}

var simConfig = Config{Incoming: 2, Outgoing: 3, Deletes: 2, DeleteBatch: 3, Sweep: 7, OrphanDelay: 5 * second, Reserve: 1 << 30}

func newCluster(t *testing.T, seed uint64) *cluster {
	c := &cluster{
		t: t, rnd: rand.New(rand.NewPCG(seed, 7)),
		f:    &files{chunks: map[chunk.ID]Want{}, next: 1},
		gens: map[chunk.ID]int{}, writers: map[chunk.ID]*writer{},
	}
	for i := range 3 + c.rnd.IntN(5) {
		c.boxes = append(c.boxes, &box{id: chunk.Server(i + 1), disk: map[chunk.ID]held{}})
	}
	c.restart()
	return c
}

func (c *cluster) log(format string, args ...any) {
	c.trace = append(c.trace, fmt.Sprintf("%.2f ", float64(c.now)/1e9)+fmt.Sprintf(format, args...))
}

func (c *cluster) fatalf(format string, args ...any) {
	c.t.Helper()
	for _, line := range c.trace[max(0, len(c.trace)-*simTrace):] {
		c.t.Log(line)
	}
	c.t.Fatalf(format, args...)
}

// restart gives the master a new Placement; chunkservers have to register again.
func (c *cluster) restart() {
	c.log("master restarts")
	c.p = New(simConfig, c.f)
	var known []chunk.Server
	for _, b := range c.boxes {
		known = append(known, b.id)
		c.settleOrders(b)
		b.up, b.told = false, nil
	}
	c.p.Start(c.now, known)
	for _, id := range slices.Sorted(maps.Keys(c.f.chunks)) {
		c.p.Load(id)
	}
}

// settleOrders ends what a server was ordered to do over a connection that is
// gone: each order was carried out, or never will be.
func (c *cluster) settleOrders(b *box) {
	for _, o := range b.orders {
		if c.rnd.IntN(2) == 0 {
			c.execute(b, o)
		}
	}
	b.orders = nil
}

func (c *cluster) box(id chunk.Server) *box { return c.boxes[id-1] }

func (c *cluster) up(b *box) {
	c.log("server %d up", b.id)
	b.up, b.news, b.letter = true, nil, nil
	c.p.ServerUp(c.now, ServerInfo{ID: b.id, Total: 100 << 30, Free: uint64(c.rnd.IntN(100)) << 30})
	b.told = nil
	for _, id := range slices.Sorted(maps.Keys(b.disk)) {
		b.told = append(b.told, Copy{Chunk: id, Version: b.disk[id].version})
	}
	b.told = append(b.told, Copy{}) // the end of the list
	if c.rnd.IntN(2) == 0 {
		c.tell(b, len(b.told))
	}
}

// tell reports the next n copies of a server's list, as they are now.
func (c *cluster) tell(b *box, n int) {
	var list []Copy
	var rotten []chunk.ID
	last := false
	for _, k := range b.told[:n] {
		if k.Chunk == 0 {
			last = true
		} else if h, ok := b.disk[k.Chunk]; ok {
			list = append(list, Copy{Chunk: k.Chunk, Version: h.version})
			if h.rotten {
				rotten = append(rotten, k.Chunk)
			}
		}
	}
	b.told = b.told[n:]
	c.p.Report(c.now, b.id, list, last)
	c.p.Damaged(b.id, rotten)
}

func (c *cluster) down(b *box) {
	c.log("server %d down", b.id)
	b.up, b.told = false, nil
	c.p.ServerDown(c.now, b.id)
	c.settleOrders(b)
}

// good counts the copies that hold the newest write.
func (c *cluster) good(id chunk.ID) int {
	n := 0
	for _, b := range c.boxes {
		if h, ok := b.disk[id]; ok && h.gen == c.gens[id] && !h.rotten {
			n++
		}
	}
	return n
}

// execute carries out an order on a server.
func (c *cluster) execute(b *box, o Order) status.Code {
	switch o.Kind {
	case Delete:
		for _, d := range o.Deletes {
			if h, ok := b.disk[d.Chunk]; ok && h.version <= d.Version {
				before := c.good(d.Chunk)
				delete(b.disk, d.Chunk)
				if _, lives := c.f.chunks[d.Chunk]; lives && before > 0 && c.good(d.Chunk) == 0 {
					c.fatalf("the last good copy of chunk %d was deleted on server %d", d.Chunk, b.id)
				}
			}
		}
	case Verify:
		h, ok := b.disk[o.Chunk]
		switch {
		case !ok:
			return status.NoChunk
		case h.version != o.Version:
			return status.StaleVersion
		}
	case Replicate:
		for _, from := range o.From {
			src := c.box(from)
			h, ok := src.disk[o.Chunk]
			if !src.up || !ok || h.version != o.Version || h.rotten {
				continue
			}
			b.disk[o.Chunk] = h
			b.news = append(b.news, o.Chunk)
			return status.OK
		}
		return status.StaleVersion
	}
	return status.OK
}

// next takes the orders and checks that they respect the limits.
func (c *cluster) next() {
	for _, o := range c.p.Next(c.now) {
		c.log("order %d: server %d %v chunk %d version %d from %v deletes %v", o.ID, o.Server, o.Kind, o.Chunk, o.Version, o.From, o.Deletes)
		b := c.box(o.Server)
		if !b.up {
			c.fatalf("an order for server %d, which is down", o.Server)
		}
		if slices.Contains(o.From, o.Server) || o.Kind == Replicate && len(o.From) == 0 || len(o.Deletes) > simConfig.DeleteBatch {
			c.fatalf("a bad order: %+v", o)
		}
		b.orders = append(b.orders, o)
	}
	in, out, del := map[chunk.Server]int{}, map[chunk.Server]int{}, map[chunk.Server]int{}
	for _, b := range c.boxes {
		for _, o := range b.orders {
			switch o.Kind {
			case Replicate:
				in[o.Server]++
				out[o.From[0]]++
			case Delete:
				del[o.Server]++
			}
		}
	}
	for _, b := range c.boxes {
		if in[b.id] > simConfig.Incoming || out[b.id] > simConfig.Outgoing || del[b.id] > simConfig.Deletes {
			c.fatalf("server %d makes %d and gives %d copies, and has %d delete orders", b.id, in[b.id], out[b.id], del[b.id])
		}
	}
}

// finish ends one order of a server.
func (c *cluster) finish(b *box) {
	k := c.rnd.IntN(len(b.orders))
	o := b.orders[k]
	b.orders = slices.Delete(b.orders, k, k+1)
	code := status.Timeout
	if c.calm || c.rnd.IntN(10) > 0 {
		code = c.execute(b, o)
	}
	c.log("order %d done: %v", o.ID, code)
	c.p.Done(c.now, o.ID, code)
}

// mail writes down what copies have appeared on a server, or hands it over. In
// between, they may be gone again.
func (c *cluster) mail(b *box) {
	if len(b.letter) > 0 {
		c.p.Report(c.now, b.id, b.letter, false)
		b.letter = nil
		return
	}
	for _, id := range b.news {
		if h, ok := b.disk[id]; ok {
			b.letter = append(b.letter, Copy{Chunk: id, Version: h.version})
		}
	}
	b.news = nil
}

func (c *cluster) anyChunk() (chunk.ID, bool) {
	all := slices.Sorted(maps.Keys(c.f.chunks))
	if len(all) == 0 {
		return 0, false
	}
	return all[c.rnd.IntN(len(all))], true
}

func (c *cluster) create() {
	goal := uint8(1 + c.rnd.IntN(4))
	set := c.p.Place(c.now, int(goal), nil)
	if len(set) == 0 {
		return
	}
	distinct := slices.Clone(set)
	slices.Sort(distinct)
	if len(slices.Compact(distinct)) != len(set) {
		c.fatalf("placed on %v", set)
	}
	id := c.f.next
	c.f.next++
	c.f.chunks[id] = Want{Version: 1, Min: 1, Goal: goal, Leased: true}
	c.p.Created(id, set)
	c.writers[id] = &writer{set: set}
	c.log("chunk %d created on %v, goal %d", id, set, goal)
	if c.rnd.IntN(3) > 0 {
		c.write(id)
	}
}

func (c *cluster) lease() {
	id, ok := c.anyChunk()
	if !ok || c.f.chunks[id].Leased {
		return
	}
	if !slices.ContainsFunc(c.p.Copies(id), func(k CopyInfo) bool { return k.State == Valid && k.Up && !k.Deleting }) {
		return
	}
	w := c.f.chunks[id]
	w.Min, w.Version, w.Leased = w.Version, w.Version+1, true
	c.f.chunks[id] = w
	set := c.p.Lease(id)
	c.log("chunk %d leased at version %d on %v", id, w.Version, set)
	if len(set) == 0 {
		c.fatalf("a lease without servers")
	}
	c.writers[id] = &writer{set: set}
}

// write has the writer of a chunk write, leave out who fails, and end the lease.
func (c *cluster) write(id chunk.ID) {
	wr, w := c.writers[id], c.f.chunks[id]
	var alive []chunk.Server
	for _, s := range wr.set {
		_, has := c.box(s).disk[id]
		if c.box(s).up && (has || c.gens[id] == 0) {
			alive = append(alive, s)
		}
	}
	if len(alive) == 0 {
		return // it waits
	}
	if len(alive) < len(wr.set) {
		w.Version++
		w.Min = w.Version
		c.f.chunks[id] = w
		c.log("chunk %d: the writer goes on at version %d with %v", id, w.Version, alive)
		c.p.LeaseFail(id, alive)
	}
	c.gens[id]++
	for _, s := range alive {
		b := c.box(s)
		if _, has := b.disk[id]; !has {
			b.news = append(b.news, id)
		}
		b.disk[id] = held{version: w.Version, gen: c.gens[id], rotten: b.disk[id].rotten}
	}
	w.Min, w.Leased = w.Version, false
	c.f.chunks[id] = w
	delete(c.writers, id)
	c.log("chunk %d written at version %d on %v", id, w.Version, alive)
	c.p.LeaseEnd(id, true)
}

// reconcile ends the lease of a writer that has nobody left to write to: the
// newest copies that there are become the truth.
func (c *cluster) reconcile(id chunk.ID) {
	w := c.f.chunks[id]
	best := -1
	for _, b := range c.boxes {
		if h, ok := b.disk[id]; ok && h.version >= w.Min && h.version <= w.Version {
			best = max(best, h.gen)
		}
	}
	var set []chunk.Server
	w.Version++
	for _, b := range c.boxes {
		if h, ok := b.disk[id]; ok && h.version >= w.Min && h.version < w.Version && h.gen == best {
			h.version = w.Version
			b.disk[id] = h
			set = append(set, b.id)
		}
	}
	w.Min, w.Leased = w.Version, false
	c.f.chunks[id] = w
	if best < 0 {
		best = 1 << 30 // nobody has it: it is lost
	}
	c.gens[id] = best
	delete(c.writers, id)
	c.log("chunk %d reconciled at version %d on %v", id, w.Version, set)
	c.p.Settle(id, set)
}

// leaveUnwritten ends a lease without a write.
func (c *cluster) leaveUnwritten(id chunk.ID) {
	w := c.f.chunks[id]
	if c.gens[id] == 0 { // new: there was nothing before
		delete(c.f.chunks, id)
		delete(c.writers, id)
		c.log("chunk %d was never written", id)
		c.p.Freed(id, w.Version)
		return
	}
	if w.Min == w.Version {
		return // after a failed hop
	}
	w.Version, w.Leased = w.Min, false
	c.f.chunks[id] = w
	delete(c.writers, id)
	c.log("chunk %d: the lease ends without a write", id)
	c.p.LeaseEnd(id, false)
}

func (c *cluster) free() {
	if id, ok := c.anyChunk(); ok {
		v := c.f.chunks[id].Version
		delete(c.f.chunks, id)
		delete(c.writers, id)
		c.log("chunk %d freed", id)
		c.p.Freed(id, v)
	}
}

func (c *cluster) regoal() {
	if id, ok := c.anyChunk(); ok {
		w := c.f.chunks[id]
		w.Goal = uint8(1 + c.rnd.IntN(4))
		c.f.chunks[id] = w
		c.log("chunk %d has goal %d now", id, w.Goal)
		c.p.Changed(id)
	}
}

// spoil loses or damages a copy. Never while a delete for the chunk is under way
// anywhere: nobody could save it then.
func (c *cluster) spoil() {
	b := c.boxes[c.rnd.IntN(len(c.boxes))]
	if !b.up || len(b.disk) == 0 {
		return
	}
	all := slices.Sorted(maps.Keys(b.disk))
	id := all[c.rnd.IntN(len(all))]
	for _, other := range c.boxes {
		for _, o := range other.orders {
			if slices.ContainsFunc(o.Deletes, func(d Copy) bool { return d.Chunk == id }) {
				return
			}
		}
	}
	if c.rnd.IntN(2) == 0 {
		c.log("server %d loses chunk %d", b.id, id)
		delete(b.disk, id)
		c.p.Lost(b.id, []chunk.ID{id})
		return
	}
	c.log("chunk %d rots on server %d", id, b.id)
	h := b.disk[id]
	h.rotten = true
	b.disk[id] = h
	c.p.Damaged(b.id, []chunk.ID{id})
}

// step does something at random.
func (c *cluster) step() {
	c.now += c.rnd.Int64N(second / 5)
	b := c.boxes[c.rnd.IntN(len(c.boxes))]
	switch n := c.rnd.IntN(100); {
	case n < 25:
		c.next()
	case n < 50:
		if len(b.orders) > 0 {
			c.finish(b)
		}
	case n < 58:
		if len(b.told) > 0 && b.up {
			c.tell(b, 1+c.rnd.IntN(len(b.told)))
		}
	case n < 62:
		if b.up && len(b.told) == 0 {
			c.mail(b)
		}
	case n < 68:
		if !b.up {
			c.up(b)
		}
	case n < 70:
		if b.up {
			c.down(b)
		}
	case n < 79:
		c.create()
	case n < 84:
		c.lease()
	case n < 92:
		if ids := slices.Sorted(maps.Keys(c.writers)); len(ids) > 0 {
			id := ids[c.rnd.IntN(len(ids))]
			if c.rnd.IntN(3) > 0 {
				c.write(id)
			} else {
				c.leaveUnwritten(id)
			}
		}
	case n < 94:
		c.free()
	case n < 96:
		c.regoal()
	case n < 99:
		c.spoil()
	default:
		if c.rnd.IntN(4) == 0 {
			c.restart()
		}
	}
}

// converge lets everything come back and waits until nothing is left to do.
func (c *cluster) converge() {
	c.calm = true
	c.log("calm")
	for _, b := range c.boxes {
		if !b.up {
			c.up(b)
		}
		c.tell(b, len(b.told))
		c.p.Beat(c.now, ServerInfo{ID: b.id, Total: 100 << 30, Free: 50 << 30})
	}
	for _, id := range slices.Sorted(maps.Keys(c.writers)) {
		c.write(id)
		if c.writers[id] != nil {
			c.reconcile(id)
		}
	}
	for _, b := range c.boxes {
		c.mail(b)
		c.mail(b)
	}
	for idle, rounds := 0, 0; idle < 400; idle, rounds = idle+1, rounds+1 {
		if rounds > 20_000 {
			c.fatalf("never at rest: %+v", c.p.Stats())
		}
		c.now += second / 2
		c.next()
		for _, b := range c.boxes {
			for len(b.orders) > 0 {
				c.finish(b)
				idle = 0
			}
			c.mail(b)
			c.mail(b)
		}
	}
}

// converged checks that every chunk is where it should be and nothing else is.
func (c *cluster) converged() {
	for id, w := range c.f.chunks {
		want := min(int(w.Goal), len(c.boxes))
		good, bad := c.good(id), 0
		for _, b := range c.boxes {
			if h, ok := b.disk[id]; ok && (h.gen != c.gens[id] || h.rotten) {
				bad++
			}
		}
		switch {
		case good == want && bad == 0:
		case good == 0: // all were lost or spoilt
			if n := c.p.Matrix()[w.Goal][0]; n == 0 {
				c.fatalf("chunk %d is lost, but not counted as missing", id)
			}
		default:
			c.fatalf("chunk %d with goal %d has %d good and %d bad copies on %d servers: %+v", id, w.Goal, good, bad, len(c.boxes), c.p.Copies(id))
		}
	}
	for _, b := range c.boxes {
		for id := range b.disk {
			if _, ok := c.f.chunks[id]; !ok {
				c.fatalf("server %d still has chunk %d, which was freed", b.id, id)
			}
		}
	}
	if st := c.p.Stats(); st.Replicating+st.Deleting+st.Leased+st.Orphans+st.OverGoal > 0 {
		c.fatalf("not at rest: %+v", st)
	}
}

func TestSimulation(t *testing.T) {
	base := uint64(time.Now().UnixNano())
	rounds := 150
	if testing.Short() {
		rounds = 20
	}
	for i := range uint64(rounds) {
		seed := base + i
		ok := t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) { simulate(t, seed) })
		if !ok {
			return
		}
	}
}

func simulate(t *testing.T, seed uint64) {
	c := newCluster(t, seed)
	for n := range 600 {
		c.step()
		if n%10 == 0 {
			check(t, c.p)
		}
	}
	c.converge()
	check(t, c.p)
	c.converged()
}
