package segment

import (
	"cmp"
	"errors"
	"slices"

	"github.com/varvefs/varve/chunk"
)

// cursor yields the entries of segments that follow each other in one head, in the order
// of their LSNs. It holds one segment at a time.
type cursor struct {
	r       *recovery
	list    []*found // segments in order
	pending []placed
	at      int // next of pending
}

// placed is an entry and where it lies.
type placed struct {
	entry
	g     *segment
	pos   uint32 // of its payload in the segment
	sums  []uint32
	again bool // it was written again in a segment opened later, and counts there
}

// cursors makes cursors over all segments. Segments of a head follow each other, but for
// those that hold frames written again after an error: they get cursors of their own.
func (r *recovery) cursors() []*cursor {
	var fds []*found
	for _, fd := range r.found {
		if st := fd.g.state; (st == segSealed || st == segOpen) && !fd.known {
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
		list = append(list, &cursor{r: r, list: []*found{fd}})
	}
	return list
}

// peek returns the next entry, nil at the end.
func (c *cursor) peek() (*placed, error) {
	for c.at == len(c.pending) {
		if len(c.list) == 0 {
			return nil, nil
		}
		fd := c.list[0]
		c.list = c.list[1:]
		if err := c.load(fd); err != nil {
			return nil, err
		}
	}
	return &c.pending[c.at], nil
}

// load decodes the entries of a segment.
func (c *cursor) load(fd *found) error {
	frames, err := c.r.framesOf(fd)
	if err != nil {
		return err
	}
	c.pending, c.at = c.pending[:0], 0
	for _, f := range frames {
		again := fd.again(f)
		err := decodeEntries(f.bytes, &f.header, func(e *entry, sums []uint32) error {
			c.pending = append(c.pending, placed{*e, fd.g, f.off + e.pos, slices.Clone(sums), again})
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// each calls fn for all entries of the log in the order of their LSNs.
func (r *recovery) each(fn func(p *placed)) error {
	list := r.cursors()
	for {
		var next *placed
		var from *cursor
		for _, c := range list {
			p, err := c.peek()
			if err != nil {
				return err
			}
			if p != nil && (next == nil || p.lsn < next.lsn) {
				next, from = p, c
			}
		}
		if next == nil {
			return nil
		}
		fn(next)
		from.at++
	}
}

// judge finds, for each chunk, what of its past counts. It needs a pass of its own: the
// entry that says so can be younger than what it hides, having been moved.
func (r *recovery) judge() error {
	since := r.since()
	err := r.each(func(p *placed) {
		switch {
		case p.again, p.lsn <= since:
		case p.kind == kindDelete:
			r.final[p.chunk] = verdict{p.lsn, p.lsn, 0}
		case p.kind == kindState && (p.hide != 0 || p.base != 0):
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
	return r.each(func(p *placed) {
		v := r.final[p.chunk]
		rec := s.index.find(p.chunk)
		if rec == nil {
			rec = s.index.make(p.chunk)
			rec.hide, rec.base = v.hide, v.base
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
