package master

import (
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// getAttr answers wire.GetAttr.
func (l *loop) getAttr(q *request, m *wire.GetAttr) {
	l.reads++
	if _, ok := l.st.Attr(m.Ino); !ok {
		l.refuse(q, status.Errorf(status.Stale, "inode %d", m.Ino))
		return
	}
	if l.settled(q, m.Ino) {
		l.reply(q, l.attrReply(q.s, m.Ino))
	}
}

// attrReply describes an inode and grants R on it.
func (l *loop) attrReply(s *session, ino inode.Ino) *wire.AttrReply {
	reply := &wire.AttrReply{Attr: l.attr(ino), Rights: l.grant(s, ino, inode.R)}
	if reply.Attr.Kind == inode.Symlink {
		target, _ := l.st.Target(ino)
		reply.Target = []byte(target)
	}
	return reply
}

// changeAttr makes a change of one inode that is answered by AttrReply.
func (l *loop) changeAttr(q *request, once wire.Once, ino inode.Ino, op state.Op) *change {
	c := l.change(q, once)
	c.touch = func() []inode.Ino { return []inode.Ino{ino} }
	c.op = func() (state.Op, error) { return op, nil }
	c.done = c.finish(l, func(state.Result) wire.Message { return l.attrReply(c.s, ino) })
	return c
}

// setAttr answers wire.SetAttr.
func (l *loop) setAttr(q *request, m *wire.SetAttr) {
	if m.Valid&wire.SetSubtree != 0 {
		l.refuse(q, status.Errorf(status.Unsupported, "ask the admin desk to change a whole tree"))
		return
	}
	l.begin(l.changeAttr(q, m.Once, m.Ino, &state.SetAttr{
		Ino: m.Ino, Valid: m.Valid, Mode: m.Mode, Uid: m.Uid, Gid: m.Gid, Size: m.Size,
		Atime: m.Atime, Mtime: m.Mtime, Goal: m.Goal, Trash: m.Trash, Time: m.Time,
	}))
}

// setXattr answers wire.SetXattr.
func (l *loop) setXattr(q *request, m *wire.SetXattr) {
	l.begin(l.changeAttr(q, m.Once, m.Ino, &state.SetXattr{
		Ino: m.Ino, Name: m.Name, Value: m.Value, Flags: m.Flags, Kill: m.Kill,
	}))
}

// removeXattr answers wire.RemoveXattr.
func (l *loop) removeXattr(q *request, m *wire.RemoveXattr) {
	l.begin(l.changeAttr(q, m.Once, m.Ino, &state.RemoveXattr{Ino: m.Ino, Name: m.Name}))
}

// getXattr answers wire.GetXattr.
func (l *loop) getXattr(q *request, m *wire.GetXattr) {
	l.reads++
	value, ok := l.st.Xattr(m.Ino, m.Name)
	if !ok {
		l.refuse(q, l.missing(m.Ino, status.NoAttr))
		return
	}
	l.reply(q, &wire.BytesReply{Bytes: value, Rights: l.grant(q.s, m.Ino, inode.R)})
}

// listXattr answers wire.ListXattr.
func (l *loop) listXattr(q *request, m *wire.ListXattr) {
	l.reads++
	if _, ok := l.st.Attr(m.Ino); !ok {
		l.refuse(q, l.missing(m.Ino, status.Stale))
		return
	}
	l.reply(q, &wire.BytesReply{Bytes: l.st.Xattrs(m.Ino), Rights: l.grant(q.s, m.Ino, inode.R)})
}

// acquire answers wire.Acquire. R and D are had as by GetAttr and Lookup. W
// recalls what others hold, but for W with D, on a directory: that is had as after a change of
// a name there. A mount that is itself asked for rights on the inode
// is answered at once with what it has: its answer to the recall may wait for this.
func (l *loop) acquire(q *request, m *wire.Acquire) {
	if _, ok := l.st.Attr(m.Ino); !ok {
		l.refuse(q, status.Errorf(status.Stale, "inode %d", m.Ino))
		return
	}
	switch {
	case len(q.s.recalls[m.Ino]) > 0:
		l.reply(q, l.attrReply(q.s, m.Ino))
		return
	case m.Rights&inode.D != 0 && !l.crowd.is(m.Ino, l.now):
		l.grantNames(q.s, m.Ino)
	}
	if m.Rights&inode.W == 0 || m.Rights&inode.D != 0 {
		if l.settled(q, m.Ino) {
			l.grantAlone(q.s, m.Ino, m.Rights&inode.W != 0)
			l.reply(q, l.attrReply(q.s, m.Ino))
		}
		return
	}
	if l.marked(m.Ino, q.s) {
		l.acquires[m.Ino] = append(l.acquires[m.Ino], q)
		return
	}
	c := l.change(q, wire.Once{})
	c.touch = func() []inode.Ino { return []inode.Ino{m.Ino} }
	c.op = func() (state.Op, error) { return nil, nil }
	c.done = c.finish(l, func(state.Result) wire.Message {
		l.grant(c.s, m.Ino, inode.R|inode.W)
		return l.attrReply(c.s, m.Ino)
	})
	l.begin(c)
}

// answerAcquires answers those Acquires of a mount that wait for an inode on
// which the mount is about to be asked for rights.
func (l *loop) answerAcquires(s *session, ino inode.Ino) {
	list := l.acquires[ino]
	if len(list) == 0 {
		return
	}
	rest := list[:0]
	for _, q := range list {
		if q.s == s {
			l.later(q.again)
		} else {
			rest = append(rest, q)
		}
	}
	if len(rest) == 0 {
		delete(l.acquires, ino)
		return
	}
	l.acquires[ino] = rest
}

// release answers wire.Release.
func (l *loop) release(q *request, m *wire.Release) {
	var orphans []inode.Ino
	for _, h := range m.Rights {
		if had := l.rights.held(h.Ino, q.s); had&h.Rights != 0 {
			l.rights.keep(h.Ino, q.s, had&^h.Rights)
			if had&h.Rights&inode.W != 0 {
				l.reconcileFile(q.s, h.Ino)
			}
		}
		if h.Open {
			delete(q.s.open, h.Ino)
			if l.holdsOrphan(q.s, h.Ino) {
				orphans = append(orphans, h.Ino)
			}
		}
	}
	if len(orphans) == 0 {
		l.reply(q, &wire.Empty{})
		return
	}
	l.logFor(q.s, &state.ReleaseHold{Inos: orphans}, func(_ state.Result, err error) {
		if err != nil {
			l.refuse(q, err)
			return
		}
		for _, ino := range orphans {
			if _, exists := l.st.Attr(ino); !exists {
				l.goneInode(ino)
			}
		}
		l.reply(q, &wire.Empty{})
	})
}
