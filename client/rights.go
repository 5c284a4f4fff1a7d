package client

import (
	"context"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// grant notes the rights that a reply to call k brought. Only recalls and this
// client itself take rights away, so that a reply can but add; and W is added
// only by calls that asked for it. mu is held; it runs on the read goroutine.
func (n *node) grant(k *call, r inode.Rights, asked inode.Rights) {
	r &= inode.R | inode.D | asked
	r &^= n.recalled
	if k.num < n.quarantine {
		r = 0
	}
	n.rights |= r
	if r&(inode.W|inode.D) == inode.W|inode.D {
		n.c.early.watch(n)
	}
}

// learn takes over attributes that the master sent. mu is held.
func (n *node) learn(a *inode.Attr) {
	if !n.can(inode.R) || n.known && (a.Gen < n.attr.Gen || n.early > 0) {
		return
	}
	n.known = true
	local := n.attr
	n.attr = *a
	if d := n.data; d == nil {
	} else if !d.changed && !d.committing && d.sets == 0 {
		d.baseSize, d.baseTime = a.Size, a.Mtime
	} else {
		n.attr.Size, n.attr.Mtime = local.Size, local.Mtime
		n.attr.Ctime = max(local.Ctime, a.Ctime)
		n.attr.Blocks = max(local.Blocks, a.Blocks)
		if d.kill {
			n.attr.Mode, n.attr.Flags = local.Mode, local.Flags
		}
		d.keepSets(&n.attr, &local)
	}
	n.orphan = a.Nlink == 0
}

// seen merges attributes of a reply and returns what to answer: the local
// view, when there is one. mu is held.
func (n *node) seen(a *inode.Attr) Node {
	if n.dead && n.opens == 0 && a.Nlink > 0 {
		n.dead = false // it has got a name again
	}
	n.learn(a)
	if n.known && n.can(inode.R) {
		return Node{Attr: n.attr, AttrTTL: n.c.ttl()}
	}
	return Node{Attr: *a}
}

// ttl is how long the kernel may rely on what a right backs now.
func (c *Client) ttl() time.Duration { return max(0, c.ses.left()-c.ses.left()/8) }

// enter waits until right r (R or W) is held and returns with mu held and one
// use of the right counted. A recall waits for leave.
func (n *node) enter(ctx context.Context, r inode.Rights) error {
	n.mu.Lock()
	for {
		var err error
		switch {
		case n.dead:
			err = status.Errorf(status.Stale, "inode %d", n.ino)
		case n.frozen || r == inode.W && n.data != nil && n.data.sealed:
			n.waiters++
			n.cond.Broadcast()
			err = n.await(ctx)
			n.waiters--
		case n.can(r) && n.known:
			n.use(r, 1)
			return nil
		case n.recalled&r != 0 || n.asking&r != 0:
			n.waiters++
			n.cond.Broadcast()
			err = n.await(ctx)
			n.waiters--
		default:
			var got bool
			if got, err = n.acquire(ctx, r); got {
				return nil
			}
		}
		if err != nil {
			n.mu.Unlock()
			return err
		}
	}
}

// leave ends a use of enter. mu is held.
func (n *node) leave(r inode.Rights) {
	n.use(r, -1)
	n.cond.Broadcast()
}

func (n *node) use(r inode.Rights, d int) {
	if r == inode.W {
		n.writers += d
	} else {
		n.readers += d
	}
}

// acquire asks the master for r. When it is granted, the use is counted before
// a recall that follows at once can take it away again, so that mounts that
// fight for a file all get on. mu is held before and after.
func (n *node) acquire(ctx context.Context, r inode.Rights) (got bool, err error) {
	n.asking |= r
	n.waiters++
	n.cond.Broadcast()
	n.mu.Unlock()
	var reply wire.AttrReply
	err = n.ask(ctx, &wire.Acquire{Ino: n.ino, Rights: r}, &reply, func(k *call, err error) {
		if err != nil {
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.grant(k, reply.Rights, r)
		n.learn(&reply.Attr)
		if n.can(r) && n.known && !n.frozen && !n.dead && !k.abandoned() {
			n.use(r, 1)
			got = true
		}
	})
	if err == nil && !got {
		n.c.sleep(ctx, 2*time.Millisecond) // it raced with a recall
	}
	n.mu.Lock()
	n.asking &^= r
	n.waiters--
	n.cond.Broadcast()
	if status.CodeOf(err) == status.Stale || status.CodeOf(err) == status.NotFound {
		n.bury()
	}
	return got, err
}

// bury notes that the inode exists no more. mu is held.
func (n *node) bury() {
	n.dead = true
	n.rights, n.known = 0, false
	n.xattrs, n.xnames, n.listed = nil, nil, false
	if n.dir != nil {
		n.dir.void(n)
	}
	if n.data != nil {
		n.data.discard()
	}
	n.cond.Broadcast()
}

// confirm keeps of the rights only those in r, after a new connection was made.
// It tells whether any were lost.
func (n *node) confirm(r inode.Rights) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.making {
		return false // the answer to its Make will say
	}
	gone := n.rights &^ r
	n.rights &= r
	if gone == 0 {
		return false
	}
	if gone&inode.W != 0 && n.data != nil {
		n.data.widow()
	}
	if n.rights&(inode.R|inode.W) == 0 {
		n.dropR()
	}
	if gone&inode.D != 0 && n.dir != nil {
		n.dir.void(n)
	}
	n.cond.Broadcast()
	return true
}

// dropR forgets all that only R made good. mu is held.
func (n *node) dropR() {
	n.known, n.keep = false, false
	n.target, n.xattrs, n.xnames, n.listed = nil, nil, nil, false
	if n.data != nil {
		n.data.forgetLayout()
		n.forgetCached()
	}
}
