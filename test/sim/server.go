package sim

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/master/helm"
	"github.com/varvefs/varve/master/image"
	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/status"
)

// server is what the loop of package master is to the changelog and to mounts; of
// what it does for them only changes, one kind of read, and memory of requests.
type server struct {
	helm  *helm.Helm
	st    *state.State // nil: a metalogger
	index uint64       // of the last entry applied
	term  uint64

	inbox    []func()
	looked   bool
	early    []func()
	batch    *batch
	inFlight int
	lastTime int64
	pending  map[once]*change // requests under way

	images  []position // on the disk, newest first
	saving  bool
	imageAt uint64
}

type position struct{ index, term uint64 }

type once struct{ session, seq uint64 }

// change is a request that becomes an entry.
type change struct {
	entry state.Entry
	reply func(reply) // to whoever asked last
}

type batch struct {
	entries []state.Entry
	changes []*change
	data    []byte
	life    uint64
}

// reply is what a client hears.
type reply struct {
	err   status.Code // NotLeader: ask the others
	epoch uint64
	index uint64 // that the master had applied when it made the answer
	res   state.Result
	found bool // of a read
	ino   inode.Ino
}

const (
	maxInFlight  = 2  // as in package master
	imageEntries = 60 // between two images
)

// loadState reads the newest image.
func (p *process) loadState() (at position, err error) {
	names, err := p.h.disk.List()
	if err != nil {
		return at, err
	}
	for _, name := range names {
		text, ok := strings.CutPrefix(name, "image.")
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(text, 16, 64)
		if err != nil {
			p.w.failf("%v: file %s", p.h, name)
		}
		p.images = append([]position{{index: n}}, p.images...)
	}
	p.st = state.New(0)
	if len(p.images) > 0 {
		if at, err = p.readImage(p.images[0].index); err != nil {
			return at, err
		}
	}
	if !p.h.master {
		p.st = nil
	}
	return at, nil
}

func imageName(index uint64) string { return fmt.Sprintf("image.%016x", index) }

func (p *process) readImage(index uint64) (at position, err error) {
	b, err := p.h.disk.Read(imageName(index))
	if err != nil {
		return at, err
	}
	st, meta, err := image.Read(bytes.NewReader(b))
	if err != nil {
		p.w.failf("%v: image %d: %v", p.h, index, err)
	}
	p.st = st
	return position{meta.Index, meta.Term}, nil
}

func (p *process) newServer(at position) {
	p.helm = helm.New(p.log.LeasedIn)
	p.index, p.term, p.imageAt = at.index, at.term, at.index
	p.pending = map[once]*change{}
}

// wakeLoop has the loop take a turn.
func (p *process) wakeLoop() {
	if p.looked || p.dead {
		return
	}
	p.looked = true
	p.loop.post(func() {
		p.looked = false
		p.loopTurn()
	})
}

// loopTurn takes one thing that waits, whichever, and comes back if there is more.
func (p *process) loopTurn() {
	var ready []func()
	if len(p.committed) > 0 {
		ready = append(ready, p.takeCommitted)
	}
	if len(p.log.Leading()) > 0 {
		ready = append(ready, func() { p.leadership(<-p.log.Leading()) })
	}
	if len(p.inbox) > 0 {
		ready = append(ready, p.serve)
	}
	if len(ready) > 0 {
		ready[p.w.rng.IntN(len(ready))]()
	}
	if p.dead {
		return
	}
	if p.batch != nil && p.inFlight < maxInFlight {
		p.propose()
	}
	if !p.helm.LetGo() {
		p.loopSoon(2 * ms)
	}
	if len(p.committed)+len(p.inbox)+len(p.log.Leading()) > 0 {
		p.wakeLoop()
	}
	p.maySave()
}

func (p *process) loopSoon(d nanos) {
	p.w.after(p.h.real(d), func() {
		if !p.dead {
			p.wakeLoop()
		}
	})
}

func (p *process) serve() {
	list := p.inbox
	p.inbox = nil
	for _, f := range list {
		f()
	}
}

func (p *process) takeCommitted() {
	list := p.committed[0]
	p.committed = p.committed[1:]
	p.wakeDriver() // it may have more
	for i := range list {
		p.commit(&list[i])
		if p.dead {
			return
		}
	}
}

// commit is package master's committed, and a metalogger's.
func (p *process) commit(c *journal.Committed) {
	b, own := c.Tag.(*batch)
	own = own && b.life == p.helm.Life()
	if own {
		p.inFlight--
	}
	switch {
	case c.Err != nil:
		if own {
			p.failBatch(b)
		}
		return
	case c.Image:
		p.reload(position{c.Index, c.Term})
		return
	}
	p.w.ledger.committed(p, c)
	p.index, p.term = c.Index, c.Term
	if p.st != nil {
		switch {
		case own:
			for i := range b.entries {
				res := p.st.Apply(&b.entries[i])
				p.w.ledger.applied(p, c.Index, i, &b.entries[i], &res)
				p.answered(b.changes[i], res)
			}
		case len(c.Data) > 0:
			entries, err := state.DecodeBatch(c.Data)
			if err != nil {
				p.w.failf("%v: entry %d: %v", p.h, c.Index, err)
			}
			for i := range entries {
				res := p.st.Apply(&entries[i])
				p.w.ledger.applied(p, c.Index, i, &entries[i], &res)
			}
		}
	}
	p.w.ledger.digest(p)
	if c.Data == nil && !c.Members {
		p.helm.CaughtUp(c.Term)
		p.lead()
	}
}

// reload goes on from an image that was fetched.
func (p *process) reload(at position) {
	have, err := p.readImage(at.index)
	if err != nil {
		p.fail(err)
		return
	}
	if have != at {
		p.w.failf("%v goes on behind entry %v, its image is of %v", p.h, at, have)
	}
	p.index, p.term, p.imageAt = at.index, at.term, at.index
	if !p.h.master {
		p.st = nil
	}
	p.w.ledger.digest(p)
}

func (p *process) leadership(news journal.Leadership) {
	if p.helm.Leadership(news) {
		p.w.notef("%v leads no longer", p.h)
		p.ready = false
		p.batch, p.inFlight, p.early = nil, 0, nil
		p.pending = map[once]*change{}
	}
	p.lead()
}

// lead begins to serve when all of former leaders is applied.
func (p *process) lead() {
	if p.st == nil || !p.helm.MayServe() {
		return
	}
	p.helm.Serve()
	p.ready = true
	p.w.ledger.serves(p)
	for _, f := range p.early {
		p.inbox = append(p.inbox, f)
	}
	p.early = nil
	p.wakeLoop()
}

// ask is a request that arrives; answer takes the reply back. It is on the loop.
func (p *process) ask(do func(answer func(reply)), answer func(reply)) {
	p.inbox = append(p.inbox, func() { p.enter(do, answer) })
	p.wakeLoop()
}

func (p *process) enter(do func(func(reply)), answer func(reply)) {
	switch {
	case p.helm.Ready():
		do(answer)
	case p.helm.Leading() && p.st != nil:
		p.early = append(p.early, func() { p.enter(do, answer) })
	default:
		answer(reply{err: status.NotLeader})
	}
}

// send lets a reply go when it may.
func (p *process) send(answer func(reply), r reply) {
	r.epoch, r.index = p.helm.Epoch(), p.index
	if p.helm.Send(func() {
		p.w.ledger.spoken(p, r.epoch)
		answer(r)
	}) {
		p.w.stats.Withheld++
		p.loopSoon(2 * ms)
	}
}

// begin is a change that a client asks for.
func (p *process) begin(e state.Entry, answer func(reply)) {
	key := once{e.Session, e.Seq}
	if e.Seq != 0 {
		if res, ok := p.st.Replied(e.Session, e.Seq); ok {
			p.send(answer, reply{res: res})
			return
		}
		if c := p.pending[key]; c != nil {
			c.reply = answer
			return
		}
	}
	c := &change{entry: e, reply: answer}
	if e.Seq != 0 {
		p.pending[key] = c
	}
	if p.batch == nil {
		p.batch = &batch{life: p.helm.Life()}
	}
	b := p.batch
	p.lastTime = max(p.lastTime, p.h.wallClock(), p.st.Time())
	c.entry.Time = p.lastTime
	b.entries = append(b.entries, c.entry)
	b.changes = append(b.changes, c)
	b.data = state.AppendEntry(b.data, &c.entry)
}

func (p *process) propose() {
	b := p.batch
	p.batch = nil
	if err := p.log.Propose(b.data, b); err != nil {
		p.failBatch(b)
		return
	}
	p.inFlight++
	p.wakeDriver()
}

func (p *process) failBatch(b *batch) {
	for _, c := range b.changes {
		delete(p.pending, once{c.entry.Session, c.entry.Seq})
		p.send(c.reply, reply{err: status.NotLeader})
	}
}

func (p *process) answered(c *change, res state.Result) {
	delete(p.pending, once{c.entry.Session, c.entry.Seq})
	p.send(c.reply, reply{res: res})
}

// look is a client's read. The process may be stopped between the look at the
// tree and the moment when the reply leaves.
func (p *process) look(name string, answer func(reply)) {
	ino, ok := p.st.Lookup(inode.Root, name)
	r := reply{found: ok, ino: ino, index: p.index, epoch: p.helm.Epoch()}
	if !p.w.calm && p.w.one(200) {
		d := p.w.between(10*ms, 3000*ms)
		p.w.notef("%v is stopped for %v while it makes a reply", p.h, d)
		p.w.stats.Pauses++
		p.stopped = max(p.stopped, p.w.now+d)
		p.loop.first(func() { p.sendRead(answer, r) })
		return
	}
	p.sendRead(answer, r)
}

func (p *process) sendRead(answer func(reply), r reply) {
	if p.helm.Send(func() {
		p.w.ledger.spoken(p, r.epoch)
		answer(r)
	}) {
		p.w.stats.Withheld++
		p.loopSoon(2 * ms)
	}
}
