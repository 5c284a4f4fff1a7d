package master

import (
	"time"

	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// request is one call of a mount or tool on its way through the loop.
type request struct {
	r     *link.Request
	conn  *link.Conn
	s     *session // nil before SessionOpen, and for tools
	start time.Time
	over  bool
	// patience is when to give up waiting for chunkservers; zero: it has not waited.
	patience time.Time
	// again serves the request from the start, when what it waited for has come.
	again func()
}

// desk says how one kind of request is decoded (on the connection's read
// goroutine) and served (on the loop, which sees it when the inbox is rung: by the
// desks' Pause).
type desk func(in *inbox, c *link.Conn, r *link.Request)

// serve makes a desk of a function of the loop.
func serve[M any, P interface {
	*M
	wire.Message
}](f func(*loop, *request, P)) desk {
	return func(in *inbox, c *link.Conn, r *link.Request) {
		q := &request{r: r, conn: c, start: time.Now()}
		m := new(M)
		err := r.Decode(P(m))
		r.Free()
		if err != nil {
			r.Fail(err)
			return
		}
		if !in.put(func(l *loop) {
			q.again = func() {
				if q.s != nil && q.s.state >= sessionClosing {
					l.refuse(q, status.Errorf(status.Stale, "session %d has ended", q.s.id))
					return
				}
				f(l, q, m)
			}
			l.enter(q, P(m))
		}) {
			r.Fail(status.Errorf(status.Closed, "the master stops"))
		}
	}
}

// reply answers and counts.
func (l *loop) reply(q *request, m wire.Message) {
	if q.over {
		panic("BUG: a request is answered twice")
	}
	q.over = true
	l.send(func() {
		q.r.Lazy = l.hurry
		q.r.Reply(m, nil, nil)
		l.met.served(q.r.Kind, q.start)
	})
}

// refuse answers with an error and counts.
func (l *loop) refuse(q *request, err error) {
	if q.over {
		return // the request was sent again and this one given up
	}
	q.over = true
	l.send(func() {
		q.r.Lazy = l.hurry
		q.r.Fail(err)
		l.met.refused(q.r.Kind, status.CodeOf(err), q.start)
	})
}
