package master

import (
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/master/placement"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// order sends an order to a chunkserver and runs done on the loop, once: with
// nil when it was carried out and reply (may be nil) is filled in, or with an
// error, also when the server has not answered within limit.
func (l *loop) order(id chunk.Server, limit time.Duration, m, reply wire.Message, done func(error)) {
	s := l.chunks.servers[id]
	if s == nil || s.conn == nil {
		l.later(func() { done(status.Errorf(status.Closed, "chunkserver %v is not connected", id)) })
		return
	}
	in, room, over := l.in, l.chunks, false
	finish := func(err error) {
		if !over && room == l.chunks { // else this master was deposed meanwhile
			over = true
			done(err)
		}
	}
	timer := time.AfterFunc(limit, func() {
		in.post(func(*loop) { finish(status.Errorf(status.Timeout, "%T to chunkserver %v", m, id)) })
	})
	if reply == nil {
		reply = &wire.Empty{}
	}
	s.conn.Start(m, nil, func(r *link.Reply) {
		timer.Stop()
		err := r.Decode(reply)
		r.Free()
		in.post(func(*loop) { finish(err) })
	})
}

// carryOut sends an order of placement.
func (l *loop) carryOut(o placement.Order) {
	done := func(err error) {
		if err != nil {
			l.slog.Warn("order failed", "order", o.Kind, "server", o.Server, "chunk", o.Chunk, "err", err)
		}
		l.chunks.plan.Done(l.nanos(), o.ID, status.CodeOf(err))
	}
	switch o.Kind {
	case placement.Delete:
		m := &wire.Delete{Epoch: l.epoch, Copies: make([]wire.Copy, len(o.Deletes))}
		for i, c := range o.Deletes {
			m.Copies[i] = wire.Copy{Chunk: c.Chunk, Version: c.Version}
		}
		l.order(o.Server, l.cfg.OrderLimit, m, nil, done)
	case placement.Verify:
		l.order(o.Server, l.cfg.OrderLimit, &wire.SetVersion{
			Epoch: l.epoch, Chunk: o.Chunk, Min: o.Version, Max: o.Version, Version: o.Version,
		}, nil, done)
	case placement.Replicate:
		l.order(o.Server, l.cfg.OrderLimit, &wire.Replicate{
			Epoch: l.epoch, Version: o.Version,
			Loc: wire.ChunkLoc{
				Chunk: o.Chunk, Version: o.Version, Min: o.Version, Valid: chunk.Size, Replicas: l.replicas(o.From),
				Token: l.token(o.Chunk, o.Version, o.Version, false),
			},
		}, nil, done)
	default:
		panic("BUG: an order of unknown kind")
	}
}

// replicas gives the addresses of servers that are connected.
func (l *loop) replicas(ids []chunk.Server) []wire.Replica {
	list := make([]wire.Replica, 0, len(ids))
	for _, id := range ids {
		if s := l.chunks.servers[id]; s != nil && s.conn != nil {
			list = append(list, wire.Replica{Server: id, Addr: s.reg.Addr})
		}
	}
	return list
}

// members gives the addresses of a lease's set. A server that is away at the
// moment stays in it: the writer will say that it failed, and the version is
// raised before the set gets smaller.
func (l *loop) members(ids []chunk.Server) []wire.Replica {
	list := make([]wire.Replica, 0, len(ids))
	for _, id := range ids {
		if s := l.chunks.servers[id]; s != nil {
			list = append(list, wire.Replica{Server: id, Addr: s.reg.Addr})
		}
	}
	return list
}

// How long the holder of a token is served without asking again.
const (
	readToken  = 10 * time.Minute
	writeToken = time.Hour
)

// token signs the right to read or write a chunk.
func (l *loop) token(id chunk.ID, low, version chunk.Version, write bool) []byte {
	life := readToken
	if write {
		life = writeToken
	}
	t := wire.Token{Write: write, Chunk: id, Min: low, Version: version, Epoch: l.epoch, Expiry: l.now.Add(life).Unix()}
	return t.Sign(l.cfg.Key)
}
