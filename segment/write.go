package segment

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/status"
)

// What a Write does. The numbers are those of package wire.
const (
	WriteData = iota // store Data at Off
	WriteZero        // bytes Off..Off+Len read as zeros
	WriteTrim        // bytes from Off to the end of the chunk read as zeros
)

const (
	bulkSize = 256 << 10 // bytes of a Write that goes to the bulk head
	copyHeld = 32 << 10  // bytes that are copied with mu held; more is copied without
)

// Write is one change of the bytes of one chunk.
type Write struct {
	Chunk   chunk.ID
	Version chunk.Version // of the chunk from now on; not lower than it is
	What    uint8
	Create  bool // make the chunk if it does not exist
	Off     uint32
	Len     uint32 // bytes; for WriteData len(Data), for WriteTrim not used
	Data    []byte
	Sums    []uint32 // chunk.AppendSums of Data, checked; nil: computed here

	// Room, if it is set, is a buffer aligned as engine.Alloc's are that holds HeadRoom
	// bytes and then Data. The store may write to the former and keep all of it, so that
	// a large write goes to the disk from where it is. Done is called once, by whom ever
	// and perhaps before Write returns, when the store does not need the buffer any
	// more; never, if the disk fails with what is in it. Done must be short and must not
	// call the store.
	Room []byte
	Done func()
}

// HeadRoom is what a Room has in front of the data, in bytes.
const HeadRoom = headerSize

// Write accepts a change: when it returns, the change has its place in the order of
// the chunk's changes, Read sees it, and Data has been taken over. It is durable when
// the Ticket says so. With a Room the data is only on loan until Done. Write waits while
// the log has no room or too much is in flight.
//
// Errors: status.NoChunk without Create, status.StaleVersion if the chunk has a higher
// version, status.Corrupt if Sums do not match Data, status.Invalid outside of the
// chunk, status.NoSpace, status.DiskFailed, status.Closed. Zeros and trims are not
// refused for lack of space.
func (s *Store) Write(w Write) (Ticket, error) {
	t, kept, err := s.take(&w)
	if w.Done != nil && !kept {
		w.Done()
	}
	return t, err
}

// take is Write but for Done; kept: a frame will call it.
func (s *Store) take(w *Write) (t Ticket, kept bool, err error) {
	switch w.What {
	case WriteData:
		w.Len = uint32(len(w.Data))
	case WriteTrim:
		if w.Off < chunk.Size {
			w.Len = chunk.Size - w.Off
		}
	case WriteZero:
	default:
		return t, false, status.Errorf(status.Invalid, "chunk %v: kind of write %d", w.Chunk, w.What)
	}
	if len(w.Data) > chunk.Size || uint64(w.Off)+uint64(w.Len) > chunk.Size || w.Len == 0 && w.What != WriteTrim {
		return t, false, status.Errorf(status.Invalid, "chunk %v: write of %d bytes at %d", w.Chunk, w.Len, w.Off)
	}
	if w.What == WriteData {
		sums, ok := sumsFor(w.Off, w.Data, w.Sums)
		if !ok {
			return t, false, status.Errorf(status.Corrupt, "chunk %v: data of the write at %d", w.Chunk, w.Off)
		}
		w.Sums = sums
	}
	s.mu.Lock()
	t.f, kept, err = s.write(w)
	s.unlock()
	return t, kept, err
}

// write does the work of Write. mu is held; it is given up for large copies.
func (s *Store) write(w *Write) (f *frame, kept bool, err error) {
	if err := s.admit(w); err != nil {
		return nil, false, err
	}
	if w.What != WriteData {
		f, err = s.writeZero(w)
		return f, false, err
	}
	p := part{chunk: w.Chunk, off: w.Off, data: w.Data, sums: w.Sums, bulk: w.Len >= min(bulkSize, s.partMax)}
	if p.bulk && w.Len <= s.partMax && (w.Off|w.Len)&edgeMask == 0 && len(w.Room) == HeadRoom+len(w.Data) && engine.Aligned(w.Room) {
		p.room, p.done = w.Room, w.Done
	}
	first := true
	f, err = s.writeParts(&p, func(e entry) (entry, error) {
		r := s.index.find(w.Chunk) // looked up for each part: mu may have been given up
		if err := s.fits(r, w); err != nil {
			return e, err
		}
		r = s.index.make(w.Chunk)
		e.version, e.writes = w.Version, 1
		if r.alive() && r.version == w.Version {
			e.writes = r.writes
			if first {
				e.writes++
			}
		}
		first = false
		return e, nil
	})
	return f, p.kept, err
}

// part is what is left of a data write.
type part struct {
	chunk chunk.ID
	imp   *Import
	off   uint32
	data  []byte
	sums  []uint32
	bulk  bool

	room []byte // not nil: the buffer for a frame of its own...
	done func() // ...and who has lent it
	kept bool   // a frame has it
}

// writeParts logs p in entries of at most partMax bytes. fill completes each entry when
// its place is known, by value so that none goes to the heap; if it fails, the rest is not written. It returns the last frame.
// mu is held; it is given up for large copies.
func (s *Store) writeParts(p *part, fill func(entry) (entry, error)) (*frame, error) {
	var last *frame
	for len(p.data) > 0 {
		n := min(s.partMax-p.off%blockSize, uint32(len(p.data)))
		pieces := chunk.Pieces(p.off, n)
		f, pos, err := s.reserve(p, false, n, pieces)
		if err != nil {
			return last, err
		}
		e := entry{kind: kindData, chunk: p.chunk, lsn: s.nextLSN(), off: p.off, len: n, pos: pos}
		if p.imp != nil {
			e.imp = p.imp.number
		}
		if e, err = fill(e); err != nil {
			f.undo(pos, n, pieces)
			return last, err
		}
		s.log1(f, &e, p.sums[:pieces])
		if p.kept {
			s.want(f)
		} else {
			s.copyIn(f, pos, p.data[:n], true)
		}
		last = f
		p.off, p.data, p.sums = p.off+n, p.data[n:], p.sums[pieces:]
	}
	return last, nil
}

// copyIn copies payload into the place that was reserved for it and lets the frame
// leave, if somebody waits for it, when it should. mu is held; it is given up for a
// large copy.
func (s *Store) copyIn(f *frame, pos uint32, data []byte, wanted bool) {
	large := len(data) > copyHeld
	if large {
		f.filling++
	} else {
		copy(f.buf[pos:], data)
	}
	if wanted {
		s.want(f)
	}
	if large {
		s.unlock()
		copy(f.buf[pos:], data)
		s.mu.Lock()
		s.filled(f)
	}
}

// writeZero logs zeros. mu is held.
func (s *Store) writeZero(w *Write) (*frame, error) {
	f, _, err := s.reserve(&part{chunk: w.Chunk}, true, 0, 0)
	if err != nil {
		return nil, err
	}
	if err := s.fits(s.index.find(w.Chunk), w); err != nil {
		f.undo(0, 0, 0)
		return nil, err
	}
	r := s.index.make(w.Chunk)
	e := entry{kind: kindZero, chunk: w.Chunk, lsn: s.nextLSN(), off: w.Off, len: w.Len, version: w.Version, writes: 1}
	if w.Len == 0 { // a trim at the very end
		e.off, e.len = chunk.Size-1, 1
		e.kind = kindState
		e.hide, e.base = r.hide, r.base
	}
	if r.alive() && r.version == w.Version {
		e.writes = r.writes + 1
	}
	s.log1(f, &e, nil)
	s.want(f)
	return f, nil
}

// fits refuses a write that the chunk as it is does not take. mu is held.
func (s *Store) fits(r *record, w *Write) error {
	if r == nil || !r.alive() {
		if !w.Create {
			return status.Errorf(status.NoChunk, "chunk %v", w.Chunk)
		}
		return nil
	}
	if r.version > w.Version {
		return status.Errorf(status.StaleVersion, "chunk %v has version %d, the write is for %d", w.Chunk, r.version, w.Version)
	}
	return nil
}

// admit refuses what cannot be taken whatever happens next. mu is held.
func (s *Store) admit(w *Write) error {
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.fits(s.index.find(w.Chunk), w); err != nil {
		return err
	}
	if w.What == WriteData {
		return s.spaceFor(w.Off, w.Len, fillWrite)
	}
	return nil
}

// usable says why the store takes no changes, if it does not. mu is held.
func (s *Store) usable() error {
	if s.closing {
		return status.Errorf(status.Closed, "segment store")
	}
	return s.failed
}

// spaceFor refuses data that would fill the disk to more than a percentage. mu is held.
func (s *Store) spaceFor(off, n uint32, percent int64) error {
	e := extent{off: off, len: n}
	if s.index.live+e.cost() > s.level(percent) {
		return status.Errorf(status.NoSpace, "disk %016x: %d bytes in use", s.diskID, s.index.live)
	}
	return nil
}

// reserve finds a place for an entry with the next n bytes of p in the frame that is open
// or in a new one, which has the buffer that is on loan if there is one. Entries of a chunk stay
// in one head while the last of them is not durable. urgent entries may use the
// reserve. The place must be used by log1 or given back by undo before mu is given up.
// mu is held; reserve gives it up to wait for room.
func (s *Store) reserve(p *part, urgent bool, n uint32, pieces int) (*frame, uint32, error) {
	h := &s.heads[headSmall]
	if p.bulk {
		h = &s.heads[headBulk]
	}
	for {
		if err := s.usable(); err != nil {
			return nil, 0, err
		}
		if urgent || s.mayEnter() {
			h := s.headOf(p.chunk, h)
			if f, pos, ok := s.tryReserve(h, p, urgent, n, pieces); ok {
				s.enter(n)
				return f, pos, nil
			}
		}
		idle := len(h.flight) < maxFlight && h.broken == nil
		if s.stuck && (!urgent || idle && s.freeSegments() <= metaFloor) {
			return nil, 0, status.Errorf(status.NoSpace, "disk %016x: nothing left to clean", s.diskID)
		}
		s.wait()
	}
}

// headOf returns the head where an entry of a chunk must go, h if it is free to choose.
// mu is held.
func (s *Store) headOf(id chunk.ID, h *head) *head {
	if r := s.index.find(id); r != nil && r.seq > s.heads[r.head].durable.seq {
		return &s.heads[r.head]
	}
	return h
}

// tryReserve is reserve without waiting, for a given head. mu is held.
func (s *Store) tryReserve(h *head, p *part, urgent bool, n uint32, pieces int) (*frame, uint32, bool) {
	for {
		if h.seg != nil && h.seg.reserve && !urgent && h.n != headClean {
			if s.atHand() < dataFloor {
				s.wakeKeeper()
				return nil, 0, false
			}
			h.seg.reserve = false
		}
		if f := h.open; f != nil {
			if p.room == nil || p.kept {
				if pos, ok := f.place(p.off, n, pieces, len(h.flight) == 0); ok {
					return f, pos, true
				}
			}
			if len(h.flight) >= maxFlight || h.broken != nil {
				return nil, 0, false
			}
			s.close(h)
			continue
		}
		if len(h.flight) >= maxFlight || h.broken != nil {
			return nil, 0, false
		}
		need := headerSize + n + blockSize
		if n <= inlineFew {
			need = headerSize
		}
		if h.seg == nil || s.room(h.seg) < need {
			if !s.roll(h, floor(h, urgent)) {
				return nil, 0, false
			}
			continue
		}
		if p.room == nil {
			s.newFrame(h, engine.Alloc(int(s.room(h.seg))))
			continue
		}
		f := s.newFrame(h, p.room)
		f.done, p.kept = p.done, true
	}
}

// undo gives back the header room of a reservation; the payload's place stays as a gap.
func (f *frame) undo(pos, n uint32, pieces int) {
	if f.done == nil {
		clear(f.buf[pos : pos+n])
	}
	f.used -= uint32(entrySize + 4*pieces)
	if f.count == 0 { // an open frame is never empty
		s := f.store
		f.head.open = nil
		hd := header{repeated: f.repeated}
		f.head.names = hd.names(f.buf)
		f.finished = true
		f.seg.landed(f)
		f.release()
		s.changed.Broadcast()
	}
}

// log1 writes an entry into the place that was reserved for it and changes the index
// accordingly. mu is held.
func (s *Store) log1(f *frame, e *entry, sums []uint32) {
	f.add(e, sums)
	r := s.index.make(e.chunk)
	if e.flags&flagMoved == 0 {
		r.head, r.seq = f.head.n, f.head.seq+1
	}
	s.apply(r, e, f.seg, f.off+e.pos, sums)
	if e.kind == kindData {
		s.fragmented(r, e.len)
	}
}

// apply changes the index as an entry of segment g says, whose payload starts at byte
// pos of g. mu is held.
func (s *Store) apply(r *record, e *entry, g *segment, pos uint32, sums []uint32) {
	s.save(r)
	s.mention(g, r)
	b := &r.body
	if e.imp != 0 && e.imp != r.base {
		imp := s.imports[e.imp]
		if imp == nil {
			return // never committed, or given up
		}
		b = &imp.body
	}
	switch e.kind {
	case kindData:
		s.index.put(b, extent{off: e.off, len: e.len, seg: g.n, pos: pos, edge: uint32(e.pre) | uint32(e.post)<<12}, sums)
	case kindZero:
		s.index.zero(b, e.off, e.off+e.len, g.n, pos)
	case kindState:
		r.hide, r.base = e.hide, e.base
		if r.hide != 0 || r.base != 0 {
			s.index.point(&r.state, g.n)
		}
	case kindDelete:
		s.index.clear(b)
		s.setAlive(r, false)
		s.index.point(&r.attest, noSegment)
		s.index.point(&r.state, g.n)
		r.hide, r.base, r.version, r.writes, r.length, r.flags = e.lsn, 0, 0, 0, 0, recDead
		return
	}
	if b == &r.body {
		r.length = s.index.length(b)
	}
	if e.imp == 0 && e.flags&flagMoved == 0 {
		s.setAlive(r, true)
		r.version, r.writes = e.version, e.writes
		s.index.point(&r.attest, g.n)
	}
}

// setAlive makes a chunk exist or not. mu is held.
func (s *Store) setAlive(r *record, alive bool) {
	switch {
	case alive && !r.alive():
		s.index.count++
		r.flags = r.flags&^recDead | recAlive
	case !alive && r.alive():
		s.index.count--
		r.flags &^= recAlive
	}
}
