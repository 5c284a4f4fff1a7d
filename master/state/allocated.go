package state

import "github.com/varvefs/varve/chunk"

// Allocated tells whether a number was ever given to a chunk, which may be gone.
func (s *State) Allocated(id chunk.ID) bool {
	slot := uint32(id)
	if slot == 0 || slot >= s.chunks.n {
		return false
	}
	k := s.chunks.at(slot)
	uses := uint32(id >> 32)
	return uses < k.uses || uses == k.uses && k.owner != 0
}
