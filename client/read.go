package client

import (
	"context"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/inode"
)

// want is one run of bytes to be fetched for a ReadAt.
type want struct {
	index uint32
	off   uint32 // in the chunk
	dst   []byte
	block *block // not nil: it is in there
	where *block // not nil: where it lies on a disk of this host
	load  func() // not nil: brings where
}

// ReadAt reads up to len(p) bytes at off; fewer, or none, at the end of the
// file. It sees everything that was written before, on any mount.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n := f.n
	if err := n.enter(ctx, inode.R); err != nil {
		return 0, err
	}
	size := int64(n.attr.Size)
	if off < 0 || off >= size || len(p) == 0 {
		n.leave(inode.R)
		n.mu.Unlock()
		return 0, nil
	}
	p = p[:min(int64(len(p)), size-off)]
	through, from, to := f.ahead.see(off, int64(len(p)), size, f.c.cfg.ReadAhead)
	wants, load := n.plan(off, p, through)
	for o := from / blockSize * blockSize; o < to; o += blockSize {
		if b := n.readAhead(uint64(o) / blockSize); b != nil {
			load = append(load, b)
		}
	}
	n.mu.Unlock()
	for _, b := range load {
		f.c.startLoad(n, b)
	}
	err := f.c.fulfil(ctx, n, wants)
	n.mu.Lock()
	n.leave(inode.R)
	n.mu.Unlock()
	if err != nil {
		return 0, err
	}
	f.c.met.readBytes.Add(len(p))
	return len(p), nil
}

// plan copies what is unwritten to p and returns what must be fetched, and the
// blocks that are to be loaded for it. mu and a use of R are held.
func (n *node) plan(off int64, p []byte, through bool) (wants []want, load []*block) {
	d := n.file()
	pieces(off, int64(len(p)), func(index uint32, in, m uint32) {
		dst := p[:m]
		p = p[m:]
		gaps := []gap{{in, in + m}}
		if w := d.chunks[index]; w != nil {
			gaps = w.overlay(in, dst)
		}
		for _, g := range gaps {
			for g.off < g.end {
				end := min(g.end, g.off/blockSize*blockSize+blockSize)
				w := want{index: index, off: g.off, dst: dst[g.off-in : end-in]}
				var made bool
				w.block, made = n.block(index, g.off, through)
				if made {
					n.c.cache.hold(w.block) // one use for the load, one for this reader
					load = append(load, w.block)
				}
				if w.block == nil {
					w.where, w.load = n.window(index, g.off)
				}
				wants = append(wants, w)
				g.off = end
			}
		}
	})
	return joinWants(wants), load
}

// joinWants makes neighbours that come straight from chunkservers one request.
func joinWants(wants []want) []want {
	out := wants[:0]
	for _, w := range wants {
		if k := len(out) - 1; k >= 0 && w.block == nil && out[k].block == nil && out[k].where == w.where && out[k].index == w.index &&
			out[k].off+uint32(len(out[k].dst)) == w.off && len(out[k].dst)+len(w.dst) <= blockSize {
			out[k].dst = out[k].dst[:len(out[k].dst)+len(w.dst)]
			continue
		}
		out = append(out, w)
	}
	return out
}

// block returns the block that holds a chunk's bytes at off for one use, if it
// is there or (with create) may be made. mu is held.
func (n *node) block(index, off uint32, create bool) (b *block, made bool) {
	start := uint64(index)*chunk.Size + uint64(off/blockSize*blockSize)
	var size int64
	if create && start < n.attr.Size {
		size = int64(min(n.attr.Size-start, blockSize))
		if w := n.data.chunks[index]; w != nil && w.covers(off/blockSize*blockSize, off/blockSize*blockSize+blockSize) {
			size = 0
		}
	}
	b, made = n.c.cache.get(n.data, start/blockSize, size)
	return b, made
}

// readAhead makes the block with the given number, if it is not there. mu is held.
func (n *node) readAhead(number uint64) *block {
	off := number * blockSize
	b, made := n.block(uint32(off/chunk.Size), uint32(off%chunk.Size), true)
	if made {
		n.c.met.ahead.Inc()
		return b
	}
	if b != nil {
		n.c.cache.put(b)
	}
	return nil
}

// startLoad loads a block in the background and ends the use that made it.
func (c *Client) startLoad(n *node, b *block) {
	n.pin()
	ok := c.spawn(func() {
		off := b.index * blockSize
		b.piece, b.err = c.load(n, uint32(off/chunk.Size), uint32(off%chunk.Size), uint32(b.size))
		if b.err != nil {
			c.cache.failed(b)
		}
		close(b.ready)
		c.cache.put(b)
		n.unpin()
	})
	if !ok {
		b.err = c.closedError()
		c.cache.failed(b)
		close(b.ready)
		c.cache.put(b)
		n.unpin()
	}
}

// load reads m bytes at off of a chunk for the cache: from a disk of this host if one has
// them, else from a chunkserver.
func (c *Client) load(n *node, index, off, m uint32) (piece, error) {
	n.mu.Lock()
	where, load := n.window(index, off)
	n.mu.Unlock()
	if where != nil {
		mem := engine.Alloc(int(m))
		if c.readShort(c.ctx, where, load, mem[:m], off) {
			return piece{data: mem[:m], mem: mem}, nil
		}
		engine.Free(mem)
	}
	return c.fetch(c.ctx, n, index, off, m)
}

// fulfil fetches all wants, several at a time.
func (c *Client) fulfil(ctx context.Context, n *node, wants []want) error {
	if len(wants) == 0 {
		return nil
	}
	errs := make(chan error, len(wants))
	for i := 1; i < len(wants); i++ {
		w := wants[i]
		if w.block != nil || !c.spawn(func() { errs <- c.one(ctx, n, w) }) {
			errs <- c.one(ctx, n, w)
		}
	}
	err := c.one(ctx, n, wants[0])
	for range len(wants) - 1 {
		if e := <-errs; err == nil {
			err = e
		}
	}
	return err
}

// one fetches one want.
func (c *Client) one(ctx context.Context, n *node, w want) error {
	if b := w.block; b != nil {
		defer c.cache.put(b)
		select {
		case <-b.ready:
		default:
			Waits(ctx)
			select {
			case <-b.ready:
			case <-ctx.Done():
				return ctxError(ctx)
			}
		}
		if b.err != nil {
			return b.err
		}
		c.met.cacheHits.Inc()
		b.piece.copyTo(w.dst, w.off%blockSize)
		return nil
	}
	if w.where != nil && c.readShort(ctx, w.where, w.load, w.dst, w.off) {
		return nil
	}
	piece, err := c.fetch(ctx, n, w.index, w.off, uint32(len(w.dst)))
	if err != nil {
		return err
	}
	piece.copyTo(w.dst, 0)
	piece.free()
	return nil
}
