package state

import (
	"math"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
)

// maxLease is the number of chunks that one Lease may ask for.
const maxLease = 4096

// fileOf finds a file, or says what is wrong.
func (s *State) fileOf(ino inode.Ino) (uint32, status.Code) {
	slot := s.slotOf(ino)
	if slot == 0 {
		return 0, status.NotFound
	}
	switch s.inodes.at(slot).kind() {
	case inode.File:
		return slot, status.OK
	case inode.Dir:
		return 0, status.IsDir
	}
	return 0, status.Invalid
}

// check finds what is wrong with a Lease, and the file.
func (o *Lease) check(s *State, e *Entry) (uint32, status.Code) {
	slot, code := s.fileOf(o.Ino)
	switch {
	case code != status.OK:
		return 0, code
	case s.session(e.Session) == nil:
		return 0, status.Stale
	case o.Count == 0 || o.Count > maxLease:
		return 0, status.Invalid
	case uint64(o.First)+uint64(o.Count)-1 > maxIndex:
		return 0, status.TooBig
	}
	t := s.chunkTree(s.inodes.at(slot))
	s.treeUp(&t, uint64(o.First), uint64(o.First)+uint64(o.Count)-1, func(_ uint64, c uint32) bool {
		switch d := s.detailOf(c); {
		case d.lease != 0 && s.leases.at(d.lease).session != e.Session:
			code = status.Busy
		case d.version == math.MaxUint32:
			code = status.IO // worn out: it would take a grant a second for a century
		}
		return code == status.OK
	})
	return slot, code
}

func (o *Lease) apply(s *State, e *Entry, r *Result) {
	slot, code := o.check(s, e)
	if code != status.OK {
		r.Code = code
		return
	}
	r.Ino = o.Ino
	r.Chunks = make([]ChunkSlot, 0, o.Count)
	old := s.weigh(slot)
	for i := o.First; i-o.First < o.Count; i++ {
		t := s.chunkTree(s.inodes.at(slot))
		c := s.treeGet(&t, uint64(i))
		if c == 0 {
			c = s.newLeasedChunk(slot, i, e.Session)
		} else if d := s.detailOf(c); d.lease == 0 {
			s.lease(c, e.Session, d.version, false)
			s.setVersion(c, d.version+1)
		}
		r.Chunks = append(r.Chunks, s.slotInfo(c))
	}
	s.reweigh(slot, old)
}

func (o *LeaseFail) apply(s *State, e *Entry, r *Result) {
	c := s.chunkOf(o.Chunk)
	if c == 0 {
		r.Code = status.NoChunk
		return
	}
	k := s.chunks.at(c)
	owner := s.inodes.at(k.owner).number(k.owner)
	switch {
	case owner != o.Ino || s.detailOf(c).index != o.Index:
		r.Code = status.Invalid
	case !s.leaseBy(c, e.Session):
		r.Code = status.NoLease
	case uint32(o.Version) <= s.versionOf(c):
		r.Code = status.StaleVersion
	}
	if r.Code != status.OK {
		return
	}
	s.setVersion(c, uint32(o.Version))
	s.leases.mut(s.leaseOf(c)).min = uint32(o.Version)
	r.Ino = o.Ino
	r.Chunks = []ChunkSlot{s.slotInfo(c)}
}

func (o *LeaseDrop) apply(s *State, e *Entry, r *Result) {
	c := s.chunkOf(o.Chunk)
	if c == 0 {
		r.Code = status.NoChunk
		return
	}
	k, d := s.chunks.at(c), s.detailOf(c)
	if d.lease == 0 {
		r.Code = status.NoLease
		return
	}
	l := *s.leases.at(d.lease)
	if o.Version == 0 && !l.fresh || o.Version != 0 && uint32(o.Version) < l.min {
		r.Code = status.Invalid
		return
	}
	owner := k.owner
	n := s.inodes.at(owner)
	r.Ino = n.number(owner)
	old := s.weigh(owner)
	if o.Version != 0 {
		s.setVersion(c, uint32(o.Version))
	}
	s.unlease(c)
	if o.Version == 0 || uint64(d.index) >= beyond(n.size) {
		s.freeOne(c, r)
	} else if uint64(d.index) == n.size/chunk.Size {
		s.clip(owner, n.size)
	}
	s.reweigh(owner, old)
	s.noteWeight(owner, old)
}

// noteWeight makes the change of a file's blocks visible in its generation.
func (s *State) noteWeight(slot uint32, old weight) {
	if s.weigh(slot) != old {
		s.touch(slot)
	}
}

func (o *Commit) apply(s *State, e *Entry, r *Result) {
	for i := range o.Files {
		code := o.Files[i].apply(s, e, r)
		if code != status.OK && r.Codes == nil {
			r.Codes = make([]status.Code, len(o.Files))
		}
		if code != status.OK {
			r.Codes[i] = code
		}
	}
	if len(o.Files) == 1 {
		r.Ino = o.Files[0].Ino
	}
}

// find gives the chunk of a lease that ends, 0: the session does not have it any more.
func (l *LeaseEnd) find(s *State, owner uint32, session uint64) uint32 {
	c := s.chunkOf(l.Chunk)
	if c == 0 || s.chunks.at(c).owner != owner || !s.leaseBy(c, session) {
		return 0
	}
	return c
}

func (f *CommitFile) apply(s *State, e *Entry, r *Result) status.Code {
	slot, code := s.fileOf(f.Ino)
	if code != status.OK {
		return code
	}
	if f.Size > inode.SizeMax {
		return status.TooBig
	}
	for i := range f.Ended {
		if c := f.Ended[i].find(s, slot, e.Session); c != 0 && s.versionOf(c) != uint32(f.Ended[i].Version) {
			return status.StaleVersion
		}
	}
	old := s.weigh(slot)
	s.trimmed(slot, f.Trimmed, e.Session)
	f.end(s, slot, e.Session, r)
	n := s.inodes.mut(slot)
	if f.Kill {
		s.kill(slot)
	}
	f.set(s, slot)
	if f.Size == n.size && f.Mtime == n.mtime {
		s.reweigh(slot, old)
		s.noteWeight(slot, old)
		return status.OK
	}
	shrunk := f.Size < n.size
	s.setSize(slot, f.Size)
	if shrunk {
		s.cut(slot, f.Size, e.Session, r)
	}
	// A write sets both times to its moment, by the writer's clock: a mount that
	// has shown a ctime before it could commit must find the same one behind it.
	n.mtime = f.Mtime
	if f.Ctime == 0 {
		n.ctime = max(n.ctime, f.Mtime)
	}
	s.touch(slot)
	s.reweigh(slot, old)
	return status.OK
}

// set carries out what the mount has changed of the attributes. They are final:
// what a change of owner takes from the mode the mount has taken.
func (f *CommitFile) set(s *State, slot uint32) {
	n := s.inodes.mut(slot)
	if f.Sets&(SetMode|SetUid|SetGid|SetAtime) == 0 && f.Ctime <= n.ctime {
		return
	}
	s.setOwner(slot, f.Sets, f.Uid, f.Gid)
	if f.Sets&SetMode != 0 {
		n.setPerm(f.Mode)
		s.chmodACL(slot)
	}
	if f.Sets&SetAtime != 0 {
		n.atime = f.Atime
	}
	n.ctime = max(n.ctime, f.Ctime)
	s.touch(slot)
}

// trimmed notes that chunks leased by session have zeros where they did not count.
func (s *State) trimmed(slot uint32, indexes []uint32, session uint64) {
	for _, i := range indexes {
		t := s.chunkTree(s.inodes.at(slot))
		if c := s.treeGet(&t, uint64(i)); c != 0 && s.leaseBy(c, session) {
			s.setValid(c, chunk.Size)
		}
	}
}

// end ends the leases. A chunk that was made for nothing, or for bytes that lie
// behind the end of the file, goes.
func (f *CommitFile) end(s *State, slot uint32, session uint64, r *Result) {
	for i := range f.Ended {
		end := &f.Ended[i]
		c := end.find(s, slot, session)
		if c == 0 {
			continue
		}
		d := s.detailOf(c)
		l := *s.leases.at(d.lease)
		if !end.Written {
			s.setVersion(c, l.min)
		}
		s.unlease(c)
		if !end.Written && l.fresh || uint64(d.index) >= beyond(f.Size) {
			s.freeOne(c, r)
		}
	}
}

// cut removes what lies behind the end of a file that became shorter, but for
// chunks that session still has leased.
func (s *State) cut(slot uint32, size uint64, session uint64, r *Result) {
	s.clip(slot, size)
	t := s.chunkTree(s.inodes.at(slot))
	var victims []uint32
	s.treeUp(&t, beyond(size), maxIndex, func(_ uint64, c uint32) bool {
		if !s.leaseBy(c, session) {
			victims = append(victims, c)
		}
		return true
	})
	for _, c := range victims {
		s.freeOne(c, r)
	}
}
