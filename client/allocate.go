package client

import (
	"context"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// Allocate is fallocate(2). Space is not reserved: a log has no place for a
// block before it is written. What remains is the new size, holes and zeros.
func (f *File) Allocate(ctx context.Context, mode uint32, off, size int64) error {
	switch {
	case f.c.cfg.ReadOnly:
		return status.ReadOnly
	case off < 0 || size <= 0:
		return status.Invalid
	case uint64(off)+uint64(size) > inode.SizeMax:
		return status.TooBig
	}
	switch mode {
	case 0, AllocKeepSize:
	case AllocPunchHole | AllocKeepSize, AllocZeroRange, AllocZeroRange | AllocKeepSize:
		if err := f.n.zero(ctx, off, size); err != nil {
			return err
		}
	default:
		return status.Unsupported
	}
	if mode&AllocKeepSize != 0 {
		return nil
	}
	if err := f.n.enter(ctx, inode.W); err != nil {
		return err
	}
	f.n.leave(inode.W)
	short := f.n.attr.Size < uint64(off+size)
	f.n.mu.Unlock()
	if !short {
		return nil
	}
	_, err := f.c.SetAttr(ctx, f.n.ino, wire.SetAttr{Valid: wire.SetSize, Size: uint64(off + size)})
	return err
}

// zero makes off..off+size read as zeros, as far as the file reaches.
func (n *node) zero(ctx context.Context, off, size int64) error {
	if err := n.enter(ctx, inode.W); err != nil {
		return err
	}
	// The use of W is kept until the end: the layout stays what it is.
	defer func() {
		n.leave(inode.W)
		n.mu.Unlock()
	}()
	end := min(off+size, int64(n.attr.Size))
	if end <= off {
		return nil
	}
	exists := make(map[uint32]bool)
	first, last := uint32(off/chunk.Size), uint32((end-1)/chunk.Size)
	for first <= last {
		count := min(last-first+1, 4096)
		n.mu.Unlock()
		locs, err := n.layout(ctx, first, count)
		n.mu.Lock()
		if err != nil {
			return err
		}
		for i := range locs {
			exists[i] = true
		}
		first += count
	}
	d := n.file()
	d.stamp++
	now := n.c.now()
	d.dropCached(uint64(off), uint64(end))
	pieces(off, end-off, func(index uint32, in, m uint32) {
		w := d.chunks[index]
		if w == nil && !exists[index] {
			return
		}
		w = d.chunk(index)
		w.dirty.cut(in, in+m)
		w.dirty.insert(&extent{off: in, n: m, zero: true, stamp: d.stamp, born: now})
	})
	n.touch(uint64(off), uint64(end))
	return nil
}
