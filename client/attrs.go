package client

import (
	"bytes"
	"context"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// GetAttr returns the attributes of an inode.
func (c *Client) GetAttr(ctx context.Context, ino inode.Ino) (Node, error) {
	n := c.table.get(ino)
	defer n.unpin()
	n.mu.Lock()
	if n.known && n.can(inode.R) {
		out := Node{Attr: n.attr, AttrTTL: c.ttl()}
		n.mu.Unlock()
		c.met.attrHits.Inc()
		return out, nil
	}
	n.waiters++
	n.cond.Broadcast()
	n.mu.Unlock()
	c.met.attrMisses.Inc()
	var reply wire.AttrReply
	var out Node
	err := c.settle(ctx, n) // what was shown here must not be older now
	if err == nil {
		err = c.ses.do(ctx, &wire.GetAttr{Ino: ino}, &reply, func(k *call, err error) {
			if err == nil {
				out = c.installAttr(k, ino, &reply)
			}
		})
	}
	n.waited(err)
	if err != nil {
		return Node{}, err
	}
	return out, nil
}

// waited ends a request about n that a recall may have kept waiting.
func (n *node) waited(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiters--
	if status.CodeOf(err) == status.Stale {
		n.bury()
	}
}

// installAttr takes over an AttrReply, on the read goroutine.
func (c *Client) installAttr(k *call, ino inode.Ino, reply *wire.AttrReply) Node {
	n := c.table.get(ino)
	defer n.unpin()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.grant(k, reply.Rights, 0)
	out := n.seen(&reply.Attr)
	if reply.Attr.Kind == inode.Symlink && len(reply.Target) > 0 && n.can(inode.R) {
		n.target = reply.Target
	}
	return out
}

// SetAttr changes attributes; set.Ino and set.Once are filled in here.
func (c *Client) SetAttr(ctx context.Context, ino inode.Ino, set wire.SetAttr) (Node, error) {
	if c.cfg.ReadOnly {
		return Node{}, status.ReadOnly
	}
	set.Ino = ino
	if set.Valid&wire.SetSize != 0 && set.Size > inode.SizeMax {
		return Node{}, status.TooBig
	}
	n := c.table.get(ino)
	defer n.unpin()
	if out, ok := c.setEarly(n, &set); ok {
		return out, nil
	}
	if err := n.tell(ctx); err != nil {
		return Node{}, err
	}
	var out Node
	const entangled = wire.SetSize | wire.SetMtime | wire.SetMtimeNow
	n.mu.Lock()
	written := n.data != nil
	n.mu.Unlock()
	if set.Valid&wire.SetSize != 0 || written && set.Valid&entangled != 0 {
		if err := n.truncateTo(ctx, &set, &out); err != nil {
			return Node{}, err
		}
		return out, nil
	}
	n.mu.Lock()
	n.waiters++
	n.cond.Broadcast()
	n.mu.Unlock()
	var reply wire.AttrReply
	err := c.ses.do(ctx, &set, &reply, func(k *call, err error) {
		if err == nil {
			out = c.installAttr(k, ino, &reply)
		}
	})
	n.waited(err)
	if err != nil {
		return Node{}, err
	}
	return out, nil
}

// GetXattr returns the value of an extended attribute, or status.NoAttr.
func (c *Client) GetXattr(ctx context.Context, ino inode.Ino, name string) ([]byte, error) {
	if len(name) > inode.NameMax {
		return nil, status.NameTooLong
	}
	n := c.table.get(ino)
	defer n.unpin()
	n.mu.Lock()
	value, known := n.xattr(name)
	n.mu.Unlock()
	if known {
		if value == nil {
			return nil, status.NoAttr
		}
		return value, nil
	}
	var reply wire.BytesReply
	err := n.ask(ctx, &wire.GetXattr{Ino: ino, Name: name}, &reply, func(k *call, err error) {
		code := status.CodeOf(err)
		if code != status.OK && code != status.NoAttr {
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.grant(k, reply.Rights, 0)
		if !n.can(inode.R) || k.num < n.quarantine || !n.known {
			return
		}
		if n.xattrs == nil {
			n.xattrs = make(map[string][]byte)
		}
		if len(n.xattrs) >= maxXattrs {
			clear(n.xattrs)
		}
		n.xattrs[name] = nil
		if code == status.OK && len(reply.Bytes) <= maxXattrBytes {
			n.xattrs[name] = append([]byte{}, reply.Bytes...)
		} else if code == status.OK {
			delete(n.xattrs, name)
		}
	})
	if err != nil {
		return nil, err
	}
	return reply.Bytes, nil
}

// What is kept of extended attributes for one inode.
const (
	maxXattrs     = 16
	maxXattrBytes = 4 << 10
)

// xattr returns what is known of an attribute; a nil value: it does not exist. mu is held.
func (n *node) xattr(name string) (value []byte, known bool) {
	if !n.known || !n.can(inode.R) {
		return nil, false
	}
	switch {
	case n.attr.Flags&inode.HasXattr == 0,
		name == "security.capability" && n.attr.Flags&inode.HasCaps == 0,
		name == "system.posix_acl_access" && n.attr.Flags&inode.HasACL == 0,
		name == "system.posix_acl_default" && n.attr.Flags&inode.HasACL == 0:
		return nil, true
	}
	value, known = n.xattrs[name]
	return value, known
}

// SetXattr sets an extended attribute. flags are those of setxattr(2); kill
// clears sgid, as the kernel asks for with an access ACL.
func (c *Client) SetXattr(ctx context.Context, ino inode.Ino, name string, value []byte, flags uint32, kill bool) error {
	switch {
	case c.cfg.ReadOnly:
		return status.ReadOnly
	case len(name) > inode.NameMax:
		return status.NameTooLong
	case len(value) > inode.XattrMax:
		return status.AttrTooLarge
	}
	req := &wire.SetXattr{Ino: ino, Name: name, Value: bytes.Clone(value), Flags: flags, Kill: kill}
	return c.changeXattr(ctx, ino, name, req)
}

// RemoveXattr removes an extended attribute.
func (c *Client) RemoveXattr(ctx context.Context, ino inode.Ino, name string) error {
	switch {
	case c.cfg.ReadOnly:
		return status.ReadOnly
	case len(name) > inode.NameMax:
		return status.NameTooLong
	}
	return c.changeXattr(ctx, ino, name, &wire.RemoveXattr{Ino: ino, Name: name})
}

func (c *Client) changeXattr(ctx context.Context, ino inode.Ino, name string, req wire.Message) error {
	n := c.table.get(ino)
	defer n.unpin()
	if err := n.tell(ctx); err != nil {
		return err
	}
	n.mu.Lock()
	n.waiters++
	n.cond.Broadcast()
	n.mu.Unlock()
	var reply wire.AttrReply
	err := c.ses.do(ctx, req, &reply, func(k *call, err error) {
		n.mu.Lock()
		delete(n.xattrs, name)
		n.xnames, n.listed = nil, false
		n.mu.Unlock()
		if err == nil {
			c.installAttr(k, ino, &reply)
		}
	})
	n.waited(err)
	return err
}

// ListXattr returns the names of the extended attributes, each ended by a zero byte.
func (c *Client) ListXattr(ctx context.Context, ino inode.Ino) ([]byte, error) {
	n := c.table.get(ino)
	defer n.unpin()
	n.mu.Lock()
	if n.known && n.can(inode.R) && (n.listed || n.attr.Flags&inode.HasXattr == 0) {
		names := n.xnames
		n.mu.Unlock()
		return names, nil
	}
	n.mu.Unlock()
	var reply wire.BytesReply
	err := n.ask(ctx, &wire.ListXattr{Ino: ino}, &reply, func(k *call, err error) {
		if err != nil {
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.grant(k, reply.Rights, 0)
		if n.known && n.can(inode.R) && k.num >= n.quarantine && len(reply.Bytes) <= maxXattrBytes {
			n.xnames, n.listed = reply.Bytes, true
		}
	})
	if err != nil {
		return nil, err
	}
	return reply.Bytes, nil
}

// Readlink returns the target of a symbolic link.
func (c *Client) Readlink(ctx context.Context, ino inode.Ino) ([]byte, error) {
	n := c.table.get(ino)
	defer n.unpin()
	n.mu.Lock()
	if n.target != nil && n.can(inode.R) {
		target := n.target
		n.mu.Unlock()
		return target, nil
	}
	n.mu.Unlock()
	var reply wire.BytesReply
	err := n.ask(ctx, &wire.Readlink{Ino: ino}, &reply, func(k *call, err error) {
		if err != nil {
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.grant(k, reply.Rights, 0)
		if n.can(inode.R) && k.num >= n.quarantine {
			n.target = reply.Bytes
		}
	})
	if err != nil {
		return nil, err
	}
	return reply.Bytes, nil
}
