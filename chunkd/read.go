package chunkd

import (
	"sync"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/segment"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// reading is one Read under way. It is used again and again.
type reading struct {
	s     *Server
	r     *link.Request
	m     wire.Read
	begin time.Time
	disk  *disk
	buf   []byte
	reply wire.ReadReply

	now, sent func() // readNow and leftUs, made once
}

var readings = sync.Pool{New: func() any { return new(reading) }}

// read checks a Read and leaves it to the lane of the disk that has the chunk.
func (s *Server) read(r *link.Request) {
	g := readings.Get().(*reading)
	if g.now == nil {
		g.now, g.sent = g.readNow, g.leftUs
	}
	g.s, g.r, g.begin = s, r, time.Now()
	m := &g.m
	err := r.Decode(m)
	r.Free()
	if err == nil && (m.Len == 0 || m.Len > wire.MaxData || uint64(m.Off)+uint64(m.Len) > chunk.Size) {
		err = status.Errorf(status.BadMessage, "read of %d bytes at %d of chunk %v", m.Len, m.Off, m.Chunk)
	}
	if err == nil {
		err = s.tokens.mayRead(m.Token, m.Chunk, m.Version)
	}
	if err == nil {
		g.disk, _, err = s.shelf.findAt(m.Chunk, m.Min, m.Version)
	}
	if err != nil {
		s.refuse(r, err)
		g.recycle()
		return
	}
	g.disk.reads.run(g.now)
}

// readNow reads and replies. g goes back when the reply has left.
func (g *reading) readNow() {
	s, m := g.s, &g.m
	g.buf = engine.Alloc(int(m.Len))[:m.Len]
	var err error
	g.reply.Sums, err = g.disk.store.Read(m.Chunk, m.Min, m.Version, m.Off, g.buf, g.reply.Sums[:0])
	if err != nil {
		s.readFailed(g.disk, m.Chunk, err)
		s.refuse(g.r, err)
		g.leftUs()
		return
	}
	s.met.reads.Add(1)
	s.met.readBytes.Add(len(g.buf))
	since(s.met.read, g.begin)
	g.r.Reply(&g.reply, g.buf, g.sent)
	s.leave()
}

// leftUs runs when nobody reads the data any more.
func (g *reading) leftUs() {
	engine.Free(g.buf)
	g.recycle()
}

func (g *reading) recycle() {
	*g = reading{reply: wire.ReadReply{Sums: g.reply.Sums[:0]}, now: g.now, sent: g.sent}
	readings.Put(g)
}

// readFailed looks at the error of a store's read.
func (s *Server) readFailed(d *disk, id chunk.ID, err error) {
	if status.CodeOf(err) == status.Corrupt {
		s.damaged(d, id)
	}
	d.check(err)
}

// mapRanges answers Map.
func (s *Server) mapRanges(r *link.Request) {
	var m wire.Map
	err := r.Decode(&m)
	r.Free()
	if err == nil {
		err = s.tokens.mayRead(m.Token, m.Chunk, m.Version)
	}
	var d *disk
	var info segment.Info
	if err == nil {
		d, info, err = s.shelf.findAt(m.Chunk, m.Min, m.Version)
	}
	if err != nil {
		s.refuse(r, err)
		return
	}
	d.reads.run(func() {
		ranges, err := d.store.Map(m.Chunk)
		if err != nil {
			s.readFailed(d, m.Chunk, err)
			s.refuse(r, err)
			return
		}
		reply := wire.MapReply{Version: info.Version, Ranges: make([]wire.Range, len(ranges))}
		for i, g := range ranges {
			reply.Ranges[i] = wire.Range{Off: g.Off, Len: g.Len}
		}
		r.Reply(&reply, nil, nil)
		s.leave()
	})
}

// sync answers Sync: each disk that has some of the chunks is synced once.
func (s *Server) sync(r *link.Request) {
	begin := time.Now()
	var m wire.Sync
	err := r.Decode(&m)
	r.Free()
	byDisk := make(map[*disk][]chunk.ID, 1)
	for _, id := range m.Chunks {
		d, _, e := s.shelf.find(id)
		if e != nil {
			err = cmpErr(err, e)
			break
		}
		byDisk[d] = append(byDisk[d], id)
	}
	if err != nil {
		s.refuse(r, err)
		return
	}
	s.syncs.run(func() {
		err := eachDisk(byDisk, func(d *disk, ids []chunk.ID) error { return d.check(d.store.Sync(ids)) })
		if err != nil {
			s.refuse(r, err)
			return
		}
		since(s.met.sync, begin)
		r.Reply(nil, nil, nil)
		s.leave()
	})
}

// eachDisk runs f for all disks at once and returns one of the errors.
func eachDisk(m map[*disk][]chunk.ID, f func(*disk, []chunk.ID) error) error {
	errs := make(chan error, len(m))
	for d, ids := range m {
		if len(m) == 1 {
			return f(d, ids)
		}
		go func() { errs <- f(d, ids) }()
	}
	var err error
	for range m {
		err = cmpErr(err, <-errs)
	}
	return err
}
