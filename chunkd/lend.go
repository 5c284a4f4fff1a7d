package chunkd

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/handover"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/segment"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// lending lets mounts on this host read the disks themselves: it tells them where the bytes
// of a chunk lie and hands them descriptors of the files, for reading only. What they read is
// missing in this server's counters of reads, and in what it knows of how quick its disks are.
type lending struct {
	desk *handover.Desk // nil: it could not be opened

	mu    sync.Mutex
	files []lent // by number
	known map[engine.File]uint32
}

// lent is a file that a place has named. base is where it begins in what Lend opens.
type lent struct {
	file engine.Lender
	base int64
}

// openLending opens the desk. Without one everybody reads over the network.
func (s *Server) openLending() {
	s.lending.known = make(map[engine.File]uint32)
	if s.cfg.NoLending {
		return
	}
	desk, err := handover.Open()
	if err != nil {
		s.log.Warn("mounts on this host cannot read the disks themselves", "err", err)
		return
	}
	s.lending.desk = desk
}

func (l *lending) close() error {
	if l.desk == nil {
		return nil
	}
	return l.desk.Close()
}

// number returns a file's number, and where it begins in what will be handed out.
func (l *lending) number(f engine.File) (n uint32, base int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, ok := l.known[f]; ok {
		return n, l.files[n].base, nil
	}
	lender, ok := f.(engine.Lender)
	if !ok {
		return 0, 0, status.Errorf(status.Unsupported, "%s cannot be read by others", f.Name())
	}
	fd, base, err := lender.Lend()
	if err != nil {
		return 0, 0, status.Errorf(status.Unsupported, "%v", err)
	}
	unix.Close(fd)
	n = uint32(len(l.files))
	l.files = append(l.files, lent{lender, base})
	l.known[f] = n
	return n, base, nil
}

// places answers Places, from memory.
func (s *Server) places(r *link.Request) {
	var m wire.Places
	err := r.Decode(&m)
	r.Free()
	reply := placesReplies.Get().(*placesReply)
	defer placesReplies.Put(reply)
	switch {
	case err != nil:
	case s.lending.desk == nil:
		err = status.Errorf(status.Unsupported, "this chunkserver does not lend its files")
	case m.Len == 0 || m.Len > wire.MaxPlacesSpan || uint64(m.Off)+uint64(m.Len) > chunk.Size:
		err = status.Errorf(status.BadMessage, "places of %d bytes at %d of chunk %v", m.Len, m.Off, m.Chunk)
	default:
		if err = s.tokens.mayRead(m.Token, m.Chunk, m.Version); err == nil {
			err = s.find(&m, reply)
		}
	}
	if err != nil {
		s.refuse(r, err)
		return
	}
	s.met.places.Inc()
	r.Reply(&reply.wire, nil, nil)
	s.leave()
}

// placesReply is memory for one answer.
type placesReply struct {
	list []segment.Place
	wire wire.PlacesReply
}

var placesReplies = sync.Pool{New: func() any { return new(placesReply) }}

// find fills in where the bytes are that m asks for.
func (s *Server) find(m *wire.Places, reply *placesReply) error {
	d, _, err := s.shelf.findAt(m.Chunk, m.Min, m.Version)
	if err != nil {
		return err
	}
	reply.list, reply.wire.Sums, err = d.store.Places(m.Chunk, m.Min, m.Version, m.Off, m.Len, wire.MaxPlaces, reply.list[:0], reply.wire.Sums[:0])
	if err != nil {
		return err
	}
	out := reply.wire.Places[:0]
	var last engine.File
	var n uint32
	var base int64
	for i := range reply.list {
		p := &reply.list[i]
		if p.File != last {
			if n, base, err = s.lending.number(p.File); err != nil {
				return err
			}
			last = p.File
		}
		out = append(out, wire.Place{Off: p.Off, Len: p.Len, Pre: p.Pre, Post: p.Post, File: n, At: uint64(base + p.At)})
	}
	clear(reply.list)
	reply.wire.Places = out
	return nil
}

// lend answers Lend with a promise.
func (s *Server) lend(c *link.Conn, r *link.Request) {
	var m wire.Lend
	err := r.Decode(&m)
	r.Free()
	var p handover.Promise
	if err == nil {
		p, err = s.lending.promise(c, m.Files)
	}
	if err != nil {
		s.refuse(r, err)
		return
	}
	s.met.lent.Add(len(m.Files))
	r.Reply(&wire.LendReply{Socket: p.Socket, Ticket: p.Ticket, Proof: p.Proof}, nil, nil)
	s.leave()
}

func (l *lending) promise(c *link.Conn, numbers []uint32) (p handover.Promise, err error) {
	role, _ := c.Peer()
	if l.desk == nil || role != wire.RoleMount {
		return p, status.Errorf(status.Unsupported, "this chunkserver does not lend its files to a %v", role)
	}
	if len(numbers) == 0 || len(numbers) > wire.MaxLend {
		return p, status.Errorf(status.BadMessage, "%d files to be lent", len(numbers))
	}
	l.mu.Lock()
	files := make([]engine.Lender, len(numbers))
	for i, n := range numbers {
		if uint64(n) < uint64(len(l.files)) {
			files[i] = l.files[n].file
		}
	}
	l.mu.Unlock()
	for i, f := range files {
		if f == nil {
			return p, status.Errorf(status.NotFound, "file %d of this chunkserver", numbers[i])
		}
	}
	p, err = l.desk.Promise(func() (fds []int, err error) {
		for _, f := range files {
			fd, _, err := f.Lend()
			if err != nil {
				return fds, err
			}
			fds = append(fds, fd)
		}
		return fds, nil
	})
	if err != nil {
		return p, status.Errorf(status.Again, "%v", err)
	}
	return p, nil
}

// The limits of the two packages are the same.
var _ = [1]struct{}{}[wire.MaxLend-handover.MaxFiles]
