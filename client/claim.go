package client

import (
	"context"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/wire"
)

// claimAgain is for how long, in ns, W is not asked for again when others were in the way.
const claimAgain = 1e9

// claim asks for W on a directory when a known name in it is about to be changed, so that the first
// change can be early like those behind it. W costs one question; a change that is not early waits
// until the master has synced its changelog. This is for whoever goes through a tree that was only looked at
// before. If W does not come, or the question fails, the change is the master's to answer.
func (c *Client) claim(ctx context.Context, p *node, name string) {
	if !p.claimable(name) || !c.early.ready() {
		return
	}
	var reply wire.AttrReply
	_ = p.ask(ctx, &wire.Acquire{Ino: p.ino, Rights: inode.R | inode.D | inode.W}, &reply, func(k *call, err error) {
		if err != nil {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.grant(k, reply.Rights, inode.W)
		p.learn(&reply.Attr)
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.can(inode.W) {
		p.dir.refused = c.now() + claimAgain
	}
}

// claimable says whether W is what a change of a name lacks to be made early.
func (n *node) claimable(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dir == nil || n.can(inode.W) || !n.can(inode.R|inode.D) || !n.known || n.dead || n.orphan {
		return false
	}
	now := n.c.now()
	_, known := n.dir.look(n, name)
	return known && name != "" && n.recalled == 0 && now >= n.dir.refused && now >= n.dir.hot
}
