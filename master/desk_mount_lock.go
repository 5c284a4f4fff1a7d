package master

import (
	"github.com/varvefs/varve/master/locks"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// lock answers wire.Lock. Locks live in the loop's memory only. They end with
// their session; to a master that begins to lead every mount tells its own, and
// until all have done so no lock is given to anybody.
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

// takeUpLocks takes over the locks that a mount holds, once after this master has
// begun to lead. A mount that comes after its lease has run out may find that
// another has one of them.
func (l *loop) takeUpLocks(s *session, held []wire.HeldLock) {
	if !s.relock {
		return
	}
	s.relock = false
	lost := 0
	for i := range held {
		h := &held[i]
		code, woken := l.locks.Set(locks.Request{
			Ino: h.Ino, Flock: h.Flock,
			Lock: locks.Lock{
				Owner: locks.Owner{Session: s.id, Number: h.Owner}, Pid: h.Pid, Type: locks.Type(h.Type), Start: h.Start, End: h.End,
			},
		})
		l.wakeLocks(woken)
		if code != status.OK || h.Type == wire.LockFree {
			lost++
		}
	}
	if lost > 0 {
		l.slog.Error("locks of a mount that came back late are held by others", "session", s.id, "host", s.host, "mount", s.mount, "lost", lost)
	}
}
