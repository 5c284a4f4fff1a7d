package client

import (
	"math"
	"slices"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// Limits of what is under way to one chunk.
const (
	maxFlying      = 256
	maxFlyingBytes = 16 << 20
	sendBatch      = 64
)

// goneFor is how long a chunk is looked for of which no copy is left, although
// all chunkservers are there that the master knows.
const goneFor = 30 * time.Second

// noLeaseFor bounds how long a client and a master differ about right W.
const noLeaseFor = 10 * time.Second

// patience is how long a request goes on when no chunkserver that it needs can
// be had, in nanoseconds: for ever, unless Config.Timeout is set. They may all be
// restarting, and an error would be for good.
func (c *Client) patience() int64 {
	if c.cfg.Timeout > 0 {
		return int64(c.cfg.Timeout)
	}
	return math.MaxInt64
}

// kick starts the work on a chunk if there is any. mu is held.
func (w *leased) kick() {
	if w.working || w.d.n.dead {
		return
	}
	w.working = true
	n := w.d.n.pin()
	ok := n.c.spawn(func() {
		n.mu.Lock()
		w.work()
		n.mu.Unlock()
		n.unpin()
	})
	if !ok {
		w.working = false
		n.unpin()
	}
}

// work sends what is ready until nothing is left to send now. The caller has
// set working and holds mu, which is released while it waits for others.
func (w *leased) work() {
	n := w.d.n
	for n.c.ctx.Err() == nil && !n.dead {
		w.more = false
		if len(w.broken) > 0 || w.again {
			if w.flying > 0 {
				break // the last answer comes back here
			}
			if w.held {
				w.mend()
				continue
			}
		}
		if !w.anyReady() && !w.again || w.ending {
			break
		}
		if !w.held {
			w.getLease()
			continue
		}
		if w.loc.Valid < chunk.Size {
			if !w.trimming() {
				w.sendTrim()
			}
		}
		batch := w.take()
		if len(batch) == 0 {
			break
		}
		w.sendAll(batch)
	}
	w.working = false
	n.cond.Broadcast()
}

func (w *leased) anyReady() bool {
	for _, e := range w.dirty {
		if e.ready {
			return true
		}
	}
	return false
}

// take moves extents that may be sent now from dirty to sent.
func (w *leased) take() []*extent {
	var batch []*extent
	keep := w.dirty[:0]
	bytes := w.bytes
	for i, e := range w.dirty {
		if len(batch) >= sendBatch || w.flying+len(batch) >= maxFlying || bytes >= maxFlyingBytes {
			keep = append(keep, w.dirty[i:]...)
			w.more = true
			break
		}
		if !e.ready || w.collides(e) {
			w.more = w.more || e.ready
			keep = append(keep, e)
			continue
		}
		bytes += e.cost()
		batch = append(batch, e)
	}
	clear(w.dirty[len(keep):])
	w.dirty = keep
	for _, e := range batch {
		w.launch(e)
	}
	return batch
}

// collides says whether e must not overtake what is under way. Connections
// keep the order of what is sent to each replica directly; a chain does not
// keep order with that.
func (w *leased) collides(e *extent) bool {
	if w.flying == 0 {
		return false
	}
	for _, s := range w.sent {
		if s.waiting > 0 && s.overlaps(e.off, e.end()) && (s.chained || w.chains(e)) {
			return true
		}
	}
	return false
}

// chains says whether an extent travels down the chain of replicas.
func (w *leased) chains(e *extent) bool {
	return !e.zero && e.n > fanOutMax && len(w.loc.Replicas) > 1
}

// launch puts an extent into sent. Its bytes must not change any more.
func (w *leased) launch(e *extent) {
	e.chained = w.chains(e)
	w.sent = append(w.sent, e)
	w.heavy += int64(len(e.data))
	w.depart(e)
}

// depart counts an extent as under way.
func (w *leased) depart(e *extent) {
	e.acked, e.bad, e.durable = false, false, false
	e.waiting = 1
	if !e.chained {
		e.waiting = len(w.loc.Replicas)
	}
	w.flying++
	w.bytes += e.cost()
}

func (w *leased) trimming() bool {
	return slices.ContainsFunc(w.sent, func(e *extent) bool { return e.trim })
}

// sendTrim makes the bytes behind Valid zeros, before anything is written there.
func (w *leased) sendTrim() {
	e := w.trim()
	w.launch(e)
	w.sendAll([]*extent{e})
}

func (w *leased) trim() *extent {
	return &extent{off: w.loc.Valid, n: chunk.Size - w.loc.Valid, zero: true, trim: true, stamp: w.d.stamp, born: w.d.n.c.now()}
}

// getLease asks for the lease, and fails the chunk when there is none to be
// had. mu is held before and after.
func (w *leased) getLease() {
	d, n := w.d, w.d.n
	for n.making && !n.dead && n.await(n.c.ctx) == nil {
		// The answer brings the lease.
	}
	if w.held || n.dead || n.making {
		return
	}
	if d.widowed {
		n.remarry()
		return
	}
	req := &wire.Lease{Ino: n.ino, First: w.index, Count: 1}
	var reply wire.LeaseReply
	began := n.c.now()
	for wait := backoffMin; ; wait = min(2*wait, backoffMax) {
		losses := d.losses
		n.mu.Unlock()
		err := n.c.ses.do(n.c.ctx, req, &reply, nil)
		n.mu.Lock()
		if n.dead || losses != d.losses {
			return // if it was granted, it went with W
		}
		switch status.CodeOf(err) {
		case status.OK:
			if len(reply.Chunks) == 1 && reply.Chunks[0].Index == w.index && len(reply.Chunks[0].Replicas) > 0 {
				w.lease(reply.Chunks[0])
				if reply.Blocks > n.attr.Blocks { // made in a hole
					n.attr.Blocks = reply.Blocks
					n.tellAttr()
				}
				return
			}
			if n.c.now()-began > n.c.patience() {
				w.fail(status.Errorf(status.NoServers, "inode %d chunk %d: lease without a usable location", n.ino, w.index))
				return
			}
		case status.Closed:
			if n.c.ctx.Err() != nil {
				return
			}
		case status.Stale, status.NotFound:
			n.bury()
			return
		case status.NoLease:
			if w.trouble == 0 {
				w.trouble = n.c.now()
			} else if n.c.now()-w.trouble > int64(noLeaseFor) {
				w.fail(err)
				return
			}
			d.widow()
			d.widowed = true // or the inode is gone: remarry finds out
			n.mu.Unlock()
			n.c.sleep(n.c.ctx, wait)
			n.mu.Lock()
			return
		case status.NoServers, status.Again, status.Busy, status.Timeout:
			if n.c.now()-began > n.c.patience() {
				w.fail(err)
				return
			}
			n.c.log.Info("waiting for a write lease", "inode", uint64(n.ino), "chunk", w.index, "err", err)
		default:
			w.fail(err)
			return
		}
		n.mu.Unlock()
		n.c.sleep(n.c.ctx, wait)
		n.mu.Lock()
		if n.dead {
			return
		}
		req = &wire.Lease{Ino: n.ino, First: w.index, Count: 1}
	}
}
