package segment

import (
	"fmt"

	"github.com/varvefs/varve/engine"
)

// foundFrame is a frame that a walk has found.
type foundFrame struct {
	header
	bytes []byte   // used part of its header block
	names []uint32 // of the chunks of the frame before it; not in a seal

	tells  bool // one of its entries says what of a chunk's past counts
	counts bool // it is beyond its head's mark and no torn tail
}

// found is what a segment looks like on disk.
type found struct {
	g       *segment
	blank   bool          // nothing was ever written to it
	marked  [2]uint64     // LSNs of the free marks in its first and its last block, 0: none
	emptied uint64        // the LSN that counts
	sealed  *trailer      // it has a valid seal
	spoiled bool          // its last block is neither blank nor valid
	frames  []*foundFrame // of a segment without a valid seal
	listed  []*foundFrame // of one with a valid seal, if there was memory to keep them
	body    []byte        // from engine.Alloc: what listed is made of
	tells   bool          // one of the frames does
	late    []*foundFrame // frames behind the place where the walk ended
	stop    error         // why the walk ended
	known   bool          // the checkpoint has all that it tells
	rivals  []*found      // segments opened later that have frames of the same numbers
	durable [heads]claim  // how far its frames know the heads to be durable
}

// claim is what a frame says of a head: that it was durable up to a mark when the frame
// with this LSN was written.
type claim struct {
	mark
	lsn uint64
}

// newer says whether c tells more than o.
func (c claim) newer(o claim) bool { return c.seq > o.seq || c.seq == o.seq && c.lsn > o.lsn }

// witness takes in what a frame knows of the heads.
func (fd *found) witness(f *foundFrame) {
	fd.tells = fd.tells || f.tells
	for i, m := range f.durable {
		if c := (claim{m, f.lsn}); m.seq > 0 && c.newer(fd.durable[i]) {
			fd.durable[i] = c
		}
	}
}

// window reads a segment forward with few large reads.
type window struct {
	g    *segment
	size uint32 // of the segment
	buf  []byte // of one block, until more is read
	at   uint32 // place of buf in the segment
	have uint32 // bytes in buf
}

const windowSize = 1 << 20

func newWindow(g *segment, size uint32) *window {
	return &window{g: g, size: size, buf: engine.Alloc(blockSize)}
}

func (w *window) free() { engine.Free(w.buf) }

// block returns the block at off. It is good until the next call.
func (w *window) block(off uint32) ([]byte, error) {
	if off < w.at || off+blockSize > w.at+w.have {
		if len(w.buf) == blockSize {
			w.free()
			w.buf = engine.Alloc(int(min(windowSize, w.size)))
		}
		n := min(uint32(len(w.buf)), w.size-off)
		if err := w.g.file.ReadAt(w.buf[:n], w.g.base+int64(off)); err != nil {
			w.have = 0
			if err := w.g.file.ReadAt(w.buf[:blockSize], w.g.base+int64(off)); err != nil {
				return nil, err
			}
			n = blockSize
		}
		w.at, w.have = off, n
	}
	return w.buf[off-w.at:][:blockSize], nil
}

// single returns the block at off without reading more.
func (w *window) single(off uint32) ([]byte, error) {
	w.at, w.have = off, 0
	if err := w.g.file.ReadAt(w.buf[:blockSize], w.g.base+int64(off)); err != nil {
		return nil, err
	}
	w.have = blockSize
	return w.buf[:blockSize], nil
}

// headerAt reads the header at off and checks that it belongs there.
func (w *window) headerAt(off uint32, disk uint64) (*foundFrame, error) {
	b, err := w.block(off)
	if err != nil {
		return nil, err
	}
	h, err := decodeHeader(b)
	if err != nil {
		return nil, err
	}
	switch {
	case h.disk != disk:
		return nil, fmt.Errorf("frame of disk %016x", h.disk)
	case h.seg != w.g.n || h.off != off:
		return nil, fmt.Errorf("frame that belongs to %d in segment %d", h.off, h.seg)
	case uint64(off)+uint64(h.size) > uint64(w.size)-blockSize:
		return nil, fmt.Errorf("frame of %d bytes, the segment ends before", h.size)
	}
	tells, err := checkEntries(b, &h)
	if err != nil {
		return nil, err
	}
	return &foundFrame{header: h, bytes: append([]byte(nil), b[:h.used]...), names: h.names(b), tells: tells}, nil
}

// look finds out what a segment holds: first its two ends, then, unless it is free or
// sealed, its frames.
func look(g *segment, size uint32, disk uint64) *found {
	fd := &found{g: g}
	w := newWindow(g, size)
	defer w.free()
	fd.lookEnd(w, disk)
	b, err := w.single(0)
	if err == nil {
		var m free
		if m, err = decodeFree(b); err == nil && m.disk == disk && m.seg == g.n {
			if fd.sealed != nil && fd.sealed.incarnation > m.lsn {
				return fd // the write of the first header was lost
			}
			fd.marked[0], fd.emptied, fd.sealed = m.lsn, max(fd.emptied, m.lsn), nil
			return fd
		}
		if blank(b) && fd.sealed == nil && fd.emptied == 0 && !fd.spoiled {
			fd.blank = true
			return fd
		}
	}
	if first, err := w.headerAt(0, disk); err == nil && first.incarnation < fd.emptied {
		return fd // emptying it was cut short
	} else if t := fd.sealed; t != nil && (err != nil || first.lsn == t.lsn) {
		return fd
	}
	fd.sealed = nil
	fd.walk(w, disk)
	return fd
}

// lookEnd reads the last block.
func (fd *found) lookEnd(w *window, disk uint64) {
	b, err := w.single(w.size - blockSize)
	if err != nil {
		fd.spoiled = true
		return
	}
	if m, err := decodeFree(b); err == nil && m.disk == disk && m.seg == fd.g.n {
		fd.marked[1], fd.emptied = m.lsn, m.lsn
		return
	}
	t, err := decodeTrailer(b, w.size)
	if err == nil && t.disk == disk && t.seg == fd.g.n {
		var frames []*foundFrame
		var body []byte
		if frames, body, err = loadBody(fd.g, &t); err == nil {
			fd.sealed, fd.listed, fd.body = &t, frames, body
			for _, f := range frames {
				fd.witness(f)
			}
			return
		}
	}
	fd.spoiled = err != errBlank
}

// loadBody reads and checks the body of a seal. The frames hold parts of body, which is
// from engine.Alloc.
func loadBody(g *segment, t *trailer) (frames []*foundFrame, body []byte, err error) {
	body = engine.Alloc(int(t.bodySize))
	if err := g.file.ReadAt(body, g.base+int64(t.body)); err != nil {
		engine.Free(body)
		return nil, nil, err
	}
	n := min(t.frames, t.bodySize/(4+fixedSize)) // more do not fit
	all := make([]foundFrame, 0, n)
	frames = make([]*foundFrame, 0, n)
	err = decodeBody(body[:t.bodySize], t, func(h *header, used []byte) error {
		if h.seg != g.n || h.disk != t.disk || h.off+h.size > t.end {
			return fmt.Errorf("segment %d: its seal lists a frame of segment %d at %d", g.n, h.seg, h.off)
		}
		tells, err := checkEntries(used, h)
		all = append(all, foundFrame{header: *h, bytes: used, tells: tells})
		frames = append(frames, &all[len(all)-1])
		return err
	})
	if err != nil {
		engine.Free(body)
		return nil, nil, err
	}
	return frames, body, nil
}

// walk follows the frames from the start of the segment to the first place where none
// that continues them is found, and then looks ahead for frames that were written
// behind it: they tell a torn end from damage in the middle.
func (fd *found) walk(w *window, disk uint64) {
	off := uint32(0)
	var last *foundFrame
	for off+headerSize < w.size {
		f, err := w.headerAt(off, disk)
		if err == nil {
			err = follows(last, f, fd.emptied)
		}
		if err != nil {
			fd.stop = err
			break
		}
		fd.frames = append(fd.frames, f)
		fd.witness(f)
		last, off = f, off+f.size
	}
	fd.ahead(w, off, last, disk)
}

// follows says why f cannot be the frame behind last (nil: the first one).
func follows(last, f *foundFrame, emptied uint64) error {
	switch {
	case f.incarnation <= emptied:
		return fmt.Errorf("frame from before the segment was emptied")
	case last == nil:
		if f.off == 0 && f.previous != 0 {
			return fmt.Errorf("first frame says that it follows another")
		}
		return nil
	case f.incarnation < last.incarnation || f.seq <= last.seq || f.lsn <= last.lsn || f.head != last.head:
		return fmt.Errorf("frame from before")
	case f.previous != last.sum:
		return fmt.Errorf("frame that follows another one than that before it")
	}
	return nil
}

// ahead collects the frames behind off that are younger than last. It gives up when
// more than what can be in flight holds none.
func (fd *found) ahead(w *window, off uint32, last *foundFrame, disk uint64) {
	reach := uint32((maxFlight + 2) * (headerSize + 1<<20 + blockSize))
	var newest uint64
	for end := off + reach; off < end && off+headerSize < w.size; {
		f, err := w.headerAt(off, disk)
		if err != nil || f.incarnation <= fd.emptied || f.incarnation < newest ||
			last != nil && (f.incarnation < last.incarnation || f.seq <= last.seq || f.head != last.head) {
			off += blockSize
			continue
		}
		if f.incarnation > newest {
			newest, fd.late = f.incarnation, nil // before were leftovers of an older life of the segment
		}
		fd.witness(f)
		fd.late = append(fd.late, f)
		off += f.size
		end = off + reach
	}
}
