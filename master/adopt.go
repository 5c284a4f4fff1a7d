package master

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/master/placement"
	"github.com/varvefs/varve/master/state"
)

// A grant raises the version of a chunk's copies. When the end of the changelog is lost
// (state.Leap), so may be grants that writers had: all copies of such a chunk are newer than
// the changelog says. It is the same file's chunk, for no number is given twice, and its
// bytes are those of the last writer. So it is reconciled as that of any dead writer as
// soon as somebody asks for it, and not lost.

// adoptable tells whether all copies of a chunk that nobody writes are newer than is known.
func (l *loop) adoptable(id chunk.ID) bool {
	if l.st.Leapt() == 0 {
		return false
	}
	some := false
	for _, k := range l.chunks.plan.Copies(id) {
		switch k.State {
		case placement.Valid, placement.Unsure:
			return false
		case placement.Ahead:
			some = some || k.Up
		}
	}
	return some
}

// adopting finds a chunk of a range that is to be adopted before it can be read.
func (l *loop) adopting(ino inode.Ino, first, count uint32) (id chunk.ID, found bool) {
	if l.st.Leapt() == 0 {
		return 0, false
	}
	l.st.FileChunks(ino, first, count, func(k state.ChunkSlot) bool {
		id, found = k.ID, l.mayAdopt(&k)
		return !found
	})
	return id, found
}

// mayAdopt tells whether it is worth to wait for a chunk's adoption. It is not
// when that could not be done just now, as without a server that is away.
func (l *loop) mayAdopt(k *state.ChunkSlot) bool {
	r := l.chunks.lost[k.ID]
	return k.Lease == 0 && (r == nil || r.active) && l.adoptable(k.ID)
}
