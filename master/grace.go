package master

import (
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/wire"
)

// Rights are not in the changelog. A master that begins to lead therefore waits
// until every session that the changelog knows has come back and said what it
// holds, or until its lease has run out, before it does anything that might be
// in a mount's way. Requests that cannot be wait in graceQueue.

// inGrace tells whether some mount has not been heard of yet.
func (l *loop) inGrace() bool { return l.returning > 0 }

// checkGrace counts the mounts that are still missing and ends the grace time
// when there are none.
func (l *loop) checkGrace() {
	if l.returning == 0 {
		return
	}
	l.returning = 0
	for _, s := range l.sessions {
		if s.state == sessionReturning {
			l.returning++
		}
	}
	if l.returning > 0 {
		return
	}
	l.slog.Info("all mounts are back or have expired", "waiting requests", len(l.graceQueue))
	for _, q := range l.graceQueue {
		l.later(q.again)
	}
	l.graceQueue = nil
}

// harmless tells whether a request may be served while mounts are missing: it
// needs no right, or its session has confirmed one that excludes others', or it
// was executed before the master changed.
func (l *loop) harmless(q *request, m wire.Message) bool {
	switch m := m.(type) {
	case *wire.Who, *wire.SessionOpen, *wire.SessionClose, *wire.Ping, *wire.Layout, *wire.StatFS, *wire.Release,
		*wire.LockCancel, *wire.Admin:
		return true
	case *wire.Lock: // what a missing mount holds is not known
		return m.Type == wire.LockFree && !m.Test
	case *wire.GetAttr:
		return l.rights.held(m.Ino, q.s)&inode.R != 0
	case *wire.Lease:
		return l.rights.held(m.Ino, q.s)&inode.W != 0
	case *wire.LeaseFail:
		return l.rights.held(m.Ino, q.s)&inode.W != 0
	case *wire.Commit:
		for i := range m.Files {
			if l.rights.held(m.Files[i].Ino, q.s)&inode.W == 0 {
				return false
			}
		}
		return true
	}
	if o, ok := m.(interface{ OnceOf() *wire.Once }); ok {
		_, replied := l.st.Replied(q.s.id, o.OnceOf().Seq)
		return replied
	}
	return false
}
