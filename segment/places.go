package segment

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/status"
)

// Place is a run of stored bytes of a chunk: Len bytes from Off on. They were stored in
// pieces, see extent, so that Pre stored bytes lie before the first of them in its piece
// and Post behind the last one. The first stored byte of the first piece is at At in File.
type Place struct {
	Off, Len  uint32
	Pre, Post uint16
	File      engine.File
	At        int64
}

// Places appends to list where the n bytes of a chunk from off on lie, in order, and to sums
// the sums of their pieces; what no place covers reads as zeros. A place tells all there is
// to read only until the chunk is written to; until its segment is emptied, which nothing
// announces, it is where the bytes are: who reads there must hold what he finds against the
// sums and ask again if it does not match.
//
// Errors: as of Read; status.Busy while some of the bytes are not on the disk;
// status.TooBig if there are more than most places.
func (s *Store) Places(id chunk.ID, lowest, highest chunk.Version, off, n uint32, most int, list []Place, sums []uint32) ([]Place, []uint32, error) {
	if n > chunk.Size || off > chunk.Size-n {
		return list, sums, status.Errorf(status.Invalid, "chunk %v: places of %d bytes at %d", id, n, off)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, err := s.readable(id, lowest, highest)
	if err != nil {
		return list, sums, err
	}
	l := s.index.all(&rec.body)
	for i := s.index.search(l, off); i < len(l) && l[i].off() < off+n; i++ {
		e := s.index.unpack(&l[i])
		if e.zero() {
			continue
		}
		g := s.segs[e.seg]
		if g.frameAt(e.pos) != nil {
			return list, sums, status.Errorf(status.Busy, "chunk %v: the bytes at %d are not on disk yet", id, e.off)
		}
		if most--; most < 0 {
			return list, sums, status.Errorf(status.TooBig, "chunk %v: %d bytes at %d lie in too many pieces", id, n, off)
		}
		p, first := e.cut(max(off, e.off), min(off+n, e.end()))
		sums = append(sums, s.index.sumsOf(&e)[first:first+p.pieces()]...)
		list = append(list, Place{Off: p.off, Len: p.len, Pre: uint16(p.pre()), Post: uint16(p.post()),
			File: g.file, At: g.base + int64(p.pos-p.pre())})
	}
	return list, sums, nil
}

// readable returns the record of a chunk that may be read at one of the versions. mu is held.
func (s *Store) readable(id chunk.ID, lowest, highest chunk.Version) (*record, error) {
	rec := s.index.find(id)
	switch {
	case s.closing:
		return nil, status.Errorf(status.Closed, "segment store")
	case rec == nil || !rec.alive():
		return nil, status.Errorf(status.NoChunk, "chunk %v", id)
	case rec.version < lowest || rec.version > highest:
		return nil, status.Errorf(status.StaleVersion, "chunk %v has version %d, not %d..%d", id, rec.version, lowest, highest)
	}
	return rec, nil
}
