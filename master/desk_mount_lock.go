package master

import (
	"github.com/varvefs/varve/master/locks"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// lock answers wire.Lock. Locks live in the loop's memory only: they end with
// their session, and with the leadership of this master.
func (l *loop) lock(q *request, m *wire.Lock) {
	if _, ok := l.st.Attr(m.Ino); !ok {
		l.refuse(q, status.Errorf(status.Stale, "inode %d", m.Ino))
		return
	}
	r := locks.Request{
		Ino: m.Ino, Flock: m.Flock, Wait: m.Wait, Token: m.Token, Tag: q,
		Lock: locks.Lock{
			Owner: locks.Owner{Session: q.s.id, Number: m.Owner}, Pid: m.Pid,
			Type: locks.Type(m.Type), Start: m.Start, End: m.End,
		},
	}
	if m.Test {
		l.reply(q, l.testLock(q.s, &r))
		return
	}
	code, woken := l.locks.Set(r)
	l.wakeLocks(woken)
	switch code {
	case status.OK:
		l.reply(q, &wire.LockReply{Type: m.Type, Start: m.Start, End: m.End, Pid: m.Pid})
	case status.Again: // waits
	default:
		l.refuse(q, code)
	}
}

// testLock names the lock in r's way; another mount's process numbers mean
// nothing here.
func (l *loop) testLock(s *session, r *locks.Request) *wire.LockReply {
	held, found := l.locks.Test(r)
	if !found {
		return &wire.LockReply{Type: wire.LockFree}
	}
	reply := &wire.LockReply{Type: uint8(held.Type), Start: held.Start, End: held.End, Pid: held.Pid}
	if held.Owner.Session != s.id {
		reply.Pid = 0
	}
	return reply
}

// lockCancel answers wire.LockCancel.
func (l *loop) lockCancel(q *request, m *wire.LockCancel) {
	if tag, found := l.locks.Cancel(q.s.id, m.Token); found {
		l.wakeLocks([]locks.Woken{{Tag: tag, Code: status.Interrupted}})
	}
	l.reply(q, &wire.Empty{})
}

// wakeLocks answers requests whose wait for a lock is over.
func (l *loop) wakeLocks(woken []locks.Woken) {
	for _, w := range woken {
		q := w.Tag.(*request)
		if w.Code != status.OK {
			l.refuse(q, w.Code)
			continue
		}
		l.reply(q, &wire.LockReply{})
	}
}
