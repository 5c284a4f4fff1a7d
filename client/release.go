package client

import (
	"context"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/wire"
)

const releaseEvery = 500 * time.Millisecond

// releaseLater has the master told that an inode is no longer open here. The
// node's mu is held.
func (c *Client) releaseLater(n *node) {
	c.laterMu.Lock()
	c.released[n.ino] = struct{}{}
	c.laterMu.Unlock()
}

// toLimbo is for an inode that has lost its last name and is not open here. It
// may be open in another mount, which then has to see what was written here; but
// mostly it is gone, and nothing should be sent for it. mu is held.
func (n *node) toLimbo() {
	if n.data == nil || !n.data.pending() {
		n.bury()
		return
	}
	n.limbo = true
	n.c.releaseLater(n)
}

// leaveLimbo asks whether an inode in limbo still exists: then its unwritten
// data is written as that of any closed file.
func (c *Client) leaveLimbo(n *node) {
	var reply wire.AttrReply
	err := c.ses.do(c.ctx, &wire.GetAttr{Ino: n.ino}, &reply, func(k *call, err error) {
		if err == nil {
			c.installAttr(k, n.ino, &reply)
		}
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.limbo = false
	if gone(err) {
		n.bury()
	}
}

// releaser sends what releaseLater has gathered, until the client is closed.
func (c *Client) releaser() {
	for c.sleep(c.ctx, releaseEvery) {
		c.releaseAll()
	}
}

// releaseAll tells the master of inodes that are no longer open. None of them is
// opened before the answer is here.
func (c *Client) releaseAll() {
	c.laterMu.Lock()
	list := c.released
	c.released = make(map[inode.Ino]struct{})
	c.laterMu.Unlock()
	req := &wire.Release{}
	var nodes []*node
	for ino := range list {
		n := c.table.get(ino)
		n.mu.Lock()
		ok := n.opens == 0 && n.removing == 0 && n.early == 0 && (c.now() >= n.linger || c.closing.Load())
		if ok {
			n.told, n.releasing = false, true
			req.Rights = append(req.Rights, wire.Held{Ino: ino, Open: true})
			nodes = append(nodes, n)
		} else if n.opens == 0 {
			c.releaseLater(n)
		}
		n.mu.Unlock()
		if !ok {
			n.unpin()
		}
	}
	for len(req.Rights) > 0 {
		part := &wire.Release{Rights: req.Rights[:min(len(req.Rights), maxHeld)]}
		req.Rights = req.Rights[len(part.Rights):]
		if err := c.ses.do(context.Background(), part, nil, nil); err != nil && c.ctx.Err() == nil {
			c.log.Warn("release of closed files", "files", len(part.Rights), "err", err)
		}
	}
	for _, n := range nodes {
		n.mu.Lock()
		n.releasing = false
		n.cond.Broadcast()
		limbo := n.limbo
		if n.orphan && n.opens == 0 && !limbo && !n.dead {
			n.bury()
		}
		n.mu.Unlock()
		if limbo {
			c.leaveLimbo(n)
		}
		n.unpin()
	}
}
