package placement

import (
	"slices"

	"github.com/varvefs/varve/chunk"
)

// A master that begins to lead has the lists of copies that chunkservers told it
// as a standby. To take in millions of them would keep everybody waiting: that of
// a chunk is taken in when something is asked or told about the chunk, and Warming
// does the others bit by bit.

// warmList is what is left of a server's list.
type warmList struct {
	server int
	seat   uint16
	now    int64
	copies map[chunk.ID]chunk.Version
}

// Warm gives the copies that a server has told before, right after ServerUp. The
// map is Placement's from now on. Report with last must wait until all are taken in.
func (p *Placement) Warm(now int64, id chunk.Server, copies map[chunk.ID]chunk.Version) {
	i, ok := p.lookup(id)
	if !ok || len(copies) == 0 {
		return
	}
	p.warm = append(p.warm, warmList{server: i, seat: p.servers[i].seat, now: now, copies: copies})
}

// Warming takes in up to n copies; false: there is none left.
func (p *Placement) Warming(n int) bool {
	for len(p.warm) > 0 {
		for id := range p.warm[0].copies {
			if n <= 0 {
				return true
			}
			p.thaw(id)
			n--
		}
		p.warm = slices.Delete(p.warm, 0, 1)
	}
	return false
}

// thaw takes in what the lists say of one chunk.
func (p *Placement) thaw(id chunk.ID) {
	for i := range p.warm {
		w := &p.warm[i]
		v, ok := w.copies[id]
		if !ok {
			continue
		}
		delete(w.copies, id) // first: reported comes back here
		if p.servers[w.server].seat == w.seat {
			p.reported(w.now, w.server, Copy{Chunk: id, Version: v})
		}
	}
}
