package segment

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
)

// A restored index is that of the checkpoint, less what names segments that have begun
// another life since: what was alive there was moved, and the log has it, or was
// overwritten or deleted, and the log tells so or has nothing of the chunk any more. On
// top of that come the entries of the log that are younger than the checkpoint.

// saved is a checkpoint that was found.
type saved struct {
	checkpoint
	file    engine.File
	lists   map[uint32]*listed // by segment
	first   uint32             // page behind the lists...
	off     int64              // ...and where it lies
	imports map[uint64]*savedCopy
	alone   bool // do everything in one goroutine
}

// savedCopy is a copy in the making.
type savedCopy struct {
	extents []extent
	sums    []uint32
}

// findSaved opens the checkpoints that there are, the newest first.
func (r *recovery) findSaved() {
	s := r.s
	for slot := range checkpointSlots {
		f, c, err := openCheckpoint(s.disk, slot)
		if err == nil && (c.disk != s.diskID || c.lsn >= s.super.lsn || c.segments > uint32(len(s.segs))) {
			err = errors.Join(fmt.Errorf("checkpoint %d is not of this disk as it is", c.generation), f.Close())
		}
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errBlank) {
				s.log.Warn("checkpoint not used", "disk", fmt.Sprintf("%016x", s.diskID), "slot", slot, "error", err)
			}
			continue
		}
		s.checkpoints.generation = max(s.checkpoints.generation, c.generation)
		r.saved = append(r.saved, &saved{checkpoint: c, file: f, alone: s.step != nil})
	}
	slices.SortFunc(r.saved, func(a, b *saved) int { return cmp.Compare(b.generation, a.generation) })
	r.saved = slices.DeleteFunc(r.saved, func(c *saved) bool {
		err := r.readLists(c)
		if err != nil {
			r.unusable(c, err)
		}
		return err != nil
	})
}

func (r *recovery) unusable(c *saved, err error) {
	r.s.log.Warn("checkpoint damaged", "disk", fmt.Sprintf("%016x", r.s.diskID), "generation", c.generation, "error", errors.Join(err, c.file.Close()))
}

// readLists reads what the segments were about that were sealed.
func (r *recovery) readLists(c *saved) error {
	c.lists = make(map[uint32]*listed)
	d := loader{segs: c.segments, segSize: r.s.segSize, segments: func(l *listed) error {
		kept := *l
		c.lists[l.n] = &kept
		return nil
	}}
	c.off = blockSize
	return c.pagesFrom(0, blockSize, func(kind uint8, b []byte, end int64) (bool, error) {
		if kind != pageSegments {
			return false, nil
		}
		c.first, c.off = c.first+1, end
		return true, d.page(kind, b)
	})
}

// readAhead is how many bytes of a checkpoint are read at once.
const readAhead = 4 << 20

// piece is a page on its way from the disk.
type piece struct {
	kind uint8
	b    []byte
	end  int64
	err  error
}

// pagesFrom calls fn with the pages from number on, the first of which lies at off, until
// it wants no more. They are read and checked ahead of it.
func (c *saved) pagesFrom(number uint32, off int64, fn func(kind uint8, b []byte, end int64) (more bool, err error)) error {
	if c.alone {
		var err error
		return errors.Join(c.fetch(number, off, func(p piece) bool {
			var more bool
			more, err = fn(p.kind, p.b, p.end)
			return more && err == nil
		}), err)
	}
	pieces := make(chan piece, 2)
	stop := make(chan struct{})
	go func() {
		defer close(pieces)
		err := c.fetch(number, off, func(p piece) bool {
			select {
			case pieces <- p:
				return true
			case <-stop:
				return false
			}
		})
		if err != nil {
			select {
			case pieces <- piece{err: err}:
			case <-stop:
			}
		}
	}()
	var err error
	more := true
	for p := range pieces {
		if !more {
			continue // until fetch has seen that it is to stop: it uses the file
		}
		if err = p.err; err == nil {
			more, err = fn(p.kind, p.b, p.end)
		}
		if more = more && err == nil; !more {
			close(stop)
		}
	}
	return err
}

// fetch reads pages and hands them out, checked, until it is told that they are no longer
// wanted.
func (c *saved) fetch(number uint32, off int64, hand func(piece) bool) error {
	limit := int64(blockSize + c.bytes)
	buf := engine.Alloc(int(min(readAhead, limit)))
	defer engine.Free(buf)
	var have []byte // from off on
	fill := func(n int) error {
		for len(have) < n {
			at := off + int64(len(have))
			if k := min(readAhead, limit-at); k <= 0 {
				return errShort
			} else if err := c.file.ReadAt(buf[:k], at); err != nil {
				return err
			} else {
				have = append(have, buf[:k]...)
			}
		}
		return nil
	}
	for ; number < c.pages; number++ {
		if err := fill(blockSize); err != nil {
			return err
		}
		n, err := pageSize(have, c.generation, number)
		if err != nil {
			return err
		}
		whole := (int64(n) + blockSize - 1) &^ (blockSize - 1)
		if whole > limit-off {
			return errShort
		}
		if err := fill(int(whole)); err != nil {
			return err
		}
		kind, b, err := checkPage(have[:n:n], number)
		if err != nil {
			return err
		}
		off += whole
		if !hand(piece{kind: kind, b: b, end: off}) {
			return nil
		}
		have = slices.Clone(have[whole:]) // the page stays with whom it was handed to
	}
	return nil
}

// restore makes the index of the newest checkpoint that can be read, if there is one and
// nothing that was durable is missing in the log.
func (r *recovery) restore() error {
	for _, c := range r.saved {
		if r.lost > 0 || r.base != nil {
			break
		}
		if err := r.load(c); err != nil {
			r.s.log.Warn("checkpoint damaged", "disk", fmt.Sprintf("%016x", r.s.diskID), "generation", c.generation, "error", err)
			r.forget()
		}
	}
	var err error
	for _, c := range r.saved {
		err = errors.Join(err, c.file.Close())
	}
	return err
}

// forget empties the index.
func (r *recovery) forget() {
	s := r.s
	r.base = nil
	s.index = newIndex(s.touched)
	for _, fd := range r.found {
		fd.g.live, fd.g.chunks, fd.known = 0, nil, false
	}
}

// same tells whether a segment is in the life that it was in at an LSN, if it was in one
// then: its first entry is older.
func (fd *found) same(lsn uint64) bool {
	if t := fd.sealed; t != nil {
		return t.lsn <= lsn
	}
	return len(fd.frames) > 0 && fd.frames[0].lsn <= lsn
}

// load makes the index of a checkpoint.
func (r *recovery) load(c *saved) error {
	s := r.s
	r.base, c.imports = c, make(map[uint64]*savedCopy)
	same := make([]bool, len(r.found))
	for i, fd := range r.found {
		same[i] = fd.same(c.lsn)
		l := c.lists[uint32(i)]
		if t := fd.sealed; same[i] && l != nil && t != nil && t.frames == l.frames && t.end == l.end {
			fd.known, fd.g.chunks = true, l.chunks
		}
	}
	d := loader{segs: c.segments, segSize: s.segSize,
		chunk: func(rec *record, extents []extent, sums []uint32) error {
			if s.index.find(rec.id) != nil {
				return fmt.Errorf("chunk %v is there twice", rec.id)
			}
			s.adopt(rec, extents, sums, same)
			return nil
		},
		imported: func(_ chunk.ID, number uint64, _ chunk.Version, extents []extent, sums []uint32) error {
			c.imports[number] = &savedCopy{slices.Clone(extents), slices.Clone(sums)}
			return nil
		},
	}
	number := c.first
	err := c.pagesFrom(c.first, c.off, func(kind uint8, b []byte, _ int64) (bool, error) {
		number++
		if kind == pageSegments {
			return false, fmt.Errorf("page %d: segments behind chunks", number-1)
		}
		return true, d.page(kind, b)
	})
	if err != nil {
		return err
	}
	r.same = same
	for _, fd := range r.found {
		if fd.known {
			for _, id := range fd.g.chunks {
				s.index.make(id).refs++
			}
		}
	}
	return nil
}

// adopt takes over a record of a checkpoint, without what lies in segments that are not
// the same any more.
func (s *Store) adopt(saved *record, extents []extent, sums []uint32, same []bool) {
	rec := s.index.make(saved.id)
	rec.hide, rec.base, rec.version, rec.writes = saved.hide, saved.base, saved.version, saved.writes
	rec.flags = saved.flags & recDead
	if saved.state != noSegment && same[saved.state] {
		s.index.point(&rec.state, saved.state)
	}
	if saved.attest != noSegment && same[saved.attest] {
		s.index.point(&rec.attest, saved.attest)
		s.setAlive(rec, saved.flags&recAlive != 0)
	}
	s.index.adopt(&rec.body, extents, sums, same)
	rec.length = s.index.length(&rec.body)
}

// adopt makes the content of b, which is empty, of extents in order; sums are those of all
// of them. Those in segments that are not the same any more are left out.
func (x *index) adopt(b *body, extents []extent, sums []uint32, same []bool) {
	n := uint32(0)
	for i := range extents {
		if same[extents[i].seg] {
			n++
		}
	}
	if n == 0 {
		return
	}
	b.n = n
	b.ref, b.room = x.extents.alloc(n)
	to := x.all(b)[:0]
	for i := range extents {
		e := extents[i]
		k := e.pieces()
		if same[e.seg] {
			to = append(to, x.hold(&e, sums[:k]))
		}
		sums = sums[k:]
	}
}

// switchOver puts in place what was a copy in the making when the checkpoint was taken and
// replaced its chunk since, and drops what was replaced or deleted since.
func (r *recovery) switchOver() {
	if r.base == nil {
		return
	}
	s := r.s
	for id, v := range r.final {
		imp := r.base.imports[v.base]
		rec := s.index.find(id)
		if rec == nil && imp != nil && v.base != 0 {
			rec = s.index.make(id)
		}
		if rec == nil {
			continue // replay makes it
		}
		rec.hide, rec.base = v.hide, v.base
		if v.hide > r.base.lsn {
			s.index.clear(&rec.body)
			if imp != nil && v.base != 0 {
				s.index.adopt(&rec.body, imp.extents, imp.sums, r.same)
			}
			rec.length = s.index.length(&rec.body)
		}
	}
}

// since is the LSN up to which the checkpoint tells everything.
func (r *recovery) since() uint64 {
	if r.base == nil {
		return 0
	}
	return r.base.lsn
}

// lookListed looks at a segment that a checkpoint knows as sealed: its trailer says whether
// it is what it was. If not, all is looked at.
func lookListed(g *segment, size uint32, disk uint64, l *listed, lsn uint64) *found {
	if l != nil {
		b := engine.Alloc(blockSize)
		defer engine.Free(b)
		if err := g.file.ReadAt(b, g.base+int64(size-blockSize)); err == nil {
			t, err := decodeTrailer(b, size)
			if err == nil && t.disk == disk && t.seg == g.n && t.frames == l.frames && t.end == l.end && t.lsn <= lsn {
				return &found{g: g, sealed: &t, tells: true} // for all we know
			}
		}
	}
	return look(g, size, disk)
}
