package state

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
)

// maxIndex is the highest number that a chunk can have in its file.
const maxIndex = inode.SizeMax/chunk.Size - 1

// chunkOf finds the slot of a chunk, 0: it does not exist.
func (s *State) chunkOf(id chunk.ID) uint32 {
	slot := uint32(id)
	if slot == 0 || slot >= s.chunks.n {
		return 0
	}
	k := s.chunks.at(slot)
	if k.uses != uint32(id>>32) || k.owner == 0 {
		return 0
	}
	return slot
}

// slotInfo tells all about a chunk that exists.
func (s *State) slotInfo(slot uint32) ChunkSlot {
	k, d := s.chunks.at(slot), s.detailOf(slot)
	info := ChunkSlot{
		Index: d.index, ID: k.number(slot), Version: chunk.Version(d.version), Min: chunk.Version(d.version), Valid: d.valid,
	}
	if d.lease != 0 {
		l := s.leases.at(d.lease)
		info.Min, info.Fresh, info.Lease = chunk.Version(l.min), l.fresh, l.session
	}
	return info
}

// newLeasedChunk makes a chunk of a file under a lease of session.
func (s *State) newLeasedChunk(owner, index uint32, session uint64) uint32 {
	slot := s.chunks.alloc()
	k := s.chunks.mut(slot)
	*k = chunkRec{uses: max(k.uses, s.head.floor), owner: owner}
	s.setDetail(slot, detailRec{index: index, version: 1, valid: chunk.Size})
	s.head.chunks++
	s.lease(slot, session, 1, true)
	t := s.chunkTree(s.inodes.at(owner))
	s.treeSet(&t, uint64(index), slot)
	s.setChunkTree(owner, t)
	return slot
}

// detailOf gives what a chunk has that most do not.
func (s *State) detailOf(slot uint32) detailRec {
	if d := s.chunks.at(slot).detail; d != 0 {
		return *s.details.at(d)
	}
	return simple
}

// setDetail changes it. Chunks without anything of it have no record.
func (s *State) setDetail(slot uint32, d detailRec) {
	at := s.chunks.at(slot).detail
	switch {
	case d == simple && at != 0:
		s.details.release(at, detailRec{})
		s.chunks.mut(slot).detail = 0
		return
	case d == simple:
		return
	case at == 0:
		at = s.details.alloc()
		s.chunks.mut(slot).detail = at
	}
	*s.details.mut(at) = d
}

// leaseOf gives the lease of a chunk, 0: none.
func (s *State) leaseOf(slot uint32) uint32 { return s.detailOf(slot).lease }

// versionOf and setVersion are about a chunk's version.
func (s *State) versionOf(slot uint32) uint32 { return s.detailOf(slot).version }

func (s *State) setVersion(slot, version uint32) {
	d := s.detailOf(slot)
	d.version = version
	s.setDetail(slot, d)
}

// setValid says how many bytes of a chunk count.
func (s *State) setValid(slot, valid uint32) {
	d := s.detailOf(slot)
	d.valid = valid
	s.setDetail(slot, d)
}

// lease opens a lease on a chunk that has none.
func (s *State) lease(slot uint32, session uint64, low uint32, fresh bool) {
	l := s.leases.alloc()
	*s.leases.mut(l) = leaseRec{session: session, chunk: slot, min: low, fresh: fresh}
	d := s.detailOf(slot)
	d.lease = l
	s.setDetail(slot, d)
}

// unlease ends the lease of a chunk.
func (s *State) unlease(slot uint32) {
	d := s.detailOf(slot)
	s.leases.release(d.lease, leaseRec{})
	d.lease = 0
	s.setDetail(slot, d)
}

// leaseBy tells whether session has leased a chunk.
func (s *State) leaseBy(slot uint32, session uint64) bool {
	l := s.leaseOf(slot)
	return l != 0 && s.leases.at(l).session == session
}

// freeChunk frees a chunk that its file no longer names.
func (s *State) freeChunk(slot uint32, r *Result) {
	k := *s.chunks.at(slot)
	s.head.chunks--
	r.Effects.Freed = append(r.Effects.Freed, ChunkRef{k.number(slot), chunk.Version(s.detailOf(slot).version)})
	if lease := s.leaseOf(slot); lease != 0 {
		s.leases.release(lease, leaseRec{})
	}
	s.setDetail(slot, simple)
	if k.uses == maxUses {
		*s.chunks.mut(slot) = chunkRec{uses: k.uses}
		return
	}
	s.chunks.release(slot, chunkRec{uses: k.uses + 1})
}

// freeOne takes one chunk from its file and frees it.
func (s *State) freeOne(slot uint32, r *Result) {
	owner := s.chunks.at(slot).owner
	t := s.chunkTree(s.inodes.at(owner))
	s.treeDel(&t, uint64(s.detailOf(slot).index))
	s.setChunkTree(owner, t)
	s.freeChunk(slot, r)
}

// freeChunksFrom frees the chunks of a file from an index on.
func (s *State) freeChunksFrom(owner uint32, first uint64, r *Result) {
	t := s.chunkTree(s.inodes.at(owner))
	if t.count == 0 {
		return
	}
	var victims []uint32
	s.treeUp(&t, first, maxIndex, func(_ uint64, slot uint32) bool {
		victims = append(victims, slot)
		return true
	})
	if first == 0 {
		s.nodesFree(t.root, t.height)
		t = tree{}
	}
	for _, slot := range victims {
		if first > 0 {
			s.treeDel(&t, uint64(s.detailOf(slot).index))
		}
		s.freeChunk(slot, r)
	}
	s.setChunkTree(owner, t)
}

// beyond is the first chunk index that lies wholly behind the end of a file.
func beyond(size uint64) uint64 { return (size + chunk.Size - 1) / chunk.Size }

// clip notes that nothing behind the end of the file counts in its last chunk.
func (s *State) clip(owner uint32, size uint64) {
	tail := uint32(size % chunk.Size)
	if tail == 0 {
		return
	}
	t := s.chunkTree(s.inodes.at(owner))
	if slot := s.treeGet(&t, size/chunk.Size); slot != 0 && s.detailOf(slot).valid > tail {
		s.setValid(slot, tail)
	}
}

// leasedAt says whether the chunk in which the byte at off lies is under a lease.
func (s *State) leasedAt(owner uint32, off uint64) bool {
	t := s.chunkTree(s.inodes.at(owner))
	slot := s.treeGet(&t, off/chunk.Size)
	return slot != 0 && s.leaseOf(slot) != 0
}

// setSize writes a file's size; chunks and tallies are the caller's.
func (s *State) setSize(slot uint32, size uint64) {
	n := s.inodes.mut(slot)
	s.head.length += size - n.size
	n.size = size
}
