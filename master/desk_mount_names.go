package master

import (
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// maxReadDir bounds the entries of one ReadDirReply.
const maxReadDir = 4096

// lookup answers wire.Lookup.
func (l *loop) lookup(q *request, m *wire.Lookup) {
	l.reads++
	parent, ok := l.st.Attr(m.Parent)
	switch {
	case !ok:
		l.refuse(q, status.Errorf(status.Stale, "directory %d", m.Parent))
		return
	case parent.Kind != inode.Dir:
		l.refuse(q, status.NotDir)
		return
	case len(m.Name) > inode.NameMax:
		l.refuse(q, status.NameTooLong)
		return
	}
	if !l.settled(q, m.Parent) {
		return // its names are being changed by another mount that alone knows them
	}
	ino, found := l.st.Lookup(m.Parent, m.Name)
	if found && !l.settled(q, ino) {
		return
	}
	reply := &wire.EntryReply{Found: found}
	if l.nameMarked(m.Parent, m.Name, q.s) || l.crowd.is(m.Parent, l.now) {
		// What is held already stays; this answer may not be kept.
		reply.DirRights = l.holds(q.s, m.Parent) &^ inode.D
	} else {
		reply.DirRights = l.grantNames(q.s, m.Parent)
	}
	if found {
		l.describe(q.s, ino, reply)
	}
	l.reply(q, reply)
}

// grantNames grants D on a directory. Marks on the directory do not matter: they
// are about its attributes and about names that are locked one by one.
func (l *loop) grantNames(s *session, dir inode.Ino) inode.Rights {
	if len(s.recalls[dir]) == 0 && !l.inGrace() {
		l.rights.add(dir, s, inode.D)
	}
	return l.holds(s, dir)
}

// describe fills in what a mount wants to know of an inode that it has found:
// attributes with right R, a link's target, where the first chunk is.
func (l *loop) describe(s *session, ino inode.Ino, reply *wire.EntryReply) {
	reply.Attr = l.attr(ino)
	reply.Rights = l.grant(s, ino, inode.R)
	switch reply.Attr.Kind {
	case inode.Symlink:
		target, _ := l.st.Target(ino)
		reply.Target = []byte(target)
	case inode.File:
		if reply.Attr.Size > 0 {
			reply.Chunks = l.locate(ino, 0, 1)
		}
	}
}

// makeInode answers wire.Make.
func (l *loop) makeInode(q *request, m *wire.Make) {
	if m.Name == "" && (!m.Open || m.What != inode.File) {
		l.refuse(q, status.Errorf(status.Invalid, "a file without a name must be open"))
		return
	}
	var place placed
	c := l.change(q, m.Once)
	if m.Name != "" {
		c.names = []nameKey{{m.Parent, m.Name}}
	}
	c.op = func() (state.Op, error) {
		lease := m.Lease && m.Open && m.What == inode.File
		if lease {
			// Without room for its first chunk the file is made all the same:
			// the write will say what is wrong.
			goal := m.Goal
			if parent, known := l.st.Attr(m.Parent); known {
				goal = parent.Goal
			}
			place = place[:0]
			lease = l.place(&place, goal) == nil
		}
		return &state.Make{
			Parent: m.Parent, Name: m.Name, What: m.What, Mode: m.Mode, Umask: m.Umask, Uid: m.Uid, Gid: m.Gid,
			Rdev: m.Rdev, Target: m.Target, Hold: m.Open && m.Name == "", Lease: lease, Ino: m.Ino, Time: m.Time,
		}, nil
	}
	c.done = c.finish(l, func(res state.Result) wire.Message {
		reply := &wire.EntryReply{Found: true, Changed: true, Parent: l.attr(m.Parent)}
		reply.DirRights = l.grantAlone(c.s, m.Parent, m.Want)
		reply.Attr = l.attr(res.Ino)
		reply.Rights = l.grant(c.s, res.Ino, rightsOfMade(m))
		if m.What == inode.Symlink {
			reply.Target = []byte(m.Target)
		}
		reply.Chunks = l.granted(c.s, res.Ino, 0, 1, &place)
		reply.Lease = len(reply.Chunks) > 0
		return reply
	})
	l.begin(c)
}

func rightsOfMade(m *wire.Make) inode.Rights {
	switch {
	case m.Open:
		return inode.R | inode.W
	case m.What == inode.Dir && m.Want:
		return inode.R | inode.D | inode.W
	case m.What == inode.Dir:
		return inode.R | inode.D
	}
	return inode.R
}

// finish makes a change's done: an error is refused, success gets build's reply.
func (c *change) finish(l *loop, build func(state.Result) wire.Message) func(state.Result) {
	return func(res state.Result) {
		if res.Code != status.OK {
			c.fail(res.Code)
			return
		}
		l.reply(c.q, build(res))
	}
}

// remove answers wire.Remove.
func (l *loop) remove(q *request, m *wire.Remove) {
	c := l.change(q, m.Once)
	c.names = []nameKey{{m.Parent, m.Name}}
	target := func() inode.Ino { ino, _ := l.st.Lookup(m.Parent, m.Name); return ino }
	c.touch = func() []inode.Ino { return present(target()) }
	c.op = func() (state.Op, error) {
		return &state.Remove{Parent: m.Parent, Name: m.Name, Dir: m.Dir, Hold: l.openIn(target(), c.s, m.Ino, m.Open), Time: m.Time}, nil
	}
	c.done = c.finish(l, func(res state.Result) wire.Message {
		reply := &wire.RemoveReply{Attr: l.last(&res, res.Ino), Orphan: res.Orphan && l.holdsOrphan(c.s, res.Ino), Parent: l.attr(m.Parent)}
		reply.Rights = l.lostName(c.s, res.Ino)
		reply.DirRights = l.grantAlone(c.s, m.Parent, m.Want)
		return reply
	})
	l.begin(c)
}

// present lists an inode that exists.
func present(inos ...inode.Ino) (list []inode.Ino) {
	for _, ino := range inos {
		if ino != 0 {
			list = append(list, ino)
		}
	}
	return list
}

// openIn lists the sessions in which ino may be open: those that have said so
// when they gave up their rights, and the one that asks, if it says so or did
// not know what it removes.
func (l *loop) openIn(ino inode.Ino, asks *session, believed inode.Ino, open bool) (hold []uint64) {
	if ino == 0 {
		return nil
	}
	for _, s := range l.sortedSessions() {
		_, opened := s.open[ino]
		if opened || s == asks && (open || believed != ino) {
			hold = append(hold, s.id)
		}
	}
	return hold
}

// last gives the attributes of an inode that has lost a name.
func (l *loop) last(res *state.Result, ino inode.Ino) inode.Attr {
	if res.Repeat || res.Last.Ino != ino {
		return l.attr(ino)
	}
	return res.Last
}

// holdsOrphan tells whether the session keeps an inode without a name alive.
func (l *loop) holdsOrphan(s *session, ino inode.Ino) bool {
	for _, id := range l.st.Holds(ino) {
		if id == s.id {
			return true
		}
	}
	return false
}

// lostName tells what s still holds on an inode that has lost a name, and
// forgets all about one that is gone.
func (l *loop) lostName(s *session, ino inode.Ino) inode.Rights {
	if _, exists := l.st.Attr(ino); exists {
		return l.holds(s, ino)
	}
	l.goneInode(ino)
	return 0
}

// goneInode forgets what the loop knows of an inode that no longer exists.
func (l *loop) goneInode(ino inode.Ino) {
	if ino == 0 {
		return
	}
	l.rights.forget(ino)
	l.wakeLocks(l.locks.Forget(ino))
}

// rename answers wire.Rename.
func (l *loop) rename(q *request, m *wire.Rename) {
	c := l.change(q, m.Once)
	c.names = []nameKey{{m.Parent, m.Name}, {m.NewParent, m.NewName}}
	replaced := func() inode.Ino { ino, _ := l.st.Lookup(m.NewParent, m.NewName); return ino }
	c.touch = func() []inode.Ino {
		moved, _ := l.st.Lookup(m.Parent, m.Name)
		return present(moved, replaced())
	}
	c.op = func() (state.Op, error) {
		op := &state.Rename{Parent: m.Parent, Name: m.Name, NewParent: m.NewParent, NewName: m.NewName, Flags: m.Flags, Time: m.Time}
		op.Hold = l.openIn(replaced(), c.s, m.Ino, m.Open)
		return op, nil
	}
	c.done = c.finish(l, func(res state.Result) wire.Message {
		reply := &wire.RenameReply{Moved: l.attr(res.Ino), Parent: l.attr(m.Parent), NewParent: l.attr(m.NewParent)}
		reply.Rights = l.grant(c.s, res.Ino, inode.R)
		if res.Gone != 0 {
			reply.Replaced = true
			reply.Gone = l.last(&res, res.Gone)
			reply.Orphan = res.Orphan && l.holdsOrphan(c.s, res.Gone)
			l.lostName(c.s, res.Gone)
		}
		reply.DirRights = l.grantAlone(c.s, m.Parent, m.Want)
		reply.NewDirRights = l.grantAlone(c.s, m.NewParent, m.Want)
		return reply
	})
	l.begin(c)
}

// link answers wire.Link.
func (l *loop) link(q *request, m *wire.Link) {
	c := l.change(q, m.Once)
	c.names = []nameKey{{m.Parent, m.Name}}
	c.touch = func() []inode.Ino { return []inode.Ino{m.Ino} }
	c.op = func() (state.Op, error) { return &state.Link{Ino: m.Ino, Parent: m.Parent, Name: m.Name}, nil }
	c.done = c.finish(l, func(res state.Result) wire.Message {
		reply := &wire.EntryReply{Found: true, Changed: true, Parent: l.attr(m.Parent), DirRights: l.holds(c.s, m.Parent)}
		reply.Attr = l.attr(res.Ino)
		reply.Rights = l.grant(c.s, res.Ino, inode.R)
		return reply
	})
	l.begin(c)
}

// readlink answers wire.Readlink.
func (l *loop) readlink(q *request, m *wire.Readlink) {
	l.reads++
	target, ok := l.st.Target(m.Ino)
	if !ok {
		l.refuse(q, l.missing(m.Ino, status.Invalid))
		return
	}
	l.reply(q, &wire.BytesReply{Bytes: []byte(target), Rights: l.grant(q.s, m.Ino, inode.R)})
}

// missing is Stale for an inode that does not exist and code for one that does.
func (l *loop) missing(ino inode.Ino, code status.Code) error {
	if _, exists := l.st.Attr(ino); exists {
		return code
	}
	return status.Errorf(status.Stale, "inode %d", ino)
}

// readDir answers wire.ReadDir.
func (l *loop) readDir(q *request, m *wire.ReadDir) {
	l.reads++
	limit := maxReadDir
	if m.Max > 0 {
		limit = min(limit, int(m.Max))
	}
	reply := &wire.ReadDirReply{Parent: l.st.ParentOf(m.Ino), End: true}
	if !l.settled(q, m.Ino) {
		return
	}
	w := &waiter{run: q.again}
	ok := l.st.ReadDir(m.Ino, m.Cookie, limit+1, func(name string, cookie uint64, ino inode.Ino) bool {
		if len(reply.Entries) == limit {
			reply.End = false
			return false
		}
		reply.Entries = append(reply.Entries, wire.DirEntry{Name: name, Cookie: cookie, Attr: inode.Attr{Ino: ino}})
		return true
	})
	if !ok {
		l.refuse(q, l.missing(m.Ino, status.NotDir))
		return
	}
	for i := range reply.Entries {
		l.recallAll(w, q.s, reply.Entries[i].Attr.Ino, inode.W)
	}
	if w.left > 0 {
		return
	}
	if l.marked(m.Ino, q.s) || l.crowd.is(m.Ino, l.now) {
		reply.DirRights = l.holds(q.s, m.Ino) &^ inode.D // the listing may not be kept
	} else {
		reply.DirRights = l.grantNames(q.s, m.Ino)
	}
	for i := range reply.Entries {
		e := &reply.Entries[i]
		e.Attr = l.attr(e.Attr.Ino)
		e.Rights = l.grant(q.s, e.Attr.Ino, inode.R)
	}
	l.reply(q, reply)
}
