package client

import (
	"context"
	"time"
)

const (
	tick        = 100 * time.Millisecond
	closedDelay = 200e6   // ns from the close of a file to its Commit, so that many go together
	weakDelay   = 300e6   // ns until accepted data is made durable
	heavyBytes  = 8 << 20 // accepted bytes of a chunk that are made durable at once
	batchFiles  = 1024    // of one Commit
	batches     = 4       // in work at a time
	freshKept   = 10e9    // ns for which a closed empty file keeps the lease it was made with
	freshMost   = 8192    // nodes in the background above which it does not
	restDelay   = 1e9     // ns for which such a file is not looked at
)

// queue puts a node among those with something to do in the background. mu of
// the node is held and the node pinned.
func (c *Client) queue(n *node) {
	d := n.data
	if d.queued && !d.resting {
		return
	}
	if !d.queued {
		d.queued = true
		n.pin()
	}
	d.resting = false
	c.taskMu.Lock()
	c.tasks[n] = 0
	c.taskMu.Unlock()
}

// rest lets the sweeps pass a node by for a moment, unless it changes. mu of the
// node is held.
func (c *Client) rest(n *node) {
	n.data.resting = true
	c.taskMu.Lock()
	c.tasks[n] = c.now() + restDelay
	c.taskMu.Unlock()
}

// background looks after unwritten data until the client is closed.
func (c *Client) background() {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		pressed := false
		select {
		case <-c.ctx.Done():
			return
		case <-t.C:
			pressed = c.budget.inUse() > c.budget.limit/2
		case <-c.budget.pressure:
			pressed = true
		}
		c.sweep(pressed)
		c.space.look(c)
		if pressed {
			// Pressure is noticed again by the next writer; in between the
			// replicas need a moment.
			c.sleep(c.ctx, 2*time.Millisecond)
		}
	}
}

// sweep looks once at every node with something to do that does not rest.
func (c *Client) sweep(pressed bool) {
	c.taskMu.Lock()
	crowded, now := len(c.tasks) > freshMost, c.now()
	list := make([]*node, 0, len(c.tasks))
	for n, due := range c.tasks {
		if due <= now || pressed || crowded {
			list = append(list, n)
		}
	}
	c.taskMu.Unlock()
	var weak, idle []*node
	for _, n := range list {
		n.mu.Lock()
		if !n.data.queued { // another sweep was here
			n.mu.Unlock()
			continue
		}
		switch n.look(pressed, crowded) {
		case needRest:
			c.rest(n)
		case needNothing:
			n.data.queued = false
			c.taskMu.Lock()
			delete(c.tasks, n)
			c.taskMu.Unlock()
			n.unpin()
		case needDurable:
			n.data.hardening = true
			weak = append(weak, n)
		case needCommit:
			n.data.committing = true
			idle = append(idle, n)
		case needOwn, needRemarry:
			n.data.committing = true
			c.alone(n)
		}
		n.mu.Unlock()
	}
	if len(weak) > 0 {
		c.spawn(func() { c.hardenBatch(weak) })
	}
	for len(idle) > 0 {
		k := min(len(idle), batchFiles)
		batch := idle[:k]
		idle = idle[k:]
		if !c.spawn(func() { c.commitBatch(batch) }) {
			return
		}
	}
}

// need is what a node wants from the background.
type need uint8

const (
	needTime    need = iota
	needRest         // for a moment, unless it changes
	needNothing      // any more
	needDurable      // much was accepted, or long ago
	needCommit       // it is durable and can be committed together with others
	needOwn          // it is written all the time and must be committed all the same
	needRemarry      // W was lost
)

// look sends what is old and says what else the node needs. mu is held.
func (n *node) look(pressed, crowded bool) need {
	d, now := n.data, n.c.now()
	if n.dead {
		d.discard()
		if len(d.chunks) == 0 && !d.committing && !d.hardening {
			return needNothing
		}
		return needTime
	}
	if !d.pending() && !d.hardening {
		return needNothing
	}
	if d.committing || d.hardening || n.making {
		return needTime
	}
	if d.widowed {
		return needRemarry
	}
	if n.limbo && !pressed && !n.c.closing.Load() {
		return needTime // it is most likely gone
	}
	age := int64(n.c.cfg.MaxDirty) * 3 / 4
	weak, settled := d.age(now, age, pressed)
	if weak {
		return needDurable
	}
	if n.frozen || !n.holdsW() {
		return needTime
	}
	old := (d.changed || d.sets != 0) && now-d.since > age
	if n.closed() && n.recalls == 0 {
		if settled && now-d.closed > closedDelay {
			if crowded || !n.expectant(now) {
				return needCommit
			}
			return needRest
		}
	} else if settled && (old || d.leaseIdle(now)) {
		return needCommit
	}
	if old && now-d.since > 2*int64(n.c.cfg.MaxDirty) {
		return needOwn
	}
	return needTime
}

// expectant says whether the file was made a moment ago and not written: many
// programs make a file and fill it later, and the lease they will need is here.
// mu is held.
func (n *node) expectant(now int64) bool {
	d := n.data
	if d.changed || d.kill || d.sets != 0 || n.c.closing.Load() || len(d.chunks) == 0 || now-d.closed > freshKept {
		return false
	}
	for _, w := range d.chunks {
		if !w.held || w.touched || !w.idle() {
			return false
		}
	}
	return true
}

// closed says whether nobody writes to the file any more. mu is held.
func (n *node) closed() bool {
	return (n.opens == 0 || n.c.closing.Load()) && n.writers == 0
}

// age makes old unwritten data ready and tells whether data waits to be made
// durable for too long (weak), or nothing is left to be sent at all (settled).
func (d *fileData) age(now, age int64, pressed bool) (weak, settled bool) {
	settled = true
	for _, w := range d.chunks {
		start := false
		for _, e := range w.dirty {
			if !e.ready && (pressed || now-e.born > age) {
				e.ready = true
			}
			start = start || e.ready
		}
		if start || w.again || len(w.broken) > 0 {
			w.kick()
		}
		settled = settled && len(w.dirty) == 0 && w.flying == 0 && !w.again
		if len(w.sent) > 0 && w.flying < len(w.sent) {
			if pressed || w.heavy > heavyBytes || now-w.sent[0].born > age+weakDelay {
				weak = true
			}
		}
		if !w.held && w.idle() {
			delete(d.chunks, w.index)
		}
	}
	return weak, settled
}

// leaseIdle says whether a lease can be given back though the file is open.
func (d *fileData) leaseIdle(now int64) bool {
	for _, w := range d.chunks {
		if w.idle() && now-w.used > leaseIdle {
			return true
		}
	}
	return false
}

// hardenBatch makes accepted data durable.
func (c *Client) hardenBatch(nodes []*node) {
	c.harden(nodes)
	for _, n := range nodes {
		n.mu.Lock()
		n.data.hardening = false
		n.cond.Broadcast()
		n.mu.Unlock()
	}
}

// commitBatch commits nodes that sweep has claimed. Those that are not durable
// in spite of a try are left for the next round.
func (c *Client) commitBatch(nodes []*node) {
	c.batches <- struct{}{}
	defer func() { <-c.batches }()
	c.harden(nodes)
	ready := nodes[:0:0]
	for _, n := range nodes {
		n.mu.Lock()
		if n.data.durable(n.data.stamp) {
			ready = append(ready, n)
		} else {
			n.unclaim()
		}
		n.mu.Unlock()
	}
	c.commit(c.ctx, ready, commitIdle)
}

// alone commits one node that is never at rest, or asks for its lost W. The
// caller has claimed it.
func (c *Client) alone(n *node) {
	n.pin()
	ok := c.spawn(func() {
		defer n.unpin()
		n.mu.Lock()
		if n.data.widowed {
			n.remarry()
			n.unclaim()
			n.mu.Unlock()
			return
		}
		err := n.flushDurable(c.ctx)
		if err != nil || n.dead {
			n.unclaim()
			n.mu.Unlock()
			return
		}
		n.mu.Unlock()
		c.commit(c.ctx, []*node{n}, commitSize)
	})
	if !ok {
		n.unclaim()
		n.unpin()
	}
}

// quiesce writes and commits everything, for Close.
func (c *Client) quiesce(ctx context.Context) error {
	var first error
	failed := c.met.lost.Get()
	if err := c.early.drain(ctx); err != nil {
		return err
	}
	for {
		c.taskMu.Lock()
		var n *node
		for n = range c.tasks {
			break
		}
		busy := len(c.tasks)
		c.taskMu.Unlock()
		if busy == 0 {
			return first
		}
		n.mu.Lock()
		err := n.flush(ctx)
		n.data.closed = 0
		if err == nil && c.met.lost.Get() != failed {
			err = n.data.err // what failed before was for Sync and Flush to tell
		}
		n.mu.Unlock()
		if err != nil && first == nil {
			first = err
		}
		if ctx.Err() != nil {
			return ctxError(ctx)
		}
		c.sweep(true)
		c.sleep(ctx, 2*time.Millisecond)
	}
}
