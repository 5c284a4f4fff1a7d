package client

import (
	"context"
	"errors"

	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// StatFS returns the space of the whole file system.
func (c *Client) StatFS(ctx context.Context) (wire.StatFSReply, error) {
	var reply wire.StatFSReply
	if err := c.ses.do(ctx, &wire.StatFS{}, &reply, nil); err != nil {
		return wire.StatFSReply{}, err
	}
	return reply, nil
}

// Lock sets, frees or tests an advisory lock. When ctx is over while it waits,
// the request is withdrawn and the error is status.Interrupted, unless the
// lock was had just then.
func (c *Client) Lock(ctx context.Context, l wire.Lock) (wire.LockReply, error) {
	if n := c.table.find(l.Ino); n != nil {
		err := c.settle(ctx, n)
		n.unpin()
		if err != nil {
			return wire.LockReply{}, err
		}
	}
	var reply wire.LockReply
	note := func(_ *call, err error) {
		if err == nil && !l.Test {
			c.lockbook.note(&l)
		}
	}
	if !l.Wait {
		if err := c.ses.do(ctx, &l, &reply, note); err != nil {
			return wire.LockReply{}, err
		}
		return reply, nil
	}
	l.Token = c.locks.Add(1)
	done := make(chan error, 1)
	if !c.spawn(func() { done <- c.ses.do(c.ctx, &l, &reply, note) }) {
		return reply, c.closedError()
	}
	Waits(ctx)
	select {
	case err := <-done:
		return reply, err
	case <-ctx.Done():
	}
	if err := c.ses.do(c.ctx, &wire.LockCancel{Token: l.Token}, nil, nil); err != nil && !errors.Is(err, status.NotFound) {
		c.log.Warn("withdraw a waiting lock", "inode", uint64(l.Ino), "err", err)
	}
	err := <-done
	return reply, err
}
