package segment

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
)

// recovery rebuilds what a store knows from what its disk holds. It runs before the
// store is open, in one goroutine.
//
// A head's frames are numbered without gaps. Every header tells up to which number each
// head was durable when it was written; the highest such number is the head's mark.
// Frames up to the mark were durable: where one is missing in the middle of a segment
// that is damage, and is announced. Of the frames beyond the mark none was
// acknowledged; they count as far as they follow the mark without a gap and match
// their checksums, and what comes after the first that does not is a torn tail and is
// cut.
type recovery struct {
	s     *Store
	found []*found
	marks [heads]claim
	keep  [heads]uint64 // last frame that counts
	final map[chunk.ID]verdict
	lost  uint64 // frames that were durable and cannot be read

	kept     atomic.Int64    // bytes of seals in memory
	suspects map[uint32]bool // names of chunks that such frames were about

	saved []*saved // checkpoints, the newest first
	base  *saved   // the one that the index begins with, nil: none
	same  []bool   // segments in the life that they were in then
}

// verdict is what the newest entry that says so lets count of a chunk's past.
type verdict struct{ lsn, hide, base uint64 }

func (s *Store) recover() error {
	began := time.Now()
	r := &recovery{s: s, final: make(map[chunk.ID]verdict), suspects: make(map[uint32]bool)}
	r.findSaved()
	r.lookAll()
	for _, step := range []func() error{r.mark, r.cut, r.repair, r.restore, r.judge, r.replay} {
		if err := step(); err != nil {
			return err
		}
	}
	r.settle()
	if len(s.segs) > 0 {
		s.log.Info("segment store recovered", "disk", fmt.Sprintf("%016x", s.diskID), "chunks", s.index.count,
			"segments", len(s.segs), "lost_frames", r.lost, "checkpoint", r.since() > 0, "took", time.Since(began))
	}
	return nil
}

// keepMost is how many bytes of seals are kept in memory between the passes over the log;
// what is beyond is read again.
const keepMost = 256 << 20

// lookers is how many segments are looked at at the same time.
const lookers = 16

// lookAll finds out what every segment holds.
func (r *recovery) lookAll() {
	s := r.s
	r.found = make([]*found, len(s.segs))
	var lists map[uint32]*listed
	var lsn uint64
	if len(r.saved) > 0 {
		lists, lsn = r.saved[0].lists, r.saved[0].lsn
	}
	var next atomic.Int64
	work := func() {
		for i := next.Add(1) - 1; i < int64(len(s.segs)); i = next.Add(1) - 1 {
			fd := lookListed(s.segs[i], s.segSize, s.diskID, lists[uint32(i)], lsn)
			if fd.sealed == nil || r.kept.Add(int64(fd.sealed.bodySize)) > keepMost {
				engine.Free(fd.body)
				fd.listed, fd.body = nil, nil
			}
			r.found[i] = fd
		}
	}
	if s.step != nil {
		work()
		return
	}
	var wg sync.WaitGroup
	for range min(lookers, len(s.segs)) {
		wg.Go(work)
	}
	wg.Wait()
}

// mark finds how far each head is known to be durable.
func (r *recovery) mark() error {
	r.lookNext()
	for _, c := range r.saved {
		for i, m := range c.durable {
			if l := (claim{m, c.at}); m.seq > 0 && l.newer(r.marks[i]) {
				r.marks[i] = l
			}
		}
	}
	for _, fd := range r.found {
		for i, m := range fd.durable {
			if m.newer(r.marks[i]) {
				r.marks[i] = m
			}
		}
	}
	return nil
}

// lookNext looks into the segments that the youngest seals name as the next ones, if
// they seem to be free: the write of their first frame may have been lost.
func (r *recovery) lookNext() {
	var newest [heads]*trailer
	for _, fd := range r.found {
		if t := fd.sealed; t != nil && (newest[t.head] == nil || newest[t.head].last < t.last) {
			newest[t.head] = t
		}
	}
	for _, t := range newest {
		if t == nil || uint64(t.next) >= uint64(len(r.found)) {
			continue
		}
		fd := r.found[t.next]
		if fd.sealed != nil || len(fd.frames)+len(fd.late) > 0 {
			continue
		}
		w := newWindow(fd.g, r.s.segSize)
		fd.ahead(w, 0, nil, r.s.diskID)
		w.free()
		if len(fd.late) > 0 {
			fd.blank, fd.marked[0] = false, 0
		}
	}
}

// framesOf returns the frames of a segment, those of a sealed one from its seal. Those are
// good until body goes back to engine.Free, if it is not nil; it need not.
func (r *recovery) framesOf(fd *found) (frames []*foundFrame, body []byte, err error) {
	switch {
	case fd.sealed == nil:
		return fd.frames, nil, nil
	case fd.listed != nil:
		return fd.listed, nil, nil
	}
	if frames, body, err = loadBody(fd.g, fd.sealed); err != nil {
		return nil, nil, fmt.Errorf("%s: segment %d: seal: %w", fd.g.file.Name(), fd.g.n, err)
	}
	return frames, body, nil
}

// cut decides which frames count.
func (r *recovery) cut() error {
	for h := range heads {
		if err := r.cutHead(uint8(h)); err != nil {
			return err
		}
	}
	return nil
}

// cutHead decides which frames of one head count, and drops the others from what was
// found.
func (r *recovery) cutHead(h uint8) error {
	d := r.marks[h].seq
	var open, tails []*found
	for _, fd := range r.found {
		switch {
		case fd.sealed != nil && fd.sealed.head == h && fd.sealed.last > d:
			frames, _, err := r.framesOf(fd)
			if err != nil {
				return err
			}
			fd.frames = frames
			tails = append(tails, fd)
		case fd.sealed == nil && fd.head() == h:
			open = append(open, fd)
			tails = append(tails, fd)
		}
	}
	r.lookForLost(h, open)
	r.findRivals(h)
	var beyond []beyondMark
	for _, fd := range tails {
		for _, f := range fd.frames {
			if f.seq > d {
				beyond = append(beyond, beyondMark{fd, f})
			}
		}
	}
	slices.SortFunc(beyond, func(a, b beyondMark) int {
		return cmp.Or(cmp.Compare(a.f.seq, b.f.seq), cmp.Compare(b.f.incarnation, a.f.incarnation))
	})
	keep := d
	for _, b := range beyond {
		if b.f.seq <= keep {
			continue // written before, and again where we saw it already
		}
		if b.f.seq > keep+1 || !r.whole(b) {
			break
		}
		b.f.counts = true
		keep++
	}
	r.keep[h] = keep
	for _, fd := range tails {
		r.trim(fd, d)
	}
	return nil
}

type beyondMark struct {
	fd *found
	f  *foundFrame
}

// head is the head that an unsealed segment belongs to, or none.
func (fd *found) head() uint8 {
	switch {
	case len(fd.frames) > 0:
		return fd.frames[0].head
	case len(fd.late) > 0:
		return fd.late[0].head
	}
	return heads
}

// lookForLost finds frames of unsealed segments that were durable and are missing, and
// takes those behind them back in.
func (r *recovery) lookForLost(h uint8, open []*found) {
	d := r.marks[h].seq
	for _, fd := range open {
		late := fd.late
		fd.late = nil
		var last uint64
		sure := true
		if n := len(fd.frames); n > 0 {
			last = fd.frames[n-1].seq
		} else if len(late) > 0 {
			last, sure = r.before(h, fd, late[0])
		}
		if last >= d || r.elsewhere(h, fd, last+1) {
			continue
		}
		if len(late) > 0 && late[0].seq > d+1 {
			late = nil // none of them was ever durable
		}
		for _, f := range late {
			if f.seq > last+1 && last < d {
				names := f.names
				if !sure {
					names = nil
				}
				r.announceLost(fd, min(f.seq-1, d)-last, names)
			}
			sure = true
			fd.frames = append(fd.frames, f)
			last = f.seq
		}
		if len(fd.frames) > 0 && last < d && !r.elsewhere(h, fd, last+1) {
			r.announceLost(fd, d-last, nil) // even if there was a seal: what it listed is not known
		}
	}
	r.lookForMark(h)
}

// before is the number of the last frame before those of fd, whose first ones are missing,
// f being the first that is there. If it is not sure it may be lower than it was: the
// segment before has been emptied since, or is damaged too.
func (r *recovery) before(h uint8, fd *found, f *foundFrame) (last uint64, sure bool) {
	for _, o := range r.found {
		if o == fd {
			continue
		}
		if t := o.sealed; t != nil && t.head == h && t.last < f.seq {
			last = max(last, t.last)
		} else if t == nil && len(o.frames) > 0 && o.frames[0].head == h && o.last().seq < f.seq {
			last = max(last, o.last().seq)
		}
	}
	if f.off < 2*headerSize { // no room for two
		return max(last, max(f.seq, 2)-2), true
	}
	return min(last, max(f.seq, 2)-2), last+2 >= f.seq
}

// lookForMark looks whether the frame is there that the head's mark names. It lies where
// the mark says, unless that segment was emptied or opened again since.
func (r *recovery) lookForMark(h uint8) {
	m := r.marks[h]
	if m.seq == 0 || uint64(m.seg) >= uint64(len(r.found)) {
		return
	}
	fd := r.found[m.seg]
	first, last, incarnation := fd.numbers()
	there := first > 0 && first <= m.seq && m.seq <= last
	if there || fd.spoiled && first > 0 || m.lsn < max(fd.emptied, incarnation) || r.elsewhere(h, fd, m.seq) {
		return
	}
	r.announceLost(fd, 1, nil)
}

// elsewhere tells whether another segment of a head has the frame that follows those
// of fd.
func (r *recovery) elsewhere(h uint8, fd *found, seq uint64) bool {
	for _, o := range r.found {
		switch {
		case o == fd:
		case o.sealed != nil:
			if o.sealed.head == h && o.sealed.first <= seq && o.sealed.last >= seq {
				return true
			}
		case len(o.frames) > 0:
			if o.frames[0].head == h && o.frames[0].seq <= seq && o.frames[len(o.frames)-1].seq >= seq {
				return true
			}
		}
	}
	return false
}

// announceLost tells that n frames of a segment are lost. names are the chunks of the
// last of them; if there are more, nobody knows what they were about.
func (r *recovery) announceLost(fd *found, n uint64, names []uint32) {
	fd.spoiled = true // nothing more is written to it
	r.lost += n
	r.s.stat.lost.Add(int(n))
	for _, name := range names {
		r.suspects[name] = true
	}
	err := fmt.Errorf("%s: segment %d: %d frames that were durable cannot be read: %w", fd.g.file.Name(), fd.g.n, n,
		cmp.Or(fd.stop, errors.New("no valid header")))
	r.s.log.Error("part of the log is lost", "disk", fmt.Sprintf("%016x", r.s.diskID), "error", err)
	if n > 1 || names == nil {
		r.s.announce(Event{Kind: Lost, Err: err})
	}
}

// whole reads the payload of a frame and says whether all of it matches its sums.
func (r *recovery) whole(b beyondMark) bool {
	buf := engine.Alloc(int(b.f.size))
	defer engine.Free(buf)
	if err := b.fd.g.file.ReadAt(buf, b.fd.g.base+int64(b.f.off)); err != nil {
		r.s.log.Warn("cannot read the end of the log", "error", err)
		return false
	}
	if h, err := decodeHeader(buf); err != nil || h.sum != b.f.sum {
		return false
	}
	return verifyPayload(buf, b.f) == nil
}

// verifyPayload checks the payload of a frame, whose bytes are all in buf.
func verifyPayload(buf []byte, f *foundFrame) error {
	return decodeEntries(f.bytes, &f.header, func(e *entry, sums []uint32) error {
		if e.kind != kindData {
			return nil
		}
		data := buf[e.pos-uint32(e.pre) : e.pos+e.len+uint32(e.post)]
		if bad := chunk.Verify(sums, e.off-uint32(e.pre), data); bad >= 0 {
			return fmt.Errorf("chunk %v: piece %d of %d bytes at %d fails its checksum", e.chunk, bad, e.len, e.off)
		}
		return nil
	})
}

// trim drops the frames beyond the mark d that do not count, and those that another
// segment has too: they were written again there.
func (r *recovery) trim(fd *found, d uint64) {
	all := len(fd.frames)
	kept := make([]*foundFrame, 0, all)
	for i, f := range fd.frames {
		if f.counts || f.seq <= d && !fd.again(f) {
			if len(kept) < i {
				fd.spoiled = true // there is a gap: nothing more is written to it
			}
			kept = append(kept, f)
		}
	}
	fd.frames = kept
	if len(kept) == all {
		if fd.sealed != nil {
			fd.frames = nil
		}
		return
	}
	r.s.log.Info("torn end of the log cut", "segment", fd.g.n, "frames", all-len(kept))
	if fd.sealed != nil {
		fd.sealed, fd.spoiled = nil, true // its seal is replaced before anything is written
	}
}

// numbers is the range of frame numbers of a segment, 0 and 0 if it has none.
func (fd *found) numbers() (first, last, incarnation uint64) {
	if t := fd.sealed; t != nil {
		return t.first, t.last, t.incarnation
	}
	if len(fd.frames) == 0 {
		return 0, 0, 0
	}
	return fd.frames[0].seq, fd.last().seq, fd.frames[0].incarnation
}

// findRivals notes which segments of a head have frames of the same numbers: those of
// the lower incarnation could not be written and were written again in the other.
func (r *recovery) findRivals(h uint8) {
	var list []*found
	for _, fd := range r.found {
		if t := fd.sealed; t != nil && t.head == h || t == nil && len(fd.frames) > 0 && fd.frames[0].head == h {
			list = append(list, fd)
		}
	}
	slices.SortFunc(list, func(a, b *found) int {
		x, _, _ := a.numbers()
		y, _, _ := b.numbers()
		return cmp.Compare(x, y)
	})
	for i, a := range list {
		_, last, old := a.numbers()
		for _, b := range list[i+1:] {
			first, _, young := b.numbers()
			if first > last {
				break
			}
			if old < young {
				a.rivals = append(a.rivals, b)
			} else {
				b.rivals = append(b.rivals, a)
			}
		}
	}
}

// again tells whether a frame was written anew in a segment opened later.
func (fd *found) again(f *foundFrame) bool {
	for _, o := range fd.rivals {
		if first, last, _ := o.numbers(); first <= f.seq && f.seq <= last {
			return true
		}
	}
	return false
}

// repair brings the segments into a state from which the log can go on: torn seals are
// removed or written again, emptied segments are marked as such. All of it is durable
// before anything new is written, and a crash in between leaves what the next recovery
// handles the same way.
func (r *recovery) repair() error {
	var newest [heads]*found
	for _, fd := range r.found {
		if n := len(fd.frames); fd.sealed == nil && n > 0 {
			h := fd.frames[0].head
			if newest[h] == nil || newest[h].last().seq < fd.last().seq {
				newest[h] = fd
			}
		}
	}
	for _, fd := range r.found {
		g := fd.g
		var err error
		switch {
		case fd.sealed != nil:
			g.adoptSeal(fd.sealed)
		case len(fd.frames) > 0:
			err = r.reopen(fd, newest[fd.frames[0].head] == fd)
		case fd.blank:
			g.state = segBlank
		case fd.emptied > 0 && fd.marked[0] == fd.marked[1]:
			g.state = segFree
		default:
			g.state = segFree
			err = r.markAgain(fd)
		}
		if err != nil {
			return err
		}
	}
	for i := range r.s.heads {
		h := &r.s.heads[i]
		h.seq = max(r.keep[i], r.marks[i].seq)
		h.durable = mark{seq: h.seq, seg: noSegment}
		for _, g := range r.s.segs {
			if g.frames > 0 && g.head == h.n && g.last == h.seq {
				h.durable.seg, h.durable.end = g.n, g.end
			}
		}
	}
	for i := range r.s.heads {
		r.cover(&r.s.heads[i])
	}
	return nil
}

// cover writes a mark over what a torn frame may have left where a head goes on. Else a
// crash during the next write there could complete the torn frame with blocks of the
// new one, long after it was found to be missing. A segment that cannot be written to is
// left.
func (r *recovery) cover(h *head) {
	s, g := r.s, h.seg
	if g == nil {
		return
	}
	b := engine.Alloc(headerSize)
	defer engine.Free(b)
	if err := g.file.ReadAt(b, g.base+int64(g.end)); err == nil && blank(b) {
		return
	}
	clear(b)
	hd := header{head: h.n, used: fixedSize, inline: headerSize - 4*uint32(len(h.names)), size: headerSize, disk: s.diskID, seg: g.n,
		off: g.end, incarnation: g.incarnation, seq: h.seq + 1, lsn: s.nextLSN(), previous: g.previous, repeated: uint16(len(h.names)),
		time: time.Now().UnixNano()}
	for i := range s.heads {
		hd.durable[i] = s.heads[i].durable
	}
	putNames(b, h.names)
	hd.put(b)
	if err := do(g.file, engine.WriteSync, b, g.base+int64(g.end), s.step); err != nil {
		s.log.Warn("segment left", "disk", s.diskID, "segment", g.n, "error", err)
		h.seg = nil
		r.reseal(g)
		return
	}
	g.note(&hd, b[:fixedSize])
	h.seq, h.names = hd.seq, h.names[:0]
	h.durable = mark{h.seq, g.n, g.end}
}

// markAgain makes a segment with nothing left a free one. What a crash has interrupted
// is only completed: the end that has a mark is not touched.
func (r *recovery) markAgain(fd *found) error {
	first, last := uint32(0), r.s.segSize-blockSize
	switch {
	case fd.marked[0] > fd.marked[1]:
		return r.s.markEnds(fd.g, fd.marked[0], last)
	case fd.marked[1] > 0:
		return r.s.markEnds(fd.g, fd.marked[1], first)
	}
	return r.s.markFree(fd.g, false)
}

func (fd *found) last() *foundFrame { return fd.frames[len(fd.frames)-1] }

// adoptSeal takes over what a seal says of its segment.
func (g *segment) adoptSeal(t *trailer) {
	g.state, g.begun, g.head, g.incarnation, g.end = segSealed, true, t.head, t.incarnation, t.end
	g.first, g.last, g.lsn, g.frames = t.first, t.last, t.lsn, t.frames
}

// reopen prepares a segment without a seal for going on: the newest of its head is
// continued, another gets its seal.
func (r *recovery) reopen(fd *found, newest bool) error {
	s, g := r.s, fd.g
	for _, f := range fd.frames {
		g.note(&f.header, f.bytes)
	}
	g.head, g.incarnation, g.state, g.begun = fd.frames[0].head, fd.last().incarnation, segOpen, true
	h := &s.heads[g.head]
	damaged := fd.spoiled || uint32(len(g.body)) > s.segSize-g.end-2*blockSize
	if newest && !damaged && s.room(g) > 0 && fd.last().seq == max(r.keep[g.head], r.marks[g.head].seq) {
		// A new incarnation: what is torn behind the end can never count again.
		g.incarnation = s.nextLSN()
		h.seg = g
		last := fd.last()
		return decodeEntries(last.bytes, &last.header, func(e *entry, _ []uint32) error {
			h.names = append(h.names, nameOf(e.chunk))
			return nil
		})
	}
	at := s.segSize - blockSize - (uint32(len(g.body))+blockSize-1)&^(blockSize-1)
	if at < g.end {
		return fmt.Errorf("%s: segment %d: no room for its seal", g.file.Name(), g.n)
	}
	r.reseal(g)
	return nil
}

// reseal seals a segment that no head continues.
func (r *recovery) reseal(g *segment) {
	s := r.s
	buf, _ := s.sealOf(g, noSegment)
	defer engine.Free(buf)
	g.state = segSealed
	if err := do(g.file, engine.WriteSync, buf, g.base+int64(s.segSize)-int64(len(buf)), s.step); err != nil {
		s.log.Warn("seal not written", "disk", s.diskID, "segment", g.n, "error", err)
		g.unsealed = true
	}
}
