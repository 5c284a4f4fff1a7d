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

// releaser sends what releaseLater has gathered, until the client is closed.
func (c *Client) releaser() {
	for c.sleep(c.ctx, releaseEvery) {
		c.releaseAll()
	}
}

// releaseAll tells the master of inodes that are no longer open. No answer to a
// recall that says that one is open leaves while that is on its way.
func (c *Client) releaseAll() {
	c.laterMu.Lock()
	list := c.released
	if len(list) == 0 {
		c.laterMu.Unlock()
		return
	}
	c.released = make(map[inode.Ino]struct{})
	c.laterMu.Unlock()

	c.release.Lock()
	defer c.release.Unlock()
	req := &wire.Release{}
	for ino := range list {
		n := c.table.get(ino)
		n.mu.Lock()
		if n.opens == 0 && n.removing == 0 {
			n.told = false
			req.Rights = append(req.Rights, wire.Held{Ino: ino, Open: true})
		}
		n.mu.Unlock()
		n.unpin()
		if len(req.Rights) == maxHeld {
			break
		}
	}
	if len(req.Rights) == 0 {
		return
	}
	if err := c.ses.do(context.Background(), req, nil, nil); err != nil && c.ctx.Err() == nil {
		c.log.Warn("release of closed files", "files", len(req.Rights), "err", err)
	}
}
