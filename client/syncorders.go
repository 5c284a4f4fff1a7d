package client

import (
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// syncOrders gathers the chunks that each chunkserver is to make durable.
type syncOrders struct {
	c      *Client
	list   []*syncOrder
	byConn map[*link.Conn]int
}

// syncOrder is one Sync on one connection: the one on which the writes were
// accepted, since a server that was restarted knows nothing of them.
type syncOrder struct {
	conn *link.Conn
	to   wire.Replica
	ids  []chunk.ID
	err  error              // of the order as a whole
	each map[chunk.ID]error // when the chunks were asked for one by one
}

// result is what came of one chunk.
func (o *syncOrder) result(id chunk.ID) error {
	if o.each != nil {
		return o.each[id]
	}
	return o.err
}

func newSyncOrders(c *Client) *syncOrders {
	return &syncOrders{c: c, byConn: make(map[*link.Conn]int)}
}

// add returns the index of the order in list. conn may be nil: it fails.
func (s *syncOrders) add(conn *link.Conn, to wire.Replica, id chunk.ID) int {
	i, ok := s.byConn[conn]
	if !ok || conn == nil {
		i = len(s.list)
		s.list = append(s.list, &syncOrder{conn: conn, to: to})
		s.byConn[conn] = i
	}
	s.list[i].ids = append(s.list[i].ids, id)
	return i
}

// run sends all orders and waits for the answers. A server that lacks one chunk
// refuses the whole order: then it is asked for each alone, so that a file that
// was removed meanwhile throws no suspicion on the copies of others.
func (s *syncOrders) run() {
	s.ask(s.list)
	for _, o := range s.list {
		if len(o.ids) < 2 || status.CodeOf(o.err) != status.NoChunk {
			continue
		}
		single := make([]*syncOrder, len(o.ids))
		for i, id := range o.ids {
			single[i] = &syncOrder{conn: o.conn, to: o.to, ids: []chunk.ID{id}}
		}
		s.ask(single)
		o.each = make(map[chunk.ID]error, len(o.ids))
		for i, id := range o.ids {
			o.each[id] = single[i].err
		}
	}
}

// ask sends orders and waits for the answers.
func (s *syncOrders) ask(list []*syncOrder) {
	done := make(chan struct{}, len(list))
	wait := 0
	for _, o := range list {
		if o.conn == nil {
			o.err = status.Errorf(status.Closed, "chunkserver %s", o.to.Addr)
			continue
		}
		s.c.met.syncs.Inc()
		wait++
		o.conn.Start(&wire.Sync{Chunks: o.ids}, nil, func(r *link.Reply) {
			o.err = r.Err
			r.Free()
			done <- struct{}{}
		})
	}
	for range wait {
		<-done // the end of a connection ends its orders
	}
}
