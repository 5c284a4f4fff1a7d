package sim

import (
	"bytes"
	"fmt"
	"time"

	"github.com/varvefs/varve/master/image"
	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/master/state"
)

// ledger is what the world knows and no host does: what was committed, by whom
// it was served, what was acknowledged. It holds that
//
//   - what was committed at an index is the same on all voters and for ever, and does the
//     same to every tree: equal results at each entry, equal images at every 16th;
//   - a change, known by session and number, takes effect once;
//   - no term has two leaders, and no epoch two masters that answer;
//   - no two processes have a lease at the same moment, each by its own clock;
//   - a master that begins to serve has applied all that was acknowledged;
//   - an answer is not older than what was acknowledged before the question (client.go);
//   - two hosts have the virtual address at once for no longer than the kernel keeps it;
//   - a commit index does not go back, nor the time in the changelog.
type ledger struct {
	w       *world
	chosen  map[uint64]uint64 // index -> sum of term and data
	results map[effect]uint64
	digests map[uint64]uint64
	once    map[once]uint64 // where a change took effect
	leaders map[uint64]*host
	served  map[uint64]*host
	newest  uint64 // entry acknowledged to a client
	last    nanos  // when that was
	both    nanos  // since when two hosts have the address
	times   map[uint64]int64
}

type effect struct {
	index uint64
	nth   int
}

func (l *ledger) begin() {
	l.chosen, l.results, l.digests = map[uint64]uint64{}, map[effect]uint64{}, map[uint64]uint64{}
	l.once = map[once]uint64{}
	if l.leaders == nil {
		l.leaders, l.served = map[uint64]*host{}, map[uint64]*host{}
	}
}

// committed is told of an entry that a process got.
func (l *ledger) committed(p *process, c *journal.Committed) {
	if c.Index != p.index+1 {
		l.w.failf("%v: entry %d follows entry %d", p.h, c.Index, p.index)
	}
	sum := hash(c.Data)*31 + c.Term
	if have, ok := l.chosen[c.Index]; ok && have != sum {
		l.w.failf("%v has another entry %d, of term %d, than was committed before", p.h, c.Index, c.Term)
	}
	l.chosen[c.Index] = sum
	l.w.mix(sum)
}

// applied is told what an entry did.
func (l *ledger) applied(p *process, index uint64, nth int, e *state.Entry, r *state.Result) {
	sum := uint64(r.Code)<<32 ^ uint64(r.Ino)<<8 ^ r.Session<<4 ^ uint64(len(r.Chunks))
	if r.Repeat {
		sum++
	}
	at := effect{index, nth}
	if have, ok := l.results[at]; ok {
		if have != sum {
			l.w.failf("%v: entry %d.%d (%v) has done something else than on another master: %+v", p.h, index, nth, e.Op, *r)
		}
		return
	}
	l.results[at] = sum
	if e.Seq == 0 || r.Repeat || r.Code != 0 {
		return
	}
	key := once{e.Session, e.Seq}
	if first, ok := l.once[key]; ok {
		l.w.failf("request %d of session %d takes effect at entry %d and again at entry %d: %v", e.Seq, e.Session, first, index, e.Op)
	}
	l.once[key] = index
}

// digest compares the whole tree with those of other masters, now and then.
func (l *ledger) digest(p *process) {
	if p.st == nil || p.index%16 != 0 {
		return
	}
	l.compare(p)
}

func (l *ledger) compare(p *process) {
	view := p.st.Freeze()
	defer view.Release()
	var b bytes.Buffer
	if err := image.Write(&b, view, image.Meta{Index: p.index}); err != nil {
		l.w.failf("image: %v", err)
	}
	sum := hash(b.Bytes())
	if have, ok := l.digests[p.index]; ok && have != sum {
		l.w.failf("%v: the tree behind entry %d is not that of another master", p.h, p.index)
	}
	l.digests[p.index] = sum
}

// serves is told that a process begins to serve.
func (l *ledger) serves(p *process) {
	l.w.notef("%v serves epoch %d from entry %d on", p.h, p.helm.Epoch(), p.index)
	if p.index < l.newest && p.log.LeasedIn(p.helm.Epoch()) { // without a lease nobody hears it
		l.w.failf("%v begins to serve epoch %d with entry %d, but entry %d was acknowledged", p.h, p.helm.Epoch(), p.index, l.newest)
	}
}

// spoken is told that an answer of an epoch leaves.
func (l *ledger) spoken(p *process, epoch uint64) {
	if !p.helm.Ready() {
		return
	}
	if other := l.served[epoch]; other != nil && other != p.h {
		l.w.failf("%v and %v both answer in epoch %d", other, p.h, epoch)
	}
	l.served[epoch] = p.h
}

// acknowledged is told that a client has heard of a change that is in the tree
// behind entry index.
func (l *ledger) acknowledged(index uint64) {
	l.newest = max(l.newest, index)
	if l.last != 0 && !l.w.calm {
		l.w.stats.Gap = max(l.w.stats.Gap, time.Duration(l.w.now-l.last))
	}
	l.last = l.w.now
}

// check looks at all that can be seen at this moment.
func (l *ledger) check() {
	var leased, held *host
	two := false
	for _, h := range l.w.hosts {
		if h.hasVIP() {
			two = two || held != nil
			held = h
		}
		p := h.proc
		if p == nil {
			continue
		}
		if until := p.log.Lease(); until != 0 && p.log.Leased() {
			if leased != nil {
				l.w.failf("%v and %v both have a lease", leased, h)
			}
			leased = h
		}
		l.leader(p)
	}
	l.holders(two)
}

// leader looks at the term of a process and at its commit index.
func (l *ledger) leader(p *process) {
	s := p.log.Glance()
	if s.Leader == p.id {
		other, ok := l.leaders[s.Term]
		if ok && other != p.h {
			l.w.failf("%v and %v both lead term %d", other, p.h, s.Term)
		}
		if !ok {
			l.w.stats.Elections++
			l.w.notef("%v leads term %d", p.h, s.Term)
		}
		l.leaders[s.Term] = p.h
	}
	if s.Commit < p.commitSeen {
		l.w.failf("%v: the commit index goes back from %d to %d", p.h, p.commitSeen, s.Commit)
	}
	p.commitSeen = s.Commit
}

// holders looks how long two hosts have had the address.
func (l *ledger) holders(two bool) {
	if !two {
		l.both = 0
		return
	}
	if l.both == 0 {
		l.both = l.w.now
		l.w.notef("two hosts have the virtual address")
	}
	d := time.Duration(l.w.now - l.both)
	l.w.stats.Overlap = max(l.w.stats.Overlap, d)
	if d > lifetime+lifetime*drift/1e6 {
		l.w.failf("two hosts have had the virtual address for %v", d)
	}
}

// atEnd looks whether all that was acknowledged is there, on all voters.
func (l *ledger) atEnd() {
	w := l.w
	for _, h := range w.hosts {
		p := h.proc
		if p.st == nil {
			continue
		}
		l.compare(p)
		for _, c := range w.client {
			for name, ino := range c.names {
				if have, ok := p.st.Lookup(1, name); !ok || have != ino {
					w.failf("%v: %s, acknowledged as %v to client %d, is %v (there: %v)", h, name, ino, c.n, have, ok)
				}
			}
		}
		if err := p.st.Check(); err != nil {
			w.failf("%v: the tree is not whole: %v", h, err)
		}
	}
	w.notef("at rest: %s", fmt.Sprintf("%+v", w.stats))
}
