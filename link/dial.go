package link

import (
	"context"
	"net"
	"time"

	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// Dial connects to addr ("tcp" or "unix"), proves the key and returns a
// connection at work. h serves the other side's calls and may be nil. ctx
// bounds connecting and handshake only.
func Dial(ctx context.Context, network, addr string, cfg Config, h Handler) (*Conn, error) {
	cfg = cfg.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, cfg.HandshakeTimeout)
	defer cancel()
	d := net.Dialer{KeepAlive: -1} // the connection beats itself
	nc, err := d.DialContext(ctx, network, addr)
	if err != nil {
		code := status.Closed
		if ctx.Err() != nil {
			code = status.Timeout
		}
		return nil, status.Errorf(code, "%v", err)
	}
	deadline, _ := ctx.Deadline()
	nc.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	g := newGreeter(nc)
	err = g.greetServer(&cfg)
	if !stop() && err == nil {
		err = ctx.Err() // the deadline may be set just now
	}
	if err != nil {
		nc.Close()
		return nil, handshakeError(addr, err)
	}
	nc.SetDeadline(time.Time{})
	g.rd.maxBody = wire.MaxBody
	c := newConn(nc, g.rd, &cfg, newCounters(cfg.Metrics), h)
	c.role = cfg.Want
	c.start()
	return c, nil
}
