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

// read checks a Read and leaves it to the lane of the disk that has the chunk.
func (s *Server) read(r *link.Request) {
	begin := time.Now()
	var m wire.Read
	err := r.Decode(&m)
	r.Free()
	if err == nil && (m.Len == 0 || m.Len > wire.MaxData || uint64(m.Off)+uint64(m.Len) > chunk.Size) {
		err = status.Errorf(status.BadMessage, "read of %d bytes at %d of chunk %v", m.Len, m.Off, m.Chunk)
	}
	if err == nil {
		err = s.tokens.mayRead(m.Token, m.Chunk, m.Version)
	}
	var d *disk
	if err == nil {
		d, _, err = s.shelf.findAt(m.Chunk, m.Min, m.Version)
	}
	if err != nil {
		s.refuse(r, err)
		return
	}
	d.reads.run(func() { s.readNow(r, d, &m, begin) })
}

var sumsPool = sync.Pool{New: func() any { return new([]uint32) }}

func (s *Server) readNow(r *link.Request, d *disk, m *wire.Read, begin time.Time) {
	buf := engine.Alloc(int(m.Len))[:m.Len]
	sums := sumsPool.Get().(*[]uint32)
	defer sumsPool.Put(sums)
	var err error
	*sums, err = d.store.Read(m.Chunk, m.Min, m.Version, m.Off, buf, (*sums)[:0])
	if err != nil {
		engine.Free(buf)
		s.readFailed(d, m.Chunk, err)
		s.refuse(r, err)
		return
	}
	s.met.reads.Add(1)
	s.met.readBytes.Add(len(buf))
	since(s.met.read, begin)
	r.Reply(&wire.ReadReply{Sums: *sums}, buf, func() { engine.Free(buf) })
	s.leave()
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
