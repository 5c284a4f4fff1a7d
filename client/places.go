package client

import (
	"context"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

const (
	windowSize = 2 << 20  // bytes of a file whose places are asked for at once; a chunk holds a whole number
	mapBytes   = 64 << 20 // memory for places

	placeCost = 48 // bytes of memory
	gapMost   = 16 << 10
	spanMost  = 1 << 20
	spansMost = 8 // reads of the disk for one request; more are left to the chunkserver, which does them at once

	placesPatience = 500 * time.Millisecond // with a chunkserver that is asked for places; readers wait

	unreadyAgain = 10 * time.Millisecond // until what is on its way to the disk is there
	brokenAgain  = time.Second           // after a map was wrong at once, or could not be had
	roughAgain   = 10 * time.Second      // after bytes lay in too many places
)

// placeMap says where the bytes of a window lie. It is constant but for again.
type placeMap struct {
	again atomic.Int64 // not 0: of no use; monotonic time when to ask again
	born  int64
	list  []place
	sums  []uint32
}

// place is a run of stored bytes of a chunk; see wire.Place.
type place struct {
	off, n    uint32
	pre, post uint32
	sum       uint32 // number of the first sum
	file      *lentFile
	at        int64
}

func (p *place) end() uint32 { return p.off + p.n }

// part is the bytes [from, to) of p with the pieces they are in.
func (p *place) part(from, to uint32) place {
	start, end := p.off-p.pre, p.end()+p.post
	first := max(start, from&^(engine.Align-1))
	last := min(end, (to+engine.Align-1)&^(engine.Align-1))
	return place{off: from, n: to - from, pre: from - first, post: last - to,
		sum: p.sum + first/engine.Align - start/engine.Align, file: p.file, at: p.at + int64(first-start)}
}

// stored is the number of bytes in the pieces of p.
func (p *place) stored() int64 { return int64(p.pre) + int64(p.n) + int64(p.post) }

// window returns the map of the window that holds a chunk's bytes at off, if a chunkserver of
// this host has them and no write is on its way there; the caller runs load, if it is not nil,
// for itself and the others who wait for the map. There is none while a truncation is under
// way, which has dropped those that it cuts: what loads in the background would make them anew.
// mu is held.
func (n *node) window(index, off uint32) (b *block, load func()) {
	c := n.c
	if c.short.off || n.data == nil || n.frozen || !n.can(inode.R) {
		return nil, nil
	}
	d := n.data
	loc, ok := d.placed(index)
	if !ok {
		return nil, nil
	}
	start := off / windowSize * windowSize
	v, conn := c.neighbour(loc.Replicas, start)
	if v == nil {
		return nil, nil
	}
	number := (uint64(index)*chunk.Size + uint64(start)) / windowSize
	b, made := c.maps.get(d, number, 0)
	if b == nil {
		if w := d.chunks[index]; w != nil && (w.covers(start, start+windowSize) || w.strays()) {
			return nil, nil
		}
		b, made = c.maps.get(d, number, placeCost+windowSize/engine.Align*4)
	}
	c.maps.put(b)
	if made {
		what := loc
		load = func() { c.loadPlaces(b, v, conn, &what, start) }
	}
	return b, load
}

// placed is where a chunk can be read; ok false: that is not known, or nowhere. mu is held.
func (d *fileData) placed(index uint32) (loc wire.ChunkLoc, ok bool) {
	if w := d.chunks[index]; w != nil && w.held {
		return w.loc, !w.fresh || w.landed
	}
	loc, ok = d.layout[index]
	return loc, ok && loc.Chunk != 0
}

// strays says whether writes are under way that nobody waits for any more.
func (w *leased) strays() bool {
	known := 0
	for _, e := range w.sent {
		if e.waiting > 0 {
			known++
		}
	}
	return w.flying > known
}

// neighbour picks a replica on this host: windows are spread over them, and so over disks.
func (c *Client) neighbour(replicas []wire.Replica, start uint32) (*server, *link.Conn) {
	k := len(replicas)
	for i := range k {
		v := c.servers.get(replicas[(int(start/windowSize)+i)%k].Addr)
		v.meet()
		if conn := v.lends(); conn != nil {
			return v, conn
		}
	}
	return nil, nil
}

// loadPlaces asks for the places of a window and makes its map, which is of no use if that fails.
func (c *Client) loadPlaces(b *block, v *server, conn *link.Conn, loc *wire.ChunkLoc, start uint32) {
	m := &placeMap{}
	if start < loc.Valid {
		ctx, cancel := context.WithTimeout(c.ctx, placesPatience)
		var reply wire.PlacesReply
		err := conn.Call(ctx, &wire.Places{Chunk: loc.Chunk, Min: loc.Min, Version: loc.Version, Off: start,
			Len: min(windowSize, loc.Valid-start), Token: loc.Token}, nil, &reply)
		if err == nil {
			err = m.fill(ctx, v, conn, &reply, start)
		}
		if err != nil && ctx.Err() != nil {
			err = ctxError(ctx)
		}
		cancel()
		if err != nil {
			m.again.Store(c.now() + int64(c.noPlaces(v, conn, err)))
		}
	}
	m.born = c.now()
	c.met.maps.Inc()
	c.maps.grow(b, placeCost*int64(1+len(m.list))+4*int64(len(m.sums)))
	b.places = m
	close(b.ready)
}

// noPlaces counts why there is no map and says when to ask again.
func (c *Client) noPlaces(v *server, conn *link.Conn, err error) time.Duration {
	switch code := status.CodeOf(err); {
	case code == status.Busy:
		c.met.shortMiss("unready")
		return unreadyAgain
	case code == status.TooBig:
		c.met.shortMiss("scattered")
		return roughAgain
	case err == errTooManyFiles:
		c.met.shortMiss("files")
		return roughAgain
	case code == status.Timeout:
		c.met.shortMiss("late")
		v.late()
		return brokenAgain
	case code == status.StaleVersion || code == status.NoChunk || code == status.BadToken || conn.Err() != nil || c.ctx.Err() != nil:
		c.met.shortMiss("refused")
		return brokenAgain
	}
	c.met.shortMiss("refused")
	v.refused(err)
	return brokenAgain
}

// fill takes over what the chunkserver v said of the window from start on.
func (m *placeMap) fill(ctx context.Context, v *server, conn *link.Conn, reply *wire.PlacesReply, start uint32) error {
	var numbers []uint32
	next, pieces := start, 0
	for i := range reply.Places {
		p := &reply.Places[i]
		if p.Off < next || p.Len == 0 || p.Len > windowSize || p.Off+p.Len > start+windowSize ||
			p.Pre >= engine.Align || p.Post >= engine.Align || uint32(p.Pre) > p.Off || p.At > 1<<62 {
			return status.Errorf(status.BadMessage, "%s: place %d of %d is impossible", v.addr, i, len(reply.Places))
		}
		next = p.Off + p.Len
		pieces += chunk.Pieces(p.Off-uint32(p.Pre), uint32(p.Pre)+p.Len+uint32(p.Post))
		if !slices.Contains(numbers, p.File) {
			numbers = append(numbers, p.File)
		}
	}
	if pieces != len(reply.Sums) {
		return status.Errorf(status.BadMessage, "%s: %d sums for %d pieces", v.addr, len(reply.Sums), pieces)
	}
	files, err := v.borrow(ctx, conn, numbers)
	if err != nil {
		return err
	}
	m.sums = reply.Sums
	m.list = make([]place, len(reply.Places))
	sum := uint32(0)
	for i := range reply.Places {
		p := &reply.Places[i]
		m.list[i] = place{off: p.Off, n: p.Len, pre: uint32(p.Pre), post: uint32(p.Post), sum: sum, file: files[p.File], at: int64(p.At)}
		sum += uint32(chunk.Pieces(p.Off-uint32(p.Pre), uint32(m.list[i].stored())))
	}
	return nil
}

// readShort fills dst with the bytes of a chunk from off on, which are all in the window b,
// from the disk itself; false: it has to be done otherwise.
func (c *Client) readShort(ctx context.Context, b *block, load func(), dst []byte, off uint32) bool {
	if load != nil {
		Waits(ctx)
		load()
	}
	select {
	case <-b.ready:
	default:
		Waits(ctx)
		select {
		case <-b.ready:
		case <-ctx.Done():
			return false
		case <-c.ctx.Done():
			return false
		}
	}
	m := b.places
	if until := m.again.Load(); until != 0 {
		if c.now() > until {
			c.maps.failed(b)
		}
		return false
	}
	err := fromDisk(ctx, func() error { return m.read(dst, off) })
	switch {
	case err == nil:
		c.met.shortReads.Inc()
		c.met.shortBytes.Add(len(dst))
		return true
	case err == errScattered:
		c.met.shortMiss("scattered")
	case err == errHangs:
		c.met.shortMiss("hangs")
	case err == errMismatch && c.now()-m.born < int64(brokenAgain):
		// It is not that the bytes were moved: there is damage. Each read that comes
		// here would ask for the same places again.
		c.met.shortMiss("mismatch")
		m.again.Store(c.now() + int64(brokenAgain))
	case err == errMismatch:
		c.met.shortMiss("mismatch")
		c.maps.failed(b)
	default:
		c.met.shortMiss("error")
		c.maps.failed(b)
	}
	return false
}

var (
	errScattered = status.Errorf(status.Unsupported, "the bytes lie in too many places")
	errMismatch  = status.Errorf(status.Corrupt, "the bytes are not those that were there")
)

// read fills dst with the bytes of the chunk from off on.
func (m *placeMap) read(dst []byte, off uint32) error {
	end := off + uint32(len(dst))
	first := sort.Search(len(m.list), func(i int) bool { return m.list[i].end() > off })
	spans := 0
	for i := first; i < len(m.list) && m.list[i].off < end; i = m.span(i, off, end).next {
		if spans++; spans > spansMost {
			return errScattered
		}
	}
	done := off
	for i := first; i < len(m.list) && m.list[i].off < end; {
		s := m.span(i, off, end)
		if err := m.readSpan(i, &s, dst, off); err != nil {
			return err
		}
		for ; i < s.next; i++ {
			p := &m.list[i]
			from := max(p.off, off)
			clear(dst[done-off : from-off])
			done = min(p.end(), end)
		}
	}
	clear(dst[done-off:])
	return nil
}

// span is what one read of the disk brings: bytes from..to of a file, in which are the places
// before next.
type span struct {
	file     *lentFile
	from, to int64
	next     int
}

// span joins places from number i on that lie close together.
func (m *placeMap) span(i int, off, end uint32) span {
	p := m.list[i].part(max(m.list[i].off, off), min(m.list[i].end(), end))
	s := span{file: p.file, from: p.at, to: p.at + p.stored(), next: i + 1}
	for ; s.next < len(m.list) && m.list[s.next].off < end; s.next++ {
		q := &m.list[s.next]
		p := q.part(max(q.off, off), min(q.end(), end))
		if p.file != s.file || p.at < s.to || p.at > s.to+gapMost || p.at+p.stored() > s.from+spanMost {
			break
		}
		s.to = p.at + p.stored()
	}
	s.from &^= engine.Align - 1
	s.to = (s.to + engine.Align - 1) &^ (engine.Align - 1)
	return s
}

// readSpan reads one span, checks every piece and copies what belongs to dst.
func (m *placeMap) readSpan(i int, s *span, dst []byte, off uint32) error {
	end := off + uint32(len(dst))
	var buf []byte
	p := m.list[i].part(max(m.list[i].off, off), min(m.list[i].end(), end))
	if here := dst[p.off-off:][:p.n:p.n]; s.next == i+1 && s.to-s.from == int64(p.n) && p.stored() == int64(p.n) && engine.Aligned(here) {
		buf = here
	} else {
		buf = engine.Alloc(int(s.to - s.from))
		defer engine.Free(buf)
	}
	if err := s.file.readAt(buf, s.from); err != nil {
		return err
	}
	for ; ; p = m.list[i].part(max(m.list[i].off, off), min(m.list[i].end(), end)) {
		stored := buf[p.at-s.from:][:p.stored()]
		sums := m.sums[p.sum:][:chunk.Pieces(p.off-p.pre, uint32(len(stored)))]
		if chunk.Verify(sums, p.off-p.pre, stored) >= 0 {
			return errMismatch
		}
		if here := dst[p.off-off:][:p.n]; &here[0] != &stored[0] {
			copy(here, stored[p.pre:])
		}
		if i++; i >= s.next {
			return nil
		}
	}
}
