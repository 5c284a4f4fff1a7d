package chunkd

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/segment"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// copyTimeout bounds one read from another server while a copy is made.
const copyTimeout = 10 * time.Second

// replicate makes a copy of a chunk from other servers. It takes the place of
// what was here in one durable step, and only when it is whole.
func (s *Server) replicate(ctx context.Context, m *wire.Replicate) error {
	begin := time.Now()
	id := m.Loc.Chunk
	var d *disk
	err := s.fence.begin(id, func() error {
		have, info, err := s.shelf.find(id)
		if err == nil && info.Version > m.Version {
			return status.Errorf(status.StaleVersion, "chunk %v: version %v here, the copy would be %v", id, info.Version, m.Version)
		}
		if d = have; err == nil {
			return nil // in the same store the exchange is one step
		}
		d, err = s.shelf.roomiest()
		return err
	})
	if err != nil {
		return err
	}
	defer s.fence.end(id)
	imp, err := d.store.Begin(id, m.Version)
	if err != nil {
		return d.check(err)
	}
	defer imp.Abort()
	n, err := s.fetch(ctx, &m.Loc, imp)
	if err == nil {
		err = imp.Commit()
	}
	if err != nil {
		return fmt.Errorf("copy of chunk %v: %w", id, d.check(err))
	}
	s.fence.forget(id)
	s.renewed(id)
	s.appeared(id)
	since(s.met.replicate, begin)
	s.log.Info("copy made", "chunk", id, "version", m.Version, "bytes", n, "took", time.Since(begin).Round(time.Millisecond))
	return nil
}

// source is a server that has the chunk to be copied.
type source struct {
	s     *Server
	loc   *wire.ChunkLoc
	token []byte
}

// fetch reads all data of a chunk into imp and returns how many bytes that were.
func (s *Server) fetch(ctx context.Context, loc *wire.ChunkLoc, imp *segment.Import) (int64, error) {
	if len(loc.Replicas) == 0 {
		return 0, status.Errorf(status.NoChunk, "no server to copy from")
	}
	src := &source{s: s, loc: loc, token: s.tokens.own(loc.Chunk, loc.Min, loc.Version, s.fence.high.Load())}
	ranges, err := src.mapped(ctx)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	blocks := make(chan wire.Range)
	var wg sync.WaitGroup
	for range copyDepth {
		wg.Add(1)
		go func() {
			defer wg.Done()
			buf := engine.Alloc(copyBlock)
			defer engine.Free(buf)
			for b := range blocks {
				if err := src.block(ctx, b, buf, imp); err != nil {
					cancel(err)
				}
			}
		}()
	}
	total := int64(0)
	for _, r := range ranges {
		for r.Len > 0 && ctx.Err() == nil {
			n := min(r.Len, copyBlock-r.Off%copyBlock)
			blocks <- wire.Range{Off: r.Off, Len: n}
			r.Off, r.Len = r.Off+n, r.Len-n
			total += int64(n)
		}
	}
	close(blocks)
	wg.Wait()
	return total, context.Cause(ctx)
}

// each asks the servers that have the chunk one after the other until ask
// succeeds; first is where to begin.
func (c *source) each(ctx context.Context, first int, ask func(context.Context, wire.Replica) error) error {
	var err error
	for i := range c.loc.Replicas {
		r := c.loc.Replicas[(first+i)%len(c.loc.Replicas)]
		if r.Server == c.s.shelf.server {
			continue
		}
		one, cancel := context.WithTimeout(ctx, copyTimeout)
		e := ask(one, r)
		cancel()
		if e == nil || ctx.Err() != nil {
			return e
		}
		c.s.log.Warn("copying from a server failed", "chunk", c.loc.Chunk, "server", r.Server, "addr", r.Addr, "err", e)
		err = fmt.Errorf("from %s: %w", r.Addr, e)
	}
	if err == nil {
		err = status.Errorf(status.NoChunk, "no other server to copy from")
	}
	return err
}

// mapped asks which bytes of the chunk hold data.
func (c *source) mapped(ctx context.Context) ([]wire.Range, error) {
	var reply wire.MapReply
	err := c.each(ctx, 0, func(ctx context.Context, r wire.Replica) error {
		conn, err := c.s.peers.conn(ctx, r.Addr)
		if err != nil {
			return err
		}
		req := wire.Map{Chunk: c.loc.Chunk, Min: c.loc.Min, Version: c.loc.Version, Token: c.token}
		if err := conn.Call(ctx, &req, nil, &reply); err != nil {
			return err
		}
		for _, g := range reply.Ranges {
			if g.Len == 0 || uint64(g.Off)+uint64(g.Len) > chunk.Size {
				return status.Errorf(status.BadMessage, "range of %d bytes at %d", g.Len, g.Off)
			}
		}
		return nil
	})
	return reply.Ranges, err
}

// block copies one range. The checksums come from the server that stores the
// bytes and are checked when imp takes them.
func (c *source) block(ctx context.Context, g wire.Range, buf []byte, imp *segment.Import) error {
	return c.each(ctx, int(g.Off/copyBlock), func(ctx context.Context, r wire.Replica) error {
		conn, err := c.s.peers.conn(ctx, r.Addr)
		if err != nil {
			return err
		}
		var reply wire.ReadReply
		req := wire.Read{Chunk: c.loc.Chunk, Min: c.loc.Min, Version: c.loc.Version, Off: g.Off, Len: g.Len, Token: c.token}
		n, err := conn.CallData(ctx, &req, buf[:g.Len], &reply)
		if err != nil {
			return err
		}
		if n != int(g.Len) || len(reply.Sums) != chunk.Pieces(g.Off, g.Len) {
			return status.Errorf(status.BadMessage, "%d bytes and %d checksums for %d bytes at %d", n, len(reply.Sums), g.Len, g.Off)
		}
		c.s.met.copyBytes.Add(n)
		return imp.Write(g.Off, buf[:n], reply.Sums)
	})
}
