package segment

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/status"
)

// Read fills buf with the bytes of a chunk from off on; holes and what lies behind the
// end read as zeros. It appends to sums what chunk.AppendSums would make of buf; a
// piece that was stored as it is carries the sum it was stored with. Every stored piece
// that is touched is read whole and checked. Read sees every Write that has returned.
//
// Errors: status.NoChunk, status.StaleVersion if the version is not in min..max,
// status.Corrupt if stored bytes do not match their sums or cannot be read,
// status.Invalid outside of the chunk. On an error buf's contents are undefined.
func (s *Store) Read(id chunk.ID, lowest, highest chunk.Version, off uint32, buf []byte, sums []uint32) ([]uint32, error) {
	if len(buf) > chunk.Size || uint64(off)+uint64(len(buf)) > chunk.Size {
		return sums, status.Errorf(status.Invalid, "chunk %v: read of %d bytes at %d", id, len(buf), off)
	}
	r := readers.Get().(*reader)
	defer r.recycle()
	r.off, r.buf, r.alone = off, buf, s.step != nil
	s.mu.Lock()
	rec, err := s.readable(id, lowest, highest)
	if err == nil {
		s.gather(&rec.body, off, off+uint32(len(buf)), r)
		s.readBegins(r)
	}
	s.unlock()
	if err != nil {
		return sums, err
	}
	err = r.run()
	s.letGo(r)
	if err != nil {
		s.damaged(id, err)
		return sums, status.Errorf(status.Corrupt, "chunk %v: %v", id, err)
	}
	return r.appendSums(sums), nil
}

// source is an extent to be read, or the part of one that a read touches.
type source struct {
	extent
	sums []uint32 // of its pieces
	g    *segment
	f    *frame // holds the bytes while they are not durable
	buf  []byte // what was read, from the first stored byte of the first piece on

	copied bool      // buf is not the caller's
	lead   int       // source whose op brings the bytes
	mem    []byte    // the engine's buffer for this source and those read with it
	op     engine.Op // Buf nil: read with a source before it
}

// reader is the work of one read. It is pooled.
type reader struct {
	off  uint32
	buf  []byte // nil: keep what was read in the sources
	list []source
	sums []uint32  // sums of all sources
	ops  []*source // those that have an op
	send []*engine.Op
	wait sync.WaitGroup
	done func(*engine.Op) // wait.Done, made once

	alone bool // do everything in this goroutine
	queue bool // leave even a single op to the engine
	again int  // sources that had to be read twice

	watched bool      // it is in health.reads...
	began   time.Time // ...since then...
	slot    int       // ...at this place
}

var readers = sync.Pool{New: func() any {
	r := new(reader)
	r.done = func(*engine.Op) { r.wait.Done() }
	return r
}}

func (r *reader) recycle() {
	r.reset()
	readers.Put(r)
}

// reset gives back what a read has taken.
func (r *reader) reset() {
	for i := range r.list {
		engine.Free(r.list[i].mem)
	}
	clear(r.list)
	clear(r.ops)
	r.list, r.sums, r.ops, r.buf, r.again, r.queue = r.list[:0], r.sums[:0], r.ops[:0], nil, 0, false
}

// gather finds what [from, to) of b is made of and pins it. mu is held; it is given up
// to wait for frames whose payload is being copied.
func (s *Store) gather(b *body, from, to uint32, r *reader) {
	l := s.index.all(b)
	for i := s.index.search(l, from); i < len(l) && l[i].off() < to; i++ {
		if e := s.index.unpack(&l[i]); !e.zero() {
			r.add(s, &e, max(from, e.off), min(to, e.end()))
		}
	}
	for i := range r.list {
		for f := r.list[i].f; f != nil && f.filling > 0; {
			s.wait()
		}
	}
}

// add takes the part [from, to) of e into the work and pins its bytes. mu is held.
func (r *reader) add(s *Store, e *extent, from, to uint32) {
	p, first := e.cut(from, to)
	n := p.pieces()
	at := len(r.sums)
	r.sums = append(r.sums, s.index.sumsOf(e)[first:first+n]...)
	g := s.segs[e.seg]
	f := g.frameAt(e.pos)
	if f != nil {
		f.readers++
	} else {
		g.pins++
	}
	r.list = append(r.list, source{extent: p, g: g, f: f, sums: r.sums[at:]})
}

// letGo takes the pins off when the I/O is done.
func (s *Store) letGo(r *reader) {
	s.stat.again.Add(r.again)
	took := time.Since(r.began)
	s.mu.Lock()
	if r.watched {
		s.readEnded(r, took)
	}
	for i := range r.list {
		p := &r.list[i]
		if p.f != nil {
			p.f.readers--
			p.f.release()
			continue
		}
		p.g.pins--
		if p.g.pins == 0 && p.g.state == segCleaning {
			s.changed.Broadcast()
		}
	}
	s.unlock()
}

// run reads all sources, checks them and fills buf.
func (r *reader) run() error {
	at := 0
	for i := range r.list { // sums may have moved while the list grew
		n := int(r.list[i].pieces())
		r.list[i].sums = r.sums[at : at+n]
		at += n
	}
	r.fetch()
	next := r.off
	for i := range r.list {
		p := &r.list[i]
		if err := r.trust(p); err != nil {
			return err
		}
		if r.buf == nil {
			continue
		}
		clear(r.buf[next-r.off : p.off-r.off])
		if p.copied || p.f != nil {
			copy(r.buf[p.off-r.off:], p.buf[p.pre():p.pre()+p.len])
		}
		next = p.end()
	}
	if r.buf != nil {
		clear(r.buf[next-r.off:])
	}
	return nil
}

// trust makes sure that the bytes of a source are in memory and right. What came with an
// error, or wrong, is read once more, piece by piece: a block that cannot be read must
// not cost its neighbours, and a bit that was lost on the way is not lost on the disk.
func (r *reader) trust(p *source) error {
	if p.f != nil {
		if bad := chunk.Verify(p.sums, p.off-p.pre(), p.buf); bad >= 0 {
			return fmt.Errorf("segment %d: piece %d of the %d bytes at %d failed its checksum in memory", p.seg, bad, len(p.buf), p.start())
		}
		return nil
	}
	if r.list[p.lead].op.Err == nil && chunk.Verify(p.sums, p.off-p.pre(), p.buf) < 0 {
		return nil
	}
	r.again++
	return p.readPieces()
}

// readPieces reads the bytes of a source one piece after the other, up to the first that is
// wrong or cannot be read.
func (p *source) readPieces() error {
	b := engine.Alloc(2 * blockSize)
	defer engine.Free(b)
	first := p.off - p.pre() // in the chunk
	for k, at := 0, uint32(0); at < p.stored(); k++ {
		n := min(blockSize-(first+at)%blockSize, p.stored()-at)
		from := p.start() + at
		block := from &^ edgeMask
		span := (from + n - block + edgeMask) &^ edgeMask
		err := p.g.file.ReadAt(b[:span], p.g.base+int64(block))
		piece := b[from-block:][:n]
		if err == nil && chunk.Verify(p.sums[k:k+1], first+at, piece) >= 0 {
			err = errors.New("it fails its checksum")
		}
		if err != nil {
			return fmt.Errorf("segment %d: piece %d of the %d bytes at %d: %w", p.seg, k, p.stored(), p.start(), err)
		}
		copy(p.buf[at:], piece)
		at += n
	}
	return nil
}

// fetch brings the stored bytes of all sources into memory: straight into buf where all
// is aligned, else into buffers of the engine. Sources that follow each other closely on
// the disk, as small writes do, come with one read.
func (r *reader) fetch() {
	for i := 0; i < len(r.list); i++ {
		p := &r.list[i]
		if p.f != nil {
			p.buf = p.f.buf[p.start()-p.f.off:][:p.stored()]
			continue
		}
		first := p.start() &^ edgeMask
		end := p.start() + p.stored()
		last := i
		for last+1 < len(r.list) && r.list[last+1].continues(p, end, end-first) {
			last++
			end = r.list[last].start() + r.list[last].stored()
		}
		span := (end - first + edgeMask) &^ edgeMask
		target := r.direct(p, span)
		if last > i || target == nil {
			p.mem = engine.Alloc(int(span))
			target = p.mem
		}
		for k := i; k <= last; k++ {
			q := &r.list[k]
			q.buf = target[q.start()-first:][:q.stored()]
			q.copied, q.lead = p.mem != nil, i
		}
		p.op = engine.Op{Kind: engine.Read, Buf: target, Off: p.g.base + int64(first)}
		i = last
	}
	r.start()
}

const (
	readGap  = 16 << 10 // bytes that are read in vain rather than with a read of their own
	readSpan = 1 << 20  // bytes of one read of several sources
)

// start is the place of the first stored byte in the segment.
func (p *source) start() uint32 { return p.pos - p.pre() }

// stored is the number of stored bytes.
func (p *source) stored() uint32 { return p.pre() + p.len + p.post() }

// continues tells whether p is worth reading together with what ends at end and has
// size bytes so far, beginning with q.
func (p *source) continues(q *source, end, size uint32) bool {
	return p.f == nil && p.g == q.g && p.start() >= end && p.start()-end <= readGap && size+readGap+p.stored() <= readSpan
}

// direct is the part of the caller's buffer that p alone can be read into, nil if that
// is not possible.
func (r *reader) direct(p *source, span uint32) []byte {
	if r.buf == nil || p.start()%blockSize != 0 || span != p.len {
		return nil
	}
	if b := r.buf[p.off-r.off:][:span:span]; engine.Aligned(b) {
		return b
	}
	return nil
}

// readsAlone is the number of reads at a time up to which each of a single op is a plain
// system call of its caller. When there are more, an engine that batches saves most of the
// processor time: BenchmarkRing/Wait of package uring has the figures.
const readsAlone = 4

// start runs the reads: a single one in this goroutine, if there are few, several at once.
func (r *reader) start() {
	for i := range r.list {
		if p := &r.list[i]; p.op.Buf != nil {
			r.ops = append(r.ops, p)
		}
	}
	if r.alone || len(r.ops) == 1 && !r.queue {
		for _, p := range r.ops {
			p.op.Err = p.g.file.ReadAt(p.op.Buf, p.op.Off)
		}
	} else {
		r.wait.Add(len(r.ops))
		for i, p := range r.ops {
			p.op.Done = r.done
			r.send = append(r.send, &p.op)
			if i+1 == len(r.ops) || r.ops[i+1].g.file != p.g.file { // all of a file at once
				p.g.file.Submit(r.send...)
				clear(r.send)
				r.send = r.send[:0]
			}
		}
		r.wait.Wait()
	}
}

var zeroSum = chunk.Sum(make([]byte, blockSize))

// appendSums appends the sums of buf: stored ones where a piece of buf is a stored
// piece or a whole block of zeros, else computed ones.
func (r *reader) appendSums(sums []uint32) []uint32 {
	off, buf, i := r.off, r.buf, 0
	sums = slices.Grow(sums, chunk.Pieces(off, uint32(len(buf))))
	for len(buf) > 0 {
		n := min(blockSize-off%blockSize, uint32(len(buf)))
		for i < len(r.list) && r.list[i].end() <= off {
			i++
		}
		if i < len(r.list) && r.list[i].off < off+n {
			sums = append(sums, r.list[i].sumOf(off, buf[:n]))
		} else if n == blockSize {
			sums = append(sums, zeroSum)
		} else {
			sums = append(sums, chunk.Sum(buf[:n]))
		}
		off, buf = off+n, buf[n:]
	}
	return sums
}

// sumOf is the sum of the piece at off, which p has at least one byte of.
func (p *source) sumOf(off uint32, piece []byte) uint32 {
	n := uint32(len(piece))
	start, end := p.off-p.pre(), p.end()+p.post()
	k := off/blockSize - start/blockSize
	pieceStart := max(start, off&^edgeMask)
	pieceEnd := min(end, (off&^edgeMask)+blockSize)
	if p.off <= off && p.end() >= off+n && pieceStart == off && pieceEnd == off+n {
		return p.sums[k]
	}
	return chunk.Sum(piece)
}

// damaged announces that a chunk has bytes that cannot be trusted, once.
func (s *Store) damaged(id chunk.ID, err error) {
	s.stat.corrupt.Inc()
	s.mu.Lock()
	defer s.unlock()
	if r := s.index.find(id); r != nil && r.alive() {
		s.announceDamage(r, err)
	}
}

// Map lists the runs of data of a chunk in ascending order, neighbours joined. Errors:
// status.NoChunk.
func (s *Store) Map(id chunk.ID) ([]Range, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.index.find(id)
	if r == nil || !r.alive() {
		return nil, status.Errorf(status.NoChunk, "chunk %v", id)
	}
	var list []Range
	for _, e := range s.index.unpacked(&r.body) {
		if e.zero() {
			continue
		}
		if n := len(list); n > 0 && list[n-1].Off+list[n-1].Len == e.off {
			list[n-1].Len += e.len
		} else {
			list = append(list, Range{e.off, e.len})
		}
	}
	return list, nil
}
