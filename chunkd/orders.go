package chunkd

import (
	"context"
	"fmt"
	"sync"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/segment"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// order is what all orders of a master have: the epoch in which it was given.
type order struct {
	msg   wire.Message
	epoch *uint64
	lane  *lane
	do    func(ctx context.Context) (wire.Message, error)
}

// orderBook holds the orders of one connection. When the connection is over
// those that have not begun are dropped and the others awaited: a Delete that
// came late could otherwise hit a copy that the next registration reports.
type orderBook struct {
	ctx    context.Context // ends with the connection
	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup
}

// add counts an order; false: the connection is over.
func (b *orderBook) add() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.work.Add(1)
	}
	return !b.closed
}

// close waits until no order of the connection is in work. ctx must have ended.
func (b *orderBook) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.work.Wait()
}

// serveOrder handles a master's request, on the agent's connection.
func (s *Server) serveOrder(a *agent, b *orderBook, c *link.Conn, r *link.Request) {
	if !s.enter(r) {
		return
	}
	o, err := s.orderOf(a, c, r.Kind)
	if err == nil {
		err = r.Decode(o.msg)
	}
	r.Free()
	if err != nil {
		s.refuse(r, err)
		return
	}
	if !b.add() {
		s.refuse(r, status.Closed)
		return
	}
	o.lane.run(func() {
		defer b.work.Done()
		err := b.ctx.Err()
		if err == nil {
			err = s.fence.admit(*o.epoch)
		}
		var reply wire.Message
		if err == nil {
			reply, err = o.do(b.ctx)
		}
		if err != nil {
			s.log.Warn("order failed", "order", fmt.Sprintf("%T", o.msg), "master", addrOf(c), "err", err)
			s.refuse(r, err)
			return
		}
		r.Reply(reply, nil, nil)
		s.leave()
	})
}

func (s *Server) orderOf(a *agent, c *link.Conn, k wire.Kind) (order, error) {
	switch k {
	case wire.KindLead:
		m := new(wire.Lead)
		return order{m, &m.Epoch, &s.orders, func(ctx context.Context) (wire.Message, error) { return nil, a.pass(ctx, c) }}, nil
	case wire.KindDelete:
		m := new(wire.Delete)
		return order{m, &m.Epoch, &s.orders, func(context.Context) (wire.Message, error) { return nil, s.remove(m.Copies) }}, nil
	case wire.KindSetVersion:
		m := new(wire.SetVersion)
		return order{m, &m.Epoch, &s.orders, func(context.Context) (wire.Message, error) { return nil, s.setVersion(m) }}, nil
	case wire.KindReplicate:
		m := new(wire.Replicate)
		return order{m, &m.Epoch, &s.copies, func(ctx context.Context) (wire.Message, error) { return nil, s.replicate(ctx, m) }}, nil
	case wire.KindDigest:
		m := new(wire.Digest)
		return order{m, &m.Epoch, &s.copies, func(ctx context.Context) (wire.Message, error) {
			reply, err := s.digest(ctx, m.Chunk)
			if err != nil {
				return nil, err
			}
			return reply, nil
		}}, nil
	}
	return order{}, status.Errorf(status.Unsupported, "order of kind %#x", uint16(k))
}

// remove deletes copies whose version is at most the one in the list. A copy
// that is not there, or is newer, is left alone: that is no error.
func (s *Server) remove(copies []wire.Copy) error {
	var first error
	byDisk := make(map[*disk][]chunk.ID)
	begun := make([]chunk.ID, 0, len(copies))
	for _, k := range copies {
		var d *disk
		err := s.fence.begin(k.Chunk, func() (err error) {
			var info segment.Info
			if d, info, err = s.shelf.find(k.Chunk); err == nil && info.Version > k.Version {
				err = status.StaleVersion
			}
			return err
		})
		switch status.CodeOf(err) {
		case status.OK:
			begun = append(begun, k.Chunk)
			byDisk[d] = append(byDisk[d], k.Chunk)
		case status.NoChunk, status.StaleVersion:
		default:
			first = cmpErr(first, err)
		}
	}
	err := eachDisk(byDisk, func(d *disk, ids []chunk.ID) error { return d.check(d.store.Delete(ids)) })
	if err == nil && len(begun) > 0 {
		s.removed(begun)
	}
	for _, id := range begun {
		if err == nil {
			s.renewed(id)
		}
		s.fence.end(id)
	}
	return cmpErr(first, err)
}

// setVersion raises a copy's version. A copy that has it already is a repeated order.
func (s *Server) setVersion(m *wire.SetVersion) error {
	if m.Min > m.Max || m.Version < m.Max {
		return status.Errorf(status.BadMessage, "chunk %v: version %v..%v to %v", m.Chunk, m.Min, m.Max, m.Version)
	}
	var d *disk
	var have chunk.Version
	err := s.fence.begin(m.Chunk, func() (err error) {
		var info segment.Info
		if d, info, err = s.shelf.find(m.Chunk); err != nil {
			return err
		}
		if have = info.Version; have != m.Version && (have < m.Min || have > m.Max) {
			return status.Errorf(status.StaleVersion, "chunk %v: version %v here, %v..%v asked for", m.Chunk, have, m.Min, m.Max)
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer s.fence.end(m.Chunk)
	if have == m.Version {
		return d.check(d.store.Sync([]chunk.ID{m.Chunk}))
	}
	if err := d.store.SetVersion(m.Chunk, m.Version); err != nil {
		return d.check(err)
	}
	s.fence.forget(m.Chunk)
	s.raised(m.Chunk)
	return nil
}

func addrOf(c *link.Conn) string {
	_, addr := c.Peer()
	return addr
}
