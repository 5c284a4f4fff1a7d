package master

import (
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/status"
)

// walkSlice is how many chunks one turn of the loop looks at for a walk over all
// of them: less than a millisecond.
const walkSlice = 4096

// walkChunks calls look for all chunks, some in each turn of the loop, which
// serves others between two of them. done is told when all were looked at, or
// that this master leads no longer. Chunks that come or go meanwhile may be met
// or not. A small tree is done before walkChunks returns.
func (l *loop) walkChunks(look func(state.ChunkInfo), done func(error)) {
	room, at := l.chunks, uint32(0)
	var step func()
	step = func() {
		if l.chunks != room {
			done(notLeading)
			return
		}
		at = l.st.ChunksFrom(at, walkSlice, look)
		switch {
		case at == 0:
			done(nil)
		case !l.in.post(func(*loop) { step() }):
			done(status.Closed)
		}
	}
	step()
}
