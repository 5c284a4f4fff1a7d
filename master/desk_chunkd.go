package master

import (
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/wire"
)

// chunkdDesk serves the connections of chunkservers.
type chunkdDesk struct{ in *inbox }

var chunkdDesks = map[wire.Kind]desk{
	wire.KindRegister: serve((*loop).register),
	wire.KindReport:   serve((*loop).report),
	wire.KindBeat:     serve((*loop).beat),
	wire.KindTrouble:  serve((*loop).trouble),
}

// Serve decodes a request and hands it to the loop.
func (d *chunkdDesk) Serve(c *link.Conn, r *link.Request) { dispatch(chunkdDesks, d.in, c, r) }

// Pause has the loop serve what has come.
func (d *chunkdDesk) Pause(*link.Conn) { d.in.ring() }

// Opened does nothing: a chunkserver begins with Register.
func (d *chunkdDesk) Opened(*link.Conn) {}

// Closed tells the loop that a chunkserver's connection has ended.
func (d *chunkdDesk) Closed(c *link.Conn, _ error) { d.in.post(func(l *loop) { l.serverGone(c) }) }
