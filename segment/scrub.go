package segment

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
)

// The scrubber reads the whole store again and again and checks it: what is alive in each
// segment against its sums, what the log needs to be found again against what is in
// memory. So it finds bits that have flipped, writes that were lost and writes that went
// to another place, before the other copies are gone too. Damaged bytes of a chunk are
// announced: only another server has them. A damaged log is healed here, for memory still
// knows what it says: its segment is emptied or sealed, its mark written again.

const (
	scrubBatch = 1 << 20     // bytes of a chunk that are read together
	scrubNote  = time.Minute // between two notes of the position in the superblock
	scrubYield = 5 * time.Millisecond
)

// Scrubbed is how far the scrubber is.
type Scrubbed struct {
	Passes   uint32    // over the whole store, since it was made
	Segment  uint32    // next one of the pass under way
	Segments uint32    // of the store
	Began    time.Time // the pass under way; zero: none has begun
	Finished time.Time // the last pass; zero: never
	Found    uint64    // damages, since the store was made
}

// scrubber is the state of the scrubber. Guarded by Store.mu.
type scrubber struct {
	at    scrubMark
	noted time.Time
}

// scrubMark is what the superblock keeps of it.
type scrubMark struct {
	passes, next    uint32
	began, finished int64 // nanoseconds since 1970
	found           uint64
}

const scrubAt = 4048 // byte of the superblock

func (m *scrubMark) put(b []byte) {
	le.PutUint32(b[scrubAt:], m.passes)
	le.PutUint32(b[scrubAt+4:], m.next)
	le.PutUint64(b[scrubAt+8:], uint64(m.began))
	le.PutUint64(b[scrubAt+16:], uint64(m.finished))
	le.PutUint64(b[scrubAt+24:], m.found)
}

func (m *scrubMark) get(b []byte) {
	*m = scrubMark{le.Uint32(b[scrubAt:]), le.Uint32(b[scrubAt+4:]), int64(le.Uint64(b[scrubAt+8:])),
		int64(le.Uint64(b[scrubAt+16:])), le.Uint64(b[scrubAt+24:])}
}

// Scrubbed tells how far the scrubber is.
func (s *Store) Scrubbed() Scrubbed {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := func(ns int64) time.Time {
		if ns == 0 {
			return time.Time{}
		}
		return time.Unix(0, ns)
	}
	m := &s.scrub.at
	return Scrubbed{Passes: m.passes, Segment: m.next, Segments: uint32(len(s.segs)), Began: at(m.began), Finished: at(m.finished), Found: m.found}
}

// scrubLoop scrubs the store, a pass in every.
func (s *Store) scrubLoop(every time.Duration) {
	defer s.workers.Done()
	for s.scrubStep(every) {
	}
	s.noteScrub(0)
}

// scrubStep scrubs the next segment when it is due, and tells whether to go on.
func (s *Store) scrubStep(every time.Duration) bool {
	s.mu.Lock()
	m := &s.scrub.at
	if m.began == 0 {
		m.began = time.Now().UnixNano()
	}
	n, total, began := m.next, uint32(len(s.segs)), time.Unix(0, m.began)
	s.unlock()
	if n >= total {
		if !s.pause(time.Until(began.Add(every))) {
			return false
		}
		s.endPass()
		return true
	}
	share := every / time.Duration(total)
	if !s.pause(time.Until(began.Add(share * time.Duration(n)))) {
		return false
	}
	p := pacer{s: s, share: share, began: time.Now()}
	if !s.scrubSegment(n, p.read) {
		return false
	}
	s.mu.Lock()
	m.next = n + 1
	s.unlock()
	s.noteScrub(scrubNote)
	return true
}

// endPass ends a pass and begins the next.
func (s *Store) endPass() {
	s.scrubSuper()
	s.mu.Lock()
	m := &s.scrub.at
	now := time.Now().UnixNano()
	s.log.Info("store scrubbed", "disk", fmt.Sprintf("%016x", s.diskID), "pass", m.passes+1, "took", time.Duration(now-m.began).Round(time.Millisecond),
		"damages_ever", m.found)
	m.passes, m.next, m.began, m.finished = m.passes+1, 0, now, now
	s.unlock()
	s.noteScrub(0)
}

// noteScrub keeps the position for the next start, unless it did so less than the given
// time ago.
func (s *Store) noteScrub(least time.Duration) {
	s.mu.Lock()
	m, due := s.scrub.at, time.Since(s.scrub.noted) >= least && s.failed == nil && s.super.scrub != s.scrub.at
	if due {
		s.scrub.noted = time.Now()
	}
	s.unlock()
	if !due {
		return
	}
	if err := s.changeSuper(func(p *super) { p.scrub = m }); err != nil {
		s.log.Warn("position of the scrubber not noted", "error", err)
	}
}

// pause waits; false: the store closes.
func (s *Store) pause(d time.Duration) bool {
	select {
	case <-s.stop:
		return false
	default:
	}
	if d <= 0 {
		return true
	}
	select {
	case <-s.stop:
		return false
	case <-time.After(d):
		return true
	}
}

// pacer spreads the reads of a segment over the time that it has. Who is late may take a
// quarter of the disk's time at most; and as long as others use the disk he lets them go
// first for a while.
type pacer struct {
	s     *Store
	share time.Duration // of one segment
	began time.Time
	bytes int64
	last  time.Time
}

// read is called before n bytes are read; false: stop.
func (p *pacer) read(n int) bool {
	now := time.Now()
	due := time.Until(p.began.Add(time.Duration(float64(p.share) * float64(p.bytes) / float64(p.s.segSize))))
	if !p.last.IsZero() {
		due = max(due, min(3*now.Sub(p.last), time.Second))
	}
	if !p.s.pause(due) {
		return false
	}
	for range 20 {
		if !p.s.busy() {
			break
		}
		if !p.s.pause(scrubYield) {
			return false
		}
	}
	p.bytes += int64(n)
	p.last = time.Now()
	return true
}

// busy tells whether others use the disk now.
func (s *Store) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.heads {
		if len(s.heads[i].flight) > 0 {
			return true
		}
	}
	return len(s.health.reads) > 0
}

// Scrub reads and checks the whole store at once, at full speed, beside what the scrubber
// does. It returns the number of damages found; each is in the log, damaged chunks are
// announced by Events.
func (s *Store) Scrub() (found uint64) { return s.scrubAll(func(uint32, uint32) {}) }

// scrubAll is Scrub; at is called before each segment, of which there are so many.
func (s *Store) scrubAll(at func(n, segments uint32)) (found uint64) {
	before := s.Scrubbed().Found
	segments := s.Scrubbed().Segments
	for n := range segments {
		at(n, segments)
		if !s.scrubSegment(n, func(int) bool { return true }) {
			break
		}
	}
	s.scrubSuper()
	return s.Scrubbed().Found - before
}

// scrubSegment checks segment n and tells whether it came to its end. pace is called
// before each read.
func (s *Store) scrubSegment(n uint32, pace func(bytes int) bool) bool {
	s.mu.Lock()
	g := s.segs[n]
	ids := slices.Clone(g.chunks)
	for id := range g.set {
		ids = append(ids, id)
	}
	s.unlock()
	slices.Sort(ids)
	for _, id := range ids {
		if !s.scrubChunk(g, id, pace) {
			return false
		}
	}
	if !pace(blockSize) {
		return false
	}
	s.scrubLog(g)
	return true
}

// scrubChunk checks what a chunk, or a copy of it in the making, has in g.
func (s *Store) scrubChunk(g *segment, id chunk.ID, pace func(bytes int) bool) bool {
	for from := uint32(0); from < chunk.Size; {
		if !pace(scrubBatch) {
			return false
		}
		r := readers.Get().(*reader)
		r.alone = s.step != nil
		s.mu.Lock()
		if s.closing {
			s.unlock()
			r.recycle()
			return false
		}
		from = s.scrubBatch(g, id, from, r)
		s.unlock()
		if len(r.list) > 0 {
			err := r.run()
			bytes := 0
			for i := range r.list {
				bytes += int(r.list[i].stored())
			}
			s.letGo(r)
			s.stat.scrubbed.Add(bytes)
			if err != nil {
				s.scrubFound(g, fmt.Errorf("chunk %v: %w", id, err))
				s.damaged(id, err)
				from = chunk.Size // the whole chunk is replaced
			}
		}
		r.recycle()
	}
	return true
}

// scrubBatch gathers durable extents of a chunk in g from byte from of the chunk on, and
// returns where to go on. mu is held.
func (s *Store) scrubBatch(g *segment, id chunk.ID, from uint32, r *reader) uint32 {
	rec := s.index.find(id)
	if rec == nil {
		return chunk.Size
	}
	total := uint32(0)
	l := s.index.all(&rec.body)
	for i := s.index.search(l, from); i < len(l); i++ {
		if l[i].seg != g.n {
			continue
		}
		e := s.index.unpack(&l[i])
		if e.zero() || g.frameAt(e.pos) != nil {
			continue
		}
		if total >= scrubBatch {
			return e.off
		}
		r.add(s, &e, e.off, e.end())
		total += e.len
	}
	return chunk.Size
}

// scrubFound counts and tells of a damage.
func (s *Store) scrubFound(g *segment, err error) {
	s.stat.scrubErrors.Inc()
	s.mu.Lock()
	s.scrub.at.found++
	s.unlock()
	n := noSegment
	if g != nil {
		n = g.n
	}
	s.log.Error("scrubber found damage", "disk", fmt.Sprintf("%016x", s.diskID), "segment", n, "error", err)
}

// scrubLog checks what the next recovery needs to find the frames of g, and heals it.
func (s *Store) scrubLog(g *segment) {
	s.mu.Lock()
	state, incarnation, first, last := g.state, g.incarnation, g.first, g.last
	sealed := state == segSealed && g.pending == 0 && len(g.flight) == 0 && !g.unsealed
	if sealed {
		g.pins++ // it is not freed meanwhile
	}
	s.unlock()
	switch {
	case sealed:
		err := s.checkSeal(g, incarnation, first, last)
		s.mu.Lock()
		if g.pins--; g.pins == 0 {
			s.changed.Broadcast()
		}
		if err != nil {
			g.evict = true
			s.wakeKeeper()
		}
		s.unlock()
		if err != nil {
			s.scrubFound(g, fmt.Errorf("seal: %w; the segment is emptied", err))
		}
	case state == segOpen:
		s.scrubOpen(g)
	case state == segFree:
		s.scrubFree(g)
	}
}

// checkSeal checks the seal of a segment against memory.
func (s *Store) checkSeal(g *segment, incarnation, first, last uint64) error {
	b := engine.Alloc(blockSize)
	defer engine.Free(b)
	if err := g.file.ReadAt(b, g.base+int64(s.segSize)-blockSize); err != nil {
		return err
	}
	t, err := decodeTrailer(b, s.segSize)
	switch {
	case err != nil:
		return err
	case t.disk != s.diskID || t.seg != g.n:
		return fmt.Errorf("it belongs to segment %d of disk %016x", t.seg, t.disk)
	case t.incarnation != incarnation || t.first != first || t.last != last:
		return errors.New("it is an older one: the write of the last one was lost")
	}
	_, body, err := loadBody(g, &t)
	engine.Free(body)
	return err
}

// scrubOpen checks the headers of a segment that is being written against those in memory.
// If one is wrong the head goes on to another segment: the seal repeats all headers.
func (s *Store) scrubOpen(g *segment) {
	type place struct {
		off, sum uint32
	}
	var list []place
	s.mu.Lock()
	for b := g.body; g.state == segOpen && len(b) > 0; {
		n := le.Uint32(b)
		var h header
		h.get(b[4:])
		if g.frameAt(h.off) == nil {
			list = append(list, place{h.off, h.sum})
		}
		b = b[4+n:]
	}
	incarnation := g.incarnation
	s.unlock()
	b := engine.Alloc(blockSize)
	defer engine.Free(b)
	for _, p := range list {
		err := g.file.ReadAt(b, g.base+int64(p.off))
		var h header
		if err == nil {
			h, err = decodeHeader(b)
		}
		if err == nil && h.sum != p.sum {
			err = errors.New("another header is in its place")
		}
		if err == nil {
			continue
		}
		s.mu.Lock()
		same := g.state == segOpen && g.incarnation == incarnation
		if same {
			s.leaveHead(g)
		}
		s.unlock()
		if same {
			s.scrubFound(g, fmt.Errorf("frame at %d: %w; its segment is sealed", p.off, err))
		}
		return
	}
}

// leaveHead lets the head of an open segment go on elsewhere, as soon as that is possible.
// mu is held.
func (s *Store) leaveHead(g *segment) {
	h := &s.heads[g.head]
	if h.seg != g || h.broken != nil || g.frames == 0 {
		return
	}
	if h.open != nil {
		s.want(h.open)
		for h.seg == g && h.open != nil && h.open.seg == g && s.usable() == nil {
			s.wait()
		}
	}
	if h.seg == g && h.open == nil && h.broken == nil && s.usable() == nil {
		s.roll(h, metaFloor)
	}
}

// scrubFree checks the marks of a free segment and writes them again if one is wrong.
func (s *Store) scrubFree(g *segment) {
	s.mu.Lock()
	i := slices.Index(s.written, g)
	if i < 0 {
		s.unlock()
		return
	}
	s.written = slices.Delete(s.written, i, i+1) // nobody opens it meanwhile
	g.state = segPrepare
	s.preparing++
	s.unlock()
	err := s.checkMarks(g)
	if err != nil {
		s.scrubFound(g, fmt.Errorf("free mark: %w; it is written again", err))
		err = s.markFree(g, false)
	}
	s.mu.Lock()
	defer s.unlock()
	s.preparing--
	if err != nil {
		g.state, g.retired = segBad, true
		s.retired++
		return
	}
	g.state = segFree
	s.written = slices.Insert(s.written, min(i, len(s.written)), g)
	s.changed.Broadcast()
}

func (s *Store) checkMarks(g *segment) error {
	b := engine.Alloc(blockSize)
	defer engine.Free(b)
	for _, off := range []int64{0, int64(s.segSize) - blockSize} {
		if err := g.file.ReadAt(b, g.base+off); err != nil {
			return err
		}
		m, err := decodeFree(b)
		if err != nil {
			return err
		}
		if m.disk != s.diskID || m.seg != g.n {
			return fmt.Errorf("it belongs to segment %d of disk %016x", m.seg, m.disk)
		}
	}
	return nil
}

// scrubSuper checks all copies of the superblock and writes them again if one is wrong.
func (s *Store) scrubSuper() {
	b := engine.Alloc(blockSize)
	defer engine.Free(b)
	var bad error
	s.superMu.Lock()
	s.mu.Lock()
	newest := s.super.generation
	s.unlock()
	for i := range superCopies {
		err := s.superFile.ReadAt(b, int64(i)*superStride)
		var p super
		if err == nil {
			p, err = decodeSuper(b, i)
		}
		age := uint64(0)
		if i/2 != int(newest%2) {
			age = 1
		}
		switch {
		case newest < 2 && age == 1: // the first generation is the only one
		case err == nil && p.generation+age != newest:
			err = fmt.Errorf("generation %d where %d belongs", p.generation, newest-age)
			bad = fmt.Errorf("superblock, copy %d: %w", i, err)
		case err != nil:
			bad = fmt.Errorf("superblock, copy %d: %w", i, err)
		}
	}
	s.superMu.Unlock()
	if bad == nil {
		return
	}
	s.scrubFound(nil, bad)
	for range 2 { // each writes two of the four
		if err := s.changeSuper(func(*super) {}); err != nil {
			s.log.Error("superblock", "error", err)
			return
		}
	}
}
