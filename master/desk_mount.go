package master

import (
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// mountDesk serves the connections of mounts. Its methods run on the
// connections' read goroutines.
type mountDesk struct{ in *inbox }

// mountDesks has what a mount may ask.
var mountDesks = map[wire.Kind]desk{
	wire.KindSessionOpen:  serve((*loop).sessionOpen),
	wire.KindSessionClose: serve((*loop).sessionClose),
	wire.KindPing:         serve((*loop).ping),
	wire.KindLookup:       serve((*loop).lookup),
	wire.KindGetAttr:      serve((*loop).getAttr),
	wire.KindSetAttr:      serve((*loop).setAttr),
	wire.KindMake:         serve((*loop).makeInode),
	wire.KindRemove:       serve((*loop).remove),
	wire.KindRename:       serve((*loop).rename),
	wire.KindLink:         serve((*loop).link),
	wire.KindReadlink:     serve((*loop).readlink),
	wire.KindReadDir:      serve((*loop).readDir),
	wire.KindGetXattr:     serve((*loop).getXattr),
	wire.KindSetXattr:     serve((*loop).setXattr),
	wire.KindRemoveXattr:  serve((*loop).removeXattr),
	wire.KindListXattr:    serve((*loop).listXattr),
	wire.KindAcquire:      serve((*loop).acquire),
	wire.KindRelease:      serve((*loop).release),
	wire.KindReserve:      serve((*loop).reserve),
	wire.KindLease:        serve((*loop).lease),
	wire.KindLeaseFail:    serve((*loop).leaseFail),
	wire.KindCommit:       serve((*loop).commit),
	wire.KindLayout:       serve((*loop).layout),
	wire.KindLock:         serve((*loop).lock),
	wire.KindLockCancel:   serve((*loop).lockCancel),
	wire.KindStatFS:       serve((*loop).statFS),
	wire.KindWho:          serve((*loop).who),
}

// Serve decodes a request and hands it to the loop.
func (d *mountDesk) Serve(c *link.Conn, r *link.Request) { dispatch(mountDesks, d.in, c, r) }

// Pause has the loop serve what has come.
func (d *mountDesk) Pause(*link.Conn) { d.in.ring() }

// Opened does nothing: a mount begins with SessionOpen.
func (d *mountDesk) Opened(*link.Conn) {}

// Closed tells the loop that a mount's connection has ended.
func (d *mountDesk) Closed(c *link.Conn, _ error) { d.in.post(func(l *loop) { l.detach(c) }) }

// dispatch finds the desk for a request.
func dispatch(desks map[wire.Kind]desk, in *inbox, c *link.Conn, r *link.Request) {
	serve, ok := desks[r.Kind]
	if !ok || r.Notice {
		r.Free()
		r.Fail(status.Errorf(status.Unsupported, "request of kind %#x", uint16(r.Kind)))
		return
	}
	serve(in, c, r)
}

func (l *loop) ping(q *request, _ *wire.Ping) { l.reply(q, &wire.Empty{}) }

// attr gives the attributes of an inode for a reply. One that is gone has
// nothing but its number: only the answer to a repeated request names such.
func (l *loop) attr(ino inode.Ino) inode.Attr {
	a, ok := l.st.Attr(ino)
	if !ok {
		a.Ino = ino
	}
	return a
}

// settled makes sure that no other mount has changes of ino which the master
// does not know. If one may have, q is served again when it has told them.
func (l *loop) settled(q *request, inos ...inode.Ino) bool {
	w := &waiter{run: q.again}
	for _, ino := range inos {
		if l.rights.others(ino, q.s)&inode.W != 0 {
			l.recallAll(w, q.s, ino, inode.W)
		}
	}
	return w.left == 0
}

// change makes a changing request of q's mount. The request to answer is the
// change's, not q: it may have been sent again.
func (l *loop) change(q *request, once wire.Once) *change {
	c := &change{q: q, s: q.s, once: once}
	c.fail = func(err error) { l.refuse(c.q, err) }
	return c
}
