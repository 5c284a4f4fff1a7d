package segment

import (
	"cmp"
	"errors"
	"math"
	"slices"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
)

// cursor yields the entries of segments that follow each other in one head, in the order
// of their LSNs. The next few segments are read and decoded ahead.
type cursor struct {
	r     *recovery
	list  []*found      // segments in order that are not yet being read
	ahead []chan *batch // those that are, in order
	now   *batch        // what peek yields from
	at    int           // next of now.entries
	spare chan *batch   // used up
}

// batch is the entries of one segment.
type batch struct {
	entries []placed
	sums    []uint32 // of all entries
	err     error
}

// placed is an entry and where it lies.
type placed struct {
	entry
	g     *segment
	pos   uint32 // of its payload in the segment
	again bool   // it was written again in a segment opened later, and counts there
	sums  []uint32
}

// readSegments is how many segments a cursor reads and decodes ahead.
const readSegments = 4

// cursors makes cursors over all segments that want says. Segments of a head follow each other, but for
// those that hold frames written again after an error: they get cursors of their own.
func (r *recovery) cursors(want func(*found) bool) []*cursor {
	var fds []*found
	for _, fd := range r.found {
		if st := fd.g.state; (st == segSealed || st == segOpen) && !fd.known && want(fd) {
			fds = append(fds, fd)
		}
	}
	slices.SortFunc(fds, func(a, b *found) int { return cmp.Compare(a.g.first, b.g.first) })
	var list []*cursor
next:
	for _, fd := range fds {
		for _, c := range list {
			if last := c.list[len(c.list)-1].g; last.head == fd.g.head && last.last < fd.g.first {
				c.list = append(c.list, fd)
				continue next
			}
		}
		list = append(list, &cursor{r: r, list: []*found{fd}, now: new(batch), spare: make(chan *batch, readSegments+2)})
	}
	return list
}

// peek returns the next entry, nil at the end.
func (c *cursor) peek() (*placed, error) {
	for c.at == len(c.now.entries) {
		for len(c.list) > 0 && len(c.ahead) < c.r.readSegments() {
			c.start(c.list[0])
			c.list = c.list[1:]
		}
		if len(c.ahead) == 0 {
			return nil, nil
		}
		c.spare <- c.now
		c.now, c.at = <-c.ahead[0], 0
		if c.ahead = c.ahead[1:]; c.now.err != nil {
			return nil, c.now.err
		}
	}
	return &c.now.entries[c.at], nil
}

func (r *recovery) readSegments() int {
	if r.s.step != nil {
		return 1
	}
	return readSegments
}

// start reads and decodes the entries of a segment.
func (c *cursor) start(fd *found) {
	var b *batch
	select {
	case b = <-c.spare:
	default:
		b = new(batch)
	}
	done := make(chan *batch, 1)
	c.ahead = append(c.ahead, done)
	work := func() {
		b.err = b.load(c.r, fd)
		done <- b
	}
	if c.r.s.step != nil {
		work()
		return
	}
	go work()
}

// end waits for what is being read.
func (c *cursor) end() {
	for _, a := range c.ahead {
		<-a
	}
}

// load decodes the entries of a segment.
func (b *batch) load(r *recovery, fd *found) error {
	frames, body, err := r.framesOf(fd)
	if err != nil {
		return err
	}
	defer engine.Free(body)
	b.entries, b.sums = b.entries[:0], b.sums[:0]
	for _, f := range frames {
		again := fd.again(f)
		rest := f.bytes[fixedSize:f.used]
		for range f.entries {
			b.entries = append(b.entries, placed{g: fd.g, again: again})
			p := &b.entries[len(b.entries)-1]
			var n int
			if rest, n, err = p.parse(rest, &f.header); err != nil {
				return err
			}
			at := len(b.sums)
			b.sums = appendStored(b.sums, rest, n) // moving the others when it grows, who keep the old place
			p.pos, p.sums = f.off+p.entry.pos, b.sums[at:]
			rest = rest[4*n:]
		}
	}
	return nil
}

// each calls fn for the entries of segments of the log that want says, in the order of their LSNs.
func (r *recovery) each(want func(*found) bool, fn func(p *placed)) error {
	list := r.cursors(want)
	defer func() {
		for _, c := range list {
			c.end()
		}
	}()
	for {
		var next *cursor
		var low, second uint64 = math.MaxUint64, math.MaxUint64 // LSNs that come next
		for _, c := range list {
			p, err := c.peek()
			switch {
			case err != nil:
				return err
			case p == nil:
			case p.lsn < low:
				next, low, second = c, p.lsn, low
			default:
				second = min(second, p.lsn)
			}
		}
		if next == nil {
			return nil
		}
		b := next.now.entries
		fn(&b[next.at]) // even if another is its equal: one that was written again
		for next.at++; next.at < len(b) && b[next.at].lsn < second; next.at++ {
			fn(&b[next.at])
		}
	}
}

// judge finds, for each chunk, what of its past counts. It needs a pass of its own: the
// entry that says so can be younger than what it hides, having been moved.
func (r *recovery) judge() error {
	since := r.since()
	err := r.each(func(fd *found) bool { return fd.tells }, func(p *placed) {
		switch {
		case p.again, p.lsn <= since:
		case p.kind == kindDelete:
			r.final[p.chunk] = verdict{p.lsn, p.lsn, 0}
		case p.tells():
			r.final[p.chunk] = verdict{p.lsn, p.hide, p.base}
		}
	})
	r.switchOver()
	return err
}

// replay builds the index.
func (r *recovery) replay() error {
	s := r.s
	for _, fd := range r.found {
		if st := fd.g.state; (st == segSealed || st == segOpen) && !fd.known {
			fd.g.set = make(map[chunk.ID]struct{})
		}
	}
	since := r.since()
	var rec *record // of the entry before
	return r.each(func(*found) bool { return true }, func(p *placed) {
		if rec == nil || rec.id != p.chunk {
			if rec = s.index.find(p.chunk); rec == nil {
				v := r.final[p.chunk]
				rec = s.index.make(p.chunk)
				rec.hide, rec.base = v.hide, v.base
			}
		}
		switch {
		case p.again, p.lsn <= since, p.imp != 0 && p.imp != rec.base, p.imp == 0 && p.lsn < rec.hide:
			s.mention(p.g, rec)
			return
		case p.flags&flagMoved != 0 && !rec.alive():
			rec.version = max(rec.version, p.version) // the entry that tells more is still to come
		}
		s.apply(rec, &p.entry, p.g, p.pos, p.sums)
	})
}

// settle finishes the books when the index is built.
func (r *recovery) settle() {
	s := r.s
	for i, g := range s.segs {
		switch g.state {
		case segBlank:
			s.blank = append(s.blank, g)
		case segFree:
			s.written = append(s.written, g)
		case segSealed:
			if !r.found[i].known {
				g.close()
			}
		}
	}
	slices.Reverse(s.blank) // pick takes from the end: fill the first container first
	slices.Reverse(s.written)
	for id := range s.index.table {
		rec := s.index.find(id)
		switch {
		case rec.refs == 0 && !rec.alive() && rec.body.n == 0: // deleted since the checkpoint, and all of it emptied
			s.index.forget(rec)
		case !rec.alive() && rec.body.n > 0:
			// Only moved entries of it are left: the one that made it is lost.
			s.setAlive(rec, true)
			s.index.point(&rec.attest, s.index.all(&rec.body)[0].seg)
			s.announceDamage(rec, errors.New("part of the log is lost"))
		case rec.alive() && r.suspects[nameOf(id)]:
			s.announceDamage(rec, errors.New("part of the log is lost"))
		}
	}
}
