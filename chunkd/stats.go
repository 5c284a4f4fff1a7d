package chunkd

import (
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/wire"
)

// Stats is a snapshot for status pages.
type Stats struct {
	Server     chunk.Server
	Addr       string
	Cluster    string
	Epoch      uint64   // highest seen
	Masters    []string // that have this server registered
	Disks      []wire.Disk
	Queue      int64 // requests under way
	Reads      uint64
	Writes     uint64
	ReadBytes  uint64
	WriteBytes uint64
	Errors     uint64
	Damaged    int // copies that wait to be replaced
}

// Stats tells how the server is; counts are since its start.
func (s *Server) Stats() Stats {
	st := Stats{
		Server: s.shelf.server, Addr: s.Addr().String(), Epoch: s.fence.high.Load(), Disks: s.diskStates(), Queue: s.met.queue.Load(),
		Reads: s.met.reads.Load(), Writes: s.met.writes.Load(), Errors: s.met.errors.Load(),
		ReadBytes: s.met.readBytes.Get(), WriteBytes: s.met.writeBytes.Get(),
	}
	for _, a := range s.agents {
		if a.registered() {
			st.Masters = append(st.Masters, a.addr)
		}
	}
	s.mu.Lock()
	st.Cluster, st.Damaged = s.shelf.cluster, len(s.broken)
	s.mu.Unlock()
	return st
}

func (s *Server) diskStates() []wire.Disk {
	all := s.shelf.all()
	list := make([]wire.Disk, len(all))
	for i, d := range all {
		list[i] = d.state()
	}
	return list
}

// rates makes beats: what happened since the last one, by the second.
type rates struct {
	s    *Server
	at   time.Time
	last Stats
}

func (s *Server) rates() *rates { return &rates{s: s, at: time.Now(), last: s.Stats()} }

func (r *rates) beat() *wire.Beat {
	now, st := time.Now(), r.s.Stats()
	sec := max(now.Sub(r.at).Seconds(), 1e-3)
	per := func(new, old uint64) uint64 { return uint64(float64(new-old) / sec) }
	b := &wire.Beat{
		Disks: st.Disks, Errors: st.Errors, Queue: uint32(max(st.Queue, 0)),
		ReadBytes: per(st.ReadBytes, r.last.ReadBytes), WriteBytes: per(st.WriteBytes, r.last.WriteBytes),
		ReadOps: per(st.Reads, r.last.Reads), WriteOps: per(st.Writes, r.last.Writes),
	}
	r.at, r.last = now, st
	return b
}
