package state

import (
	"slices"
	"sort"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
)

func (o *SessionOpen) apply(s *State, e *Entry, r *Result) {
	s.head.session++
	r.Session = s.head.session
	// Numbers only grow: the list stays in order.
	s.sessions = append(s.sessions, &session{info: SessionInfo{
		ID: r.Session, Opened: e.Time, Host: o.Host, Mount: o.Mount, Path: o.Path, ReadOnly: o.ReadOnly,
	}})
}

func (o *SessionClose) apply(s *State, _ *Entry, r *Result) {
	i := slices.IndexFunc(s.sessions, func(ses *session) bool { return ses.info.ID == o.ID })
	if i < 0 {
		r.Code = status.Stale
		return
	}
	s.unreserve(s.sessions[i])
	s.sessions = slices.Delete(s.sessions, i, i+1)
	for _, slot := range s.orphanSlots() {
		s.unhold(slot, o.ID, r)
	}
}

func (o *ReleaseHold) apply(s *State, e *Entry, r *Result) {
	for _, ino := range o.Inos {
		if slot := s.slotOf(ino); slot != 0 {
			s.unhold(slot, e.Session, r)
		}
	}
}

// unhold takes a session's hold from an orphan, and frees the orphan when it was
// the last.
func (s *State) unhold(slot uint32, session uint64, r *Result) {
	holds := s.orphans[slot]
	i := slices.Index(holds, session)
	if i < 0 {
		return
	}
	if len(holds) > 1 {
		s.orphans[slot] = slices.Delete(holds, i, i+1)
		return
	}
	delete(s.orphans, slot)
	s.freeInode(slot, r)
}

// orphanSlots lists the slots of the orphans in ascending order.
func (s *State) orphanSlots() []uint32 {
	list := make([]uint32, 0, len(s.orphans))
	for slot := range s.orphans {
		list = append(list, slot)
	}
	slices.Sort(list)
	return list
}

func (s *State) serverAt(id chunk.Server) (int, bool) {
	i := sort.Search(len(s.servers), func(i int) bool { return s.servers[i].ID >= id })
	return i, i < len(s.servers) && s.servers[i].ID == id
}

func (o *ServerSeen) apply(s *State, e *Entry, _ *Result) {
	info := ServerInfo{ID: o.ID, Addr: o.Addr, Labels: o.Labels, Seen: e.Time}
	if i, ok := s.serverAt(o.ID); ok {
		s.servers[i] = info
	} else {
		s.servers = slices.Insert(s.servers, i, info)
	}
}

func (o *ServerForget) apply(s *State, _ *Entry, r *Result) {
	i, ok := s.serverAt(o.ID)
	if !ok {
		r.Code = status.NotFound
		return
	}
	s.servers = slices.Delete(s.servers, i, i+1)
}

func (o *SetCluster) apply(s *State, e *Entry, r *Result) {
	switch {
	case o.ID == "":
		r.Code = status.Invalid
	case s.head.cluster != "" && s.head.cluster != o.ID:
		r.Code = status.Exists
	default:
		if s.head.cluster == "" && s.Totals().Inodes == 1 {
			s.found(e.Time)
		}
		s.head.cluster = o.ID
	}
}

// found gives the root its times and the hash of names its seed, before there is
// any name: New is not told the time, so that all masters begin with the same.
func (s *State) found(time int64) {
	s.head.seed = mix(uint64(time))
	n := s.inodes.mut(s.slotOf(inode.Root))
	n.atime, n.mtime, n.ctime, n.btime = time, time, time, time
}
