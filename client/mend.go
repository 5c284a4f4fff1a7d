package client

import (
	"maps"
	"slices"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// maxMends is how often a replica that answers again after a lost connection is
// given everything once more, before the master is asked to drop it.
const maxMends = 3

// mend brings the replicas to the same bytes again after some did not take a
// write: those that can't are dropped by the master, the others are sent all
// that is not known to be durable. mu is held before and after; nothing is
// under way.
func (w *leased) mend() {
	n := w.d.n
	if len(w.broken) > 0 {
		if !w.judge() {
			return
		}
	}
	if !w.held {
		return // it was lost meanwhile
	}
	w.again = false
	if len(w.sent) == 0 {
		return
	}
	if w.loc.Valid < chunk.Size && !w.trimming() {
		w.sent = slices.Insert(w.sent, 0, w.trim()) // before what it must not cut
	}
	n.c.met.resent.Add(len(w.sent))
	w.relocate()
	for _, e := range w.sent {
		e.chained = false
		w.depart(e)
	}
	w.sendAll(slices.Clone(w.sent))
}

// judge decides about the replicas that failed. It returns false when there is
// nothing to send again yet: the lease has to be asked for anew, or the chunk
// was given up.
func (w *leased) judge() bool {
	n := w.d.n
	if w.trouble == 0 {
		w.trouble = n.c.now()
	}
	w.mends++
	// Impatience is for when others can go on.
	impatient := w.mends > maxMends && len(w.broken) < len(w.loc.Replicas)
	if w.mends > 1 {
		pause := min(backoffMin<<min(w.mends-2, 6), backoffMax)
		n.mu.Unlock()
		n.c.sleep(n.c.ctx, pause)
		n.mu.Lock()
	}
	for wait := backoffMin; ; wait = min(2*wait, backoffMax) {
		broken, loc := maps.Clone(w.broken), w.loc // harden may add to the original
		n.mu.Unlock()
		failed, renew := n.c.verdict(loc, broken, impatient)
		n.mu.Lock()
		late := n.c.now()-w.trouble > n.c.patience()
		switch {
		case n.dead || n.c.ctx.Err() != nil:
			w.drop()
			return false
		case !w.held:
			return false
		case renew && w.doubted == loc.Version:
			// The lease that was asked for anew is refused, too: the copies are ahead
			// of it, because the answer to an order of the master was lost.
			w.doubted = 0
			return w.dropReplicas(serversOf(loc))
		case renew && late:
			w.fail(status.Errorf(status.IO, "inode %d chunk %v: no replica takes writes", n.ino, loc.Chunk))
			return false
		case renew:
			w.doubted = loc.Version
			w.lose()
			w.again = true
			return false
		case len(failed) == 0:
			w.broken = nil
			return true
		}
		if len(failed) == len(loc.Replicas) {
			if err := allFull(loc, broken); err != nil {
				w.fail(err)
				return false
			}
		}
		if len(failed) < len(loc.Replicas) || late {
			return w.dropReplicas(failed)
		}
		// Nobody can be reached: they may all be restarting.
		n.mu.Unlock()
		n.c.sleep(n.c.ctx, wait)
		n.mu.Lock()
	}
}

// verdict tells which of the broken replicas are to be dropped. renew: the
// lease itself is no longer good.
func (c *Client) verdict(loc wire.ChunkLoc, broken map[chunk.Server]error, impatient bool) (failed []chunk.Server, renew bool) {
	behind := 0
	for _, r := range loc.Replicas {
		switch status.CodeOf(broken[r.Server]) {
		case status.StaleVersion, status.NoLease, status.NoChunk:
			behind++
		}
	}
	if behind == len(loc.Replicas) {
		return nil, true // they cannot all be wrong
	}
	for _, r := range loc.Replicas {
		err, ok := broken[r.Server]
		if !ok {
			continue
		}
		switch status.CodeOf(err) {
		case status.BadToken, status.OldEpoch:
			return nil, true
		case status.Closed, status.Timeout, status.Interrupted:
			if _, err := c.servers.get(r.Addr).dial(c.ctx, laneWrite); err != nil || impatient {
				c.log.Warn("chunkserver does not take writes", "addr", r.Addr, "chunk", loc.Chunk.String(), "err", err)
				failed = append(failed, r.Server)
			}
		default:
			c.log.Warn("chunkserver refused a write", "addr", r.Addr, "chunk", loc.Chunk.String(), "err", err)
			failed = append(failed, r.Server)
		}
	}
	return failed, false
}

// serversOf lists the servers of a location.
func serversOf(loc wire.ChunkLoc) (list []chunk.Server) {
	for _, r := range loc.Replicas {
		list = append(list, r.Server)
	}
	return list
}

// allFull returns the error to report when every replica is out of space.
func allFull(loc wire.ChunkLoc, broken map[chunk.Server]error) error {
	var full error
	for _, r := range loc.Replicas {
		err := broken[r.Server]
		if status.CodeOf(err) != status.NoSpace {
			return nil
		}
		full = err
	}
	return full
}

// dropReplicas has the master drop copies and takes over the new set.
func (w *leased) dropReplicas(failed []chunk.Server) bool {
	n := w.d.n
	n.c.met.dropped.Add(len(failed))
	req := &wire.LeaseFail{Ino: n.ino, Index: w.index, Chunk: w.loc.Chunk, Version: w.loc.Version, Failed: failed}
	var reply wire.LeaseReply
	n.mu.Unlock()
	err := n.c.ses.do(n.c.ctx, req, &reply, nil)
	n.mu.Lock()
	switch {
	case !w.held:
	case err == nil && len(reply.Chunks) == 1 && len(reply.Chunks[0].Replicas) > 0:
		w.loc = reply.Chunks[0]
		w.loc.Index = w.index
		if w.trimmed {
			w.loc.Valid = chunk.Size
		}
		w.relocate()
		return true
	case gone(err):
		n.bury()
	case status.CodeOf(err) == status.NoLease, status.CodeOf(err) == status.StaleVersion, status.CodeOf(err) == status.Again:
		w.lose()
		w.again = true
	case n.c.ctx.Err() != nil:
	case away(err) && n.c.now()-w.trouble <= n.c.patience():
		n.c.log.Info("waiting for a chunkserver", "inode", uint64(n.ino), "chunk", w.loc.Chunk.String(), "err", err)
		// judge looks at the replicas again, after a pause.
	case err == nil:
		w.fail(status.Errorf(status.IO, "inode %d chunk %d: no replica is left", n.ino, w.index))
	default:
		w.fail(err)
	}
	return false
}

// away says whether an error means that servers may come back.
func away(err error) bool {
	switch status.CodeOf(err) {
	case status.NoServers, status.Busy, status.Timeout:
		return true
	}
	return false
}

// remarry asks for W again after it was lost with unwritten data. If nobody has
// changed the file in between, the data is written after all. mu is held before
// and after.
func (n *node) remarry() {
	d := n.data
	n.mu.Unlock()
	var reply wire.AttrReply
	err := n.c.ses.do(n.c.ctx, &wire.Acquire{Ino: n.ino, Rights: inode.W}, &reply, func(k *call, err error) {
		if err != nil {
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.grant(k, reply.Rights, inode.W)
	})
	n.mu.Lock()
	there := true
	if err == nil && d.widowed && len(d.left) > 0 {
		there, err = d.stillThere()
	}
	if !d.widowed || n.c.ctx.Err() != nil {
		return
	}
	switch {
	case gone(err):
		n.bury()
		d.widowed = false
	case err != nil:
		n.mu.Unlock()
		n.c.sleep(n.c.ctx, backoffMax)
		n.mu.Lock()
	case !n.holdsW() || n.recalled&inode.W != 0: // whoever answers the recall does not wait for a file without W
		n.mu.Unlock()
		n.c.sleep(n.c.ctx, backoffMin)
		n.mu.Lock()
	case reply.Attr.Size != d.baseSize || reply.Attr.Mtime != d.baseTime:
		d.forfeit("it was changed by another mount while this one was cut off")
		n.known = true
		n.attr = reply.Attr
	case d.exposed:
		// The master cuts what a lost writer has put behind the end that it knows.
		d.forfeit("the master took this mount for dead before it knew of the new size")
		n.known = true
		n.attr = reply.Attr
	case !there:
		d.forfeit("the master took this mount for dead before it had written to a new chunk")
		n.known = true
		n.attr = reply.Attr
	default:
		d.widowed, d.left = false, nil
		n.c.log.Info("unwritten data is written after all", "inode", uint64(n.ino))
	}
	n.cond.Broadcast()
}

// forfeit gives up all that the master does not know of a file. n.mu is held.
func (d *fileData) forfeit(why string) {
	err := status.Errorf(status.IO, "inode %d: %s", d.n.ino, why)
	d.err, d.errs = err, d.errs+1
	d.n.c.log.Error("what was written is lost", "inode", uint64(d.n.ino), "err", err)
	for _, w := range d.chunks {
		if !w.idle() {
			w.fail(err)
		}
	}
	d.widowed, d.changed, d.grown, d.kill, d.exposed, d.sets = false, false, false, false, false, 0
	d.told(d.intents)
	d.intents = nil
	d.left = nil
}

// stillThere asks whether the file still has the chunks that were written under
// lost leases. A chunk that nobody has written to yet when the master looks is
// freed with its lease; a write on its way then arrives too late, at copies that
// belong to nothing. n.mu is held before and after.
func (d *fileData) stillThere() (bool, error) {
	n := d.n
	left := maps.Clone(d.left)
	n.mu.Unlock()
	defer n.mu.Lock()
	for index, id := range left {
		locs, err := n.layout(n.c.ctx, index, 1)
		if err != nil {
			return false, err
		}
		if locs[index].Chunk != id {
			n.c.log.Warn("a chunk went with its lease", "inode", uint64(n.ino), "chunk", id.String())
			return false, nil
		}
	}
	return true, nil
}

// harden makes what the replicas of the nodes' chunks have accepted durable. It
// tries once; what has failed is under repair when it returns.
func (c *Client) harden(nodes []*node) {
	type item struct {
		n     *node
		w     *leased
		round uint32
		list  []*extent
		conns []int // indexes in orders
	}
	var items []*item
	orders := newSyncOrders(c)
	for _, n := range nodes {
		n.mu.Lock()
		if n.data != nil {
			for _, w := range n.data.chunks {
				it := &item{n: n, w: w, round: w.round}
				for _, e := range w.sent {
					if e.acked && !e.durable {
						it.list = append(it.list, e)
					}
				}
				if len(it.list) == 0 || !w.held || len(w.broken) > 0 || w.again {
					continue
				}
				for i, conn := range w.conns {
					it.conns = append(it.conns, orders.add(conn, w.loc.Replicas[i], w.loc.Chunk))
				}
				items = append(items, it)
			}
		}
		n.mu.Unlock()
	}
	orders.run()
	for _, it := range items {
		it.n.mu.Lock()
		if it.round == it.w.round {
			ok := true
			for _, i := range it.conns {
				o := orders.list[i]
				if err := o.result(it.w.loc.Chunk); err != nil {
					it.w.breakReplica(o.to.Server, err)
					ok = false
				}
			}
			for _, e := range it.list {
				e.durable = e.durable || ok
			}
			if ok {
				it.w.prune()
			} else {
				it.w.kick()
			}
		}
		it.n.cond.Broadcast()
		it.n.mu.Unlock()
	}
}
