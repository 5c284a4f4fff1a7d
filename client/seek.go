package client

import (
	"context"
	"slices"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// Seek finds the next data or hole from off on (SeekData, SeekHole), as
// lseek(2). status.NoDevice: off is at or behind the end, or only a hole follows.
func (f *File) Seek(ctx context.Context, off int64, whence int) (int64, error) {
	if whence != SeekData && whence != SeekHole {
		return 0, status.Invalid
	}
	n := f.n
	if err := n.enter(ctx, inode.R); err != nil {
		return 0, err
	}
	defer func() {
		n.leave(inode.R)
		n.mu.Unlock()
	}()
	size := int64(n.attr.Size)
	if off < 0 || off >= size {
		return 0, status.NoDevice
	}
	if err := n.flush(ctx); err != nil {
		return 0, err
	}
	n.mu.Unlock()
	at, err := f.c.seek(ctx, n, off, size, whence == SeekData)
	n.mu.Lock()
	return at, err
}

func (c *Client) seek(ctx context.Context, n *node, off, size int64, data bool) (int64, error) {
	for off < size {
		index, in := uint32(off/chunk.Size), uint32(off%chunk.Size)
		ranges, err := c.chunkMap(ctx, n, index)
		if err != nil {
			return 0, err
		}
		end := uint32(min(size-int64(index)*chunk.Size, chunk.Size))
		for _, r := range ranges {
			if r.Off+r.Len <= in || r.Off >= end {
				continue
			}
			if data {
				return int64(index)*chunk.Size + int64(max(in, r.Off)), nil
			}
			if r.Off > in {
				break
			}
			in = r.Off + r.Len
		}
		if !data && in < end {
			return int64(index)*chunk.Size + int64(in), nil
		}
		off = int64(index+1) * chunk.Size
	}
	if data {
		return 0, status.NoDevice
	}
	return size, nil
}

// chunkMap asks a replica which bytes of a chunk hold data.
func (c *Client) chunkMap(ctx context.Context, n *node, index uint32) ([]wire.Range, error) {
	began := c.now()
	for wait := time.Duration(0); ; wait = min(max(2*wait, backoffMin), backoffMax) {
		if wait > 0 && !c.sleep(ctx, wait) {
			return nil, ctxError(ctx)
		}
		Waits(ctx)
		loc, ok, err := n.locate(ctx, index)
		if err != nil || !ok {
			return nil, err
		}
		for _, r := range loc.Replicas {
			v := c.servers.get(r.Addr)
			conn, e := v.dial(ctx, laneRead)
			if e != nil {
				err = e
				continue
			}
			var reply wire.MapReply
			req := &wire.Map{Chunk: loc.Chunk, Min: loc.Min, Version: loc.Version, Token: loc.Token}
			if err = conn.Call(ctx, req, nil, &reply); err == nil {
				return clip(reply.Ranges, loc.Valid), nil
			}
		}
		if ctx.Err() != nil {
			return nil, ctxError(ctx)
		}
		n.misplaced(loc)
		if c.now()-began > c.patience() || c.ctx.Err() != nil {
			return nil, status.Errorf(status.IO, "inode %d chunk %v: %v", n.ino, loc.Chunk, err)
		}
	}
}

// clip cuts the ranges off at valid.
func clip(ranges []wire.Range, valid uint32) []wire.Range {
	for i := range ranges {
		if ranges[i].Off+ranges[i].Len > valid {
			ranges[i].Len = valid - min(valid, ranges[i].Off)
		}
	}
	return slices.DeleteFunc(ranges, func(r wire.Range) bool { return r.Len == 0 })
}
