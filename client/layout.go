package client

import (
	"context"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/wire"
)

// layoutAhead is how many chunks' locations are asked for at a time.
const layoutAhead = 16

// locate tells where a chunk is to be read; ok false: it is a hole.
func (n *node) locate(ctx context.Context, index uint32) (loc wire.ChunkLoc, ok bool, err error) {
	n.mu.Lock()
	d := n.file()
	if w := d.chunks[index]; w != nil && w.held {
		loc, ok = w.loc, !w.fresh || w.landed
		n.mu.Unlock()
		return loc, ok, nil
	}
	if loc, ok = d.layout[index]; ok {
		n.mu.Unlock()
		return loc, loc.Chunk != 0, nil
	}
	last := uint32((max(n.attr.Size, 1) - 1) / chunk.Size)
	n.mu.Unlock()
	count := uint32(1)
	if last >= index {
		count = min(last-index+1, layoutAhead)
	}
	locs, err := n.layout(ctx, index, count)
	if err != nil {
		return loc, false, err
	}
	loc, ok = locs[index]
	return loc, ok, nil
}

// layout asks the master where count chunks from first are.
func (n *node) layout(ctx context.Context, first, count uint32) (map[uint32]wire.ChunkLoc, error) {
	var reply wire.LayoutReply
	err := n.ask(ctx, &wire.Layout{Ino: n.ino, First: first, Count: count}, &reply, func(k *call, err error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if err != nil || k.abandoned() || !n.can(inode.R) || k.num < n.quarantine || n.data == nil {
			return
		}
		for i := range count {
			n.data.place(wire.ChunkLoc{Index: first + i})
		}
		for _, loc := range reply.Chunks {
			n.data.place(loc)
		}
	})
	if err != nil {
		return nil, err
	}
	locs := make(map[uint32]wire.ChunkLoc, len(reply.Chunks))
	for _, loc := range reply.Chunks {
		if loc.Chunk != 0 {
			locs[loc.Index] = loc
		}
	}
	return locs, nil
}

// place notes where a chunk is, unless it is being written here, which knows better.
func (d *fileData) place(loc wire.ChunkLoc) {
	if w := d.chunks[loc.Index]; w == nil || !w.held {
		d.layout[loc.Index] = loc
	}
}

// misplaced forgets a location that did not serve.
func (n *node) misplaced(loc wire.ChunkLoc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.data == nil {
		return
	}
	if have, ok := n.data.layout[loc.Index]; ok && have.Chunk == loc.Chunk && have.Version == loc.Version {
		delete(n.data.layout, loc.Index)
	}
}
