package client

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// fanOutMax is the size up to which a write goes to all replicas directly: its
// time is that of the slowest. Larger ones go down a chain, so that they cross
// this host's network interface once.
const fanOutMax = 64 << 10

// order is one write to one chunkserver.
type order struct {
	w     *leased
	e     *extent
	to    wire.Replica
	round uint32
}

// sendAll sends extents that launch or depart has counted. mu is held before
// and after.
func (w *leased) sendAll(batch []*extent) {
	n := w.d.n
	// A replica without a copy may make one as long as it gets all that was ever
	// written: later it would have holes where there were bytes.
	loc, create, round := w.loc, w.fresh && !w.solid, w.round
	w.touched = true
	n.mu.Unlock()
	conns := make([]*link.Conn, len(loc.Replicas))
	errs := make([]error, len(loc.Replicas))
	for i, r := range loc.Replicas {
		conns[i], errs[i] = n.c.servers.get(r.Addr).dial(n.c.ctx, laneWrite)
	}
	w.changedConns(conns, round)
	m := &wire.Write{
		Chunk: loc.Chunk, Min: loc.Min, Version: loc.Version, Epoch: n.c.ses.epoch.Load(), Create: create, Token: loc.Token,
	}
	for _, e := range batch {
		m.Off, m.Len, m.Sync = e.off, e.n, e.sync
		m.What, m.Sums, m.Chain = wire.WriteData, m.Sums[:0], nil
		switch {
		case e.trim:
			m.What = wire.WriteTrim
		case e.zero:
			m.What = wire.WriteZero
		default:
			m.Sums = chunk.AppendSums(m.Sums, e.off, e.data)
		}
		n.c.met.writes.Inc()
		n.c.met.writeBytes.Add(len(e.data))
		if e.chained {
			m.Chain = loc.Replicas[1:]
		}
		for i, r := range loc.Replicas {
			o := &order{w: w, e: e, to: r, round: round}
			if errs[i] != nil {
				o.answered(nil, errs[i])
			} else {
				conn := conns[i]
				conn.Start(m, e.data, func(r *link.Reply) { o.reply(r) })
			}
			if e.chained {
				break
			}
		}
	}
	n.mu.Lock()
}

// changedConns notes the connections of this round. What a replica accepted on
// one that has died may be lost with its memory, whether or not it answers again.
func (w *leased) changedConns(conns []*link.Conn, round uint32) {
	n := w.d.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if round != w.round {
		return // the lease was lost meanwhile
	}
	for i, conn := range w.conns {
		if conn != nil && conn != conns[i] && w.unsure() {
			w.breakReplica(w.loc.Replicas[i].Server, conn.Err())
		}
	}
	w.conns = conns
}

// unsure says whether anything was accepted that is not known to be durable.
func (w *leased) unsure() bool {
	for _, e := range w.sent {
		if e.acked && !e.durable {
			return true
		}
	}
	return false
}

// breakReplica notes that a replica did not do its part.
func (w *leased) breakReplica(s chunk.Server, err error) {
	if err == nil {
		err = status.Errorf(status.Closed, "chunkserver %v", s)
	}
	if w.broken == nil {
		w.broken = make(map[chunk.Server]error)
	}
	w.broken[s] = err
}

// reply runs on the read goroutine of the chunkserver's connection.
func (o *order) reply(r *link.Reply) {
	var m wire.WriteReply
	err := r.Decode(&m)
	r.Free()
	o.answered(&m, err)
}

// answered takes the answer to one write.
func (o *order) answered(m *wire.WriteReply, err error) {
	w, e, n := o.w, o.e, o.w.d.n
	n.mu.Lock()
	defer n.mu.Unlock()
	failed := o.to.Server
	if err == nil && m.Failed != 0 {
		failed = m.Failed
		err = &status.Error{Code: status.Code(m.Code), Detail: m.Detail}
	}
	switch {
	case o.round != w.round:
		e.bad = true // the lease it was for is lost
	case err != nil:
		e.bad = true
		if !e.dropped {
			w.breakReplica(failed, err)
		}
	}
	e.waiting--
	if e.waiting > 0 {
		return
	}
	w.flying--
	w.bytes -= e.cost()
	if e.dropped {
		e.release()
	} else if !e.bad {
		w.accepted(e)
	}
	if len(w.broken) > 0 || w.again {
		if w.flying == 0 {
			w.kick()
		}
	} else if w.more && (w.flying == 0 || w.bytes < maxFlyingBytes/2 && w.flying < maxFlying/2) {
		w.kick()
	}
	if w.flying%32 == 0 || w.flying < 4 {
		n.cond.Broadcast()
	}
}

// accepted notes that all replicas have an extent.
func (w *leased) accepted(e *extent) {
	e.acked, w.landed = true, true
	w.mends, w.trouble, w.doubted = 0, 0, 0
	if e.trim {
		w.loc.Valid = chunk.Size
		w.trimmed = true
		w.d.change(true)
	}
	if e.sync {
		e.durable = true
		w.prune()
	}
}

// prune drops what is durable from sent.
func (w *leased) prune() {
	keep := w.sent[:0]
	for _, e := range w.sent {
		if e.durable && e.waiting == 0 {
			if !e.zero && uint64(w.index)*chunk.Size+uint64(e.end()) > w.d.baseSize {
				w.d.exposed = true
			}
			w.heavy -= int64(len(e.data))
			w.solid = true
			w.d.keep(w, e)
			e.release()
			continue
		}
		keep = append(keep, e)
	}
	clear(w.sent[len(keep):])
	w.sent = keep
}
