package segment

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
)

// segState says what a segment is good for.
type segState uint8

const (
	segBlank    segState = iota // may be written; its blocks never were
	segFree                     // may be written, and was before
	segPrepare                  // the preparer writes zeros to it
	segOpen                     // the place where a head grows
	segSealed                   // full, or left
	segCleaning                 // the cleaner takes what is alive out of it
	segBad                      // the disk failed to write to it, or damage kept it from being emptied
)

func (s segState) String() string {
	return [...]string{"blank", "free", "prepare", "open", "sealed", "cleaning", "bad"}[s]
}

// segment is one row of the segment table. Guarded by Store.mu; n, file and base are
// constant.
type segment struct {
	n    uint32
	file engine.File
	base int64 // byte of the file where it starts

	state       segState
	head        uint8
	retired     bool    // the disk failed to write to it: never used again
	unsealed    bool    // its seal is not on disk: recovery looks for what follows its last frame
	evict       bool    // to be emptied soon, whatever it holds: its log is damaged
	begun       bool    // its first frame is durable
	reserve     bool    // was opened for what must always find room, not for data
	incarnation uint64  // LSN drawn when writing to it began
	end         uint32  // bytes filled by frames, also those not yet durable
	previous    uint32  // sum of the last header
	live        int64   // cost of its live extents in bytes
	inherited   int64   // bytes of what the cleaner moved here...
	ages        float64 // ...and the sum over them of the LSNs at which they were born
	pins        int     // reads that rely on its contents
	pending     int     // 1 while its seal is not durable
	first, last uint64  // numbers of its first and last frame
	lsn         uint64  // of its first entry
	frames      uint32
	body        []byte                // seal body so far; nil when sealed
	set         map[chunk.ID]struct{} // chunks that it has entries of; nil when sealed
	chunks      []chunk.ID            // the same, sorted; nil when open
	flight      []*frame              // its frames that are not durable, in order
	held        []*frame              // frames, and its seal, that wait for its first frame
}

// note takes the finished header of the next frame into the books.
func (g *segment) note(h *header, used []byte) {
	if g.frames == 0 {
		g.first, g.lsn = h.seq, h.lsn
	}
	g.frames++
	g.last = h.seq
	g.end = h.off + h.size
	g.previous = h.sum
	g.body = le.AppendUint32(g.body, uint32(len(used)))
	g.body = append(g.body, used...)
}

// landed takes a durable frame out of what is in flight.
func (g *segment) landed(f *frame) {
	if f.seal {
		g.pending = 0
		return
	}
	if i := slices.Index(g.flight, f); i >= 0 {
		g.flight = slices.Delete(g.flight, i, i+1)
	}
	if f.off == 0 {
		g.begun = f.written && !f.bad
		held := g.held
		g.held = nil
		for _, h := range held {
			f.store.launch(h)
		}
	}
}

// frameAt returns the frame that is not yet durable and holds a byte of the segment.
func (g *segment) frameAt(pos uint32) *frame {
	for _, f := range g.flight {
		if pos >= f.off && pos-f.off < f.size {
			return f
		}
	}
	return nil
}

// sealSize is what the seal takes if another header is added, in bytes.
func (g *segment) sealSize() uint32 {
	return (uint32(len(g.body))+4+headerSize+blockSize-1)&^(blockSize-1) + blockSize
}

// room is what a frame may take that starts at the end of g, in bytes.
func (s *Store) room(g *segment) uint32 {
	if used := g.end + g.sealSize(); used < s.segSize {
		return min(s.segSize-used, s.frameMax)
	}
	return 0
}

// start makes g the place where h grows. mu is held.
func (s *Store) start(g *segment, h *head) {
	g.state, g.head, g.begun = segOpen, h.n, false
	g.incarnation = s.nextLSN()
	g.end, g.previous, g.frames, g.first, g.last, g.lsn = 0, 0, 0, 0, 0, 0
	if g.live != 0 {
		panic(fmt.Sprintf("BUG: segment %d has %d live bytes before it is written", g.n, g.live))
	}
	g.body, g.chunks, g.inherited, g.ages = nil, nil, 0, 0
	g.set = make(map[chunk.ID]struct{})
	h.seg = g
	s.checkpoints.opened++
}

// sealOf builds the seal of a segment. It lies at the end of the segment.
func (s *Store) sealOf(g *segment, next uint32) (buf []byte, at uint32) {
	body := (uint32(len(g.body)) + blockSize - 1) &^ (blockSize - 1)
	at = s.segSize - blockSize - body
	buf = engine.Alloc(int(body + blockSize))
	clear(buf)
	copy(buf, g.body)
	t := trailer{head: g.head, disk: s.diskID, seg: g.n, end: g.end, incarnation: g.incarnation, first: g.first, last: g.last,
		lsn: g.lsn, frames: g.frames, body: at, bodySize: uint32(len(g.body)), bodySum: chunk.Sum(g.body), next: next, time: time.Now().UnixNano()}
	t.put(buf[body:])
	return buf, at
}

// close ends the books of an open segment.
func (g *segment) close() {
	g.chunks = make([]chunk.ID, 0, len(g.set))
	for id := range g.set {
		g.chunks = append(g.chunks, id)
	}
	slices.Sort(g.chunks)
	g.state, g.set, g.body = segSealed, nil, nil
}

// seal ends an open segment: its seal goes out behind its last frame. mu is held.
func (s *Store) seal(g *segment, next uint32) {
	f := s.sealFrame(g, next)
	f.head.flight = append(f.head.flight, f)
	s.launch(f)
}

// sealFrame ends an open segment and builds what seals it. mu is held.
func (s *Store) sealFrame(g *segment, next uint32) *frame {
	buf, at := s.sealOf(g, next)
	g.close()
	g.pending = 1
	return &frame{store: s, head: &s.heads[g.head], seg: g, buf: buf, off: at, size: uint32(len(buf)), seal: true, closed: true}
}

// floor says how many segments at hand an opening must leave for those who come before:
// the cleaner always finds one, then what frees space or changes no data, then data.
// Segments that are not made yet do not count: it is the keeper who makes them, and while
// it cleans it would wait for itself.
func floor(h *head, urgent bool) int {
	switch {
	case h.n == headClean:
		return 0
	case urgent:
		return metaFloor
	}
	return dataFloor
}

// roll moves a head on to a free segment, if there are more than least, and seals the
// one it leaves. It reports whether there was one. mu is held and the head has no open
// frame.
func (s *Store) roll(h *head, least int) bool {
	if s.atHand() <= least {
		s.wakeKeeper() // which makes more, or cleans
		return false
	}
	g := s.pick(h)
	if g == nil {
		return false // the preparer has it
	}
	if old := h.seg; old != nil {
		if old.frames > 0 {
			s.seal(old, g.n)
		} else {
			s.putBack(old)
		}
	}
	s.start(g, h)
	if h.n != headClean {
		s.progress()
	}
	g.reserve = s.atHand() < dataFloor
	if s.atHand() < growAhead || s.freeSegments() < s.lowWater() {
		s.wakeKeeper()
	}
	s.wakePreparer()
	return true
}

// pick takes a segment to write to off the free ones: written before for what is synced
// frame by frame, new ones for streams. mu is held.
func (s *Store) pick(h *head) *segment {
	want, other := &s.written, &s.blank
	if h.n == headBulk {
		want, other = other, want
	}
	for _, l := range []*[]*segment{want, other} {
		if n := len(*l); n > 0 {
			g := (*l)[n-1]
			*l = (*l)[:n-1]
			return g
		}
	}
	return nil
}

// putBack returns a segment without frames to the free ones. mu is held.
func (s *Store) putBack(g *segment) {
	for id := range g.set {
		s.unmention(g, id)
	}
	g.set, g.body, g.chunks, g.flight = nil, nil, nil, nil
	g.state = segFree
	s.written = append(s.written, g)
}

// unmention takes back that a segment has entries of a chunk, and forgets a chunk that
// the log has no word of any more. mu is held.
func (s *Store) unmention(g *segment, id chunk.ID) {
	r := s.index.find(id)
	if r == nil || r.refs == 0 {
		panic(fmt.Sprintf("BUG: segment %d has entries of chunk %v, which has no record", g.n, id))
	}
	r.refs--
	if r.refs == 0 && !r.alive() {
		s.index.forget(r)
	}
}

// atHand is how many segments can be opened at once. mu is held.
func (s *Store) atHand() int { return len(s.written) + len(s.blank) + s.preparing }

// freeSegments is how many segments can be opened, also those not yet made. mu is held.
func (s *Store) freeSegments() int {
	return s.atHand() + max(0, s.maxSegments-len(s.segs))
}

// touched notes that the live bytes of a segment change by cost. mu is held.
func (s *Store) touched(seg uint32, cost int64) {
	g := s.segs[seg]
	g.live += cost
	if cost < 0 {
		s.stuck = false
		if g.state == segSealed && g.live < s.cheap() {
			s.wakeKeeper()
		}
	}
}

// containerName is the file of container n.
func containerName(n uint32) string { return fmt.Sprintf("segments-%05d", n) }

// containerNumber is the number of a container's file.
func containerNumber(name string) (uint32, bool) {
	digits, ok := strings.CutPrefix(name, "segments-")
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), ok && err == nil && containerName(uint32(n)) == name
}

// addContainer takes the segments of a container into the table. mu is held, or the
// store is not yet open.
func (s *Store) addContainer(f engine.File) []*segment {
	first := len(s.segs)
	for i := range int(s.perFile) {
		g := &segment{n: uint32(first + i), file: f, base: int64(i) * int64(s.segSize)}
		s.segs = append(s.segs, g)
	}
	s.files = append(s.files, f)
	return s.segs[first:]
}
