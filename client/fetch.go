package client

import (
	"context"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// A read that takes longer than hedgeFactor times the usual is asked of another
// replica, too.
const (
	hedgeFactor = 8
	hedgeMin    = 30 * time.Millisecond
	hedgeMax    = 300 * time.Millisecond
)

// fetch reads m bytes at off of a chunk, from whichever replica serves them. It
// goes on while there is hope.
func (c *Client) fetch(ctx context.Context, n *node, index, off, m uint32) (piece, error) {
	began := c.now()
	for wait := time.Duration(0); ; wait = min(max(2*wait, backoffMin), backoffMax) {
		if wait > 0 && !c.sleep(ctx, wait) {
			if c.ctx.Err() != nil {
				return piece{}, c.closedError()
			}
			return piece{}, ctxError(ctx)
		}
		loc, ok, err := n.locate(ctx, index)
		if err != nil {
			return piece{}, err
		}
		if !ok || off >= loc.Valid {
			return piece{}, nil
		}
		k := min(m, loc.Valid-off)
		reply, err := c.readAny(ctx, loc, off, k)
		if err == nil {
			return piece{data: reply.Data, reply: reply}, nil
		}
		if ctx.Err() != nil {
			return piece{}, ctxError(ctx)
		}
		n.misplaced(loc)
		late := c.now()-began > c.patience()
		switch {
		case status.CodeOf(err) == status.Corrupt:
			late = c.now()-began > int64(backoffMax) // all copies are: waiting does not help
		case loc.Gone:
			late = late || c.now()-began > int64(goneFor)
		}
		if late || c.ctx.Err() != nil {
			c.log.Error("cannot read", "inode", uint64(n.ino), "chunk", loc.Chunk.String(), "offset", off, "err", err)
			return piece{}, status.Errorf(status.IO, "inode %d chunk %v: %v", n.ino, loc.Chunk, err)
		}
	}
}

// answer is what came of one read request.
type answer struct {
	reply *link.Reply
	sums  wire.ReadReply
	err   error
}

// readAny reads from the replica with the least to do, and from the next when
// that fails or takes too long. The error is that of the first.
func (c *Client) readAny(ctx context.Context, loc wire.ChunkLoc, off, m uint32) (*link.Reply, error) {
	if len(loc.Replicas) == 0 {
		return nil, status.Errorf(status.NoChunk, "no copy of chunk %v is known", loc.Chunk)
	}
	order := c.rank(&loc, off)
	answers := make(chan answer, len(order))
	next, waiting := 0, 0
	Waits(ctx)
	ask := func() {
		c.ask(order[next], &loc, off, m, answers)
		next++
		waiting++
	}
	ask()
	hedge := time.NewTimer(order[0].patience())
	defer hedge.Stop()
	var first error
	for waiting > 0 {
		select {
		case a := <-answers:
			waiting--
			if a.err == nil {
				if bad := chunk.Verify(a.sums.Sums, off, a.reply.Data); bad >= 0 || len(a.reply.Data) != int(m) {
					c.met.corrupt.Inc()
					a.reply.Free()
					a.err = status.Errorf(status.Corrupt, "chunk %v: what came does not match its checksums", loc.Chunk)
				}
			}
			if a.err == nil {
				return a.reply, nil
			}
			if first == nil || status.CodeOf(first) == status.Corrupt {
				first = a.err
			}
			if next < len(order) {
				ask()
			}
		case <-hedge.C:
			if next < len(order) {
				c.met.hedges.Inc()
				ask()
			}
		case <-ctx.Done():
			return nil, ctxError(ctx)
		}
	}
	return nil, first
}

// rank orders the replicas: the blocks of a chunk are spread over them, but a
// server with much less to do comes first.
func (c *Client) rank(loc *wire.ChunkLoc, off uint32) []*server {
	k := len(loc.Replicas)
	order := make([]*server, k)
	start := (uint64(loc.Chunk) + uint64(off/blockSize)) % uint64(k)
	for i := range order {
		order[i] = c.servers.get(loc.Replicas[(int(start)+i)%k].Addr)
	}
	best := 0
	for i, v := range order {
		if v.load.Load()+4*blockSize < order[best].load.Load() {
			best = i
		}
	}
	order[0], order[best] = order[best], order[0]
	return order
}

// patience is how long to wait for a read before another replica is asked.
func (v *server) patience() time.Duration {
	return min(max(hedgeFactor*time.Duration(v.latency.Load()), hedgeMin), hedgeMax)
}

// ask sends one read; its answer goes to answers.
func (c *Client) ask(v *server, loc *wire.ChunkLoc, off, m uint32, answers chan<- answer) {
	req := &wire.Read{Chunk: loc.Chunk, Min: loc.Min, Version: loc.Version, Off: off, Len: m, Token: loc.Token}
	c.met.reads.Inc()
	v.load.Add(int64(m))
	start := func(conn *link.Conn) {
		sent := c.now()
		conn.Start(req, nil, func(r *link.Reply) {
			v.load.Add(-int64(m))
			a := answer{err: r.Err}
			if a.err == nil {
				if a.err = r.Decode(&a.sums); a.err == nil {
					kept := *r
					a.reply = &kept
				}
			}
			if a.err == nil {
				took := c.now() - sent
				v.latency.Store(v.latency.Load() + (took-v.latency.Load())/16)
			} else {
				r.Free()
			}
			answers <- a
		})
	}
	if conn := v.alive(laneRead); conn != nil {
		start(conn)
		return
	}
	ok := c.spawn(func() {
		conn, err := v.dial(c.ctx, laneRead)
		if err != nil {
			v.load.Add(-int64(m))
			answers <- answer{err: err}
			return
		}
		start(conn)
	})
	if !ok {
		v.load.Add(-int64(m))
		answers <- answer{err: c.closedError()}
	}
}
