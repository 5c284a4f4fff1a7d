package master

import (
	"slices"
	"strings"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// sessionState is what the master knows of a mount.
type sessionState uint8

const (
	// sessionReturning: known from the changelog, not yet heard of since this
	// master leads. It may hold any right.
	sessionReturning sessionState = iota
	sessionAttached               // connected
	sessionLost                   // not connected; its lease has not run out
	// sessionExpired: its lease has run out. It keeps what nobody else wants
	// until it comes back or is closed.
	sessionExpired
	sessionClosing // its end is on the way to the changelog
	sessionClosed
)

var sessionStates = [...]string{"returning", "connected", "lost", "expired", "closing", "closed"}

func (s sessionState) String() string { return sessionStates[s] }

// session is one mount. What must survive the master is in state; this is the rest.
type session struct {
	id       uint64
	host     string
	mount    string
	path     string
	readOnly bool
	root     inode.Ino // 0: not resolved yet

	state   sessionState
	conn    *link.Conn // while attached
	addr    string
	version string    // of its program
	seen    time.Time // last word of the mount
	ops     uint64
	pending map[uint64]*change  // changing requests under way, by Seq
	try     uint64              // of the last SessionOpen
	codes   map[uint64][]uint32 // of Commits that were refused in part, by Seq; until the mount has them

	rights  rightsList
	recalls map[inode.Ino][]*recall // not answered yet
	unsent  []*recall               // those of them that have not left
	named   time.Time               // when the log last named it for being slow
	open    map[inode.Ino]struct{}  // open there although it holds no R
	relock  bool                    // its locks are not known: this master has begun to lead since
}

// gone tells whether the session can no longer be asked for anything.
func (s *session) gone() bool { return s.state >= sessionExpired }

func sessionID(s *session) uint64 {
	if s == nil {
		return 0
	}
	return s.id
}

// newSession makes the volatile part of a session that the state has.
func (l *loop) newSession(info state.SessionInfo) *session {
	s := &session{
		id: info.ID, host: info.Host, mount: info.Mount, path: info.Path, readOnly: info.ReadOnly,
		seen:    l.now,
		pending: map[uint64]*change{}, recalls: map[inode.Ino][]*recall{}, open: map[inode.Ino]struct{}{},
	}
	l.rights.join(s)
	l.sessions[s.id] = s
	return s
}

// sessionOpen begins a session or takes one up again.
func (l *loop) sessionOpen(q *request, m *wire.SessionOpen) {
	if old, _ := q.conn.Value().(*session); old != nil && old.conn == q.conn {
		l.refuse(q, status.Errorf(status.Invalid, "this connection has session %d already", old.id))
		return
	}
	root, err := l.walkDir(m.Path)
	if m.Session != 0 {
		l.sessionTakeUp(q, m, root, err)
		return
	}
	if err != nil {
		l.refuse(q, err)
		return
	}
	op := &state.SessionOpen{Host: m.Host, Mount: m.Mount, Path: m.Path, ReadOnly: m.ReadOnly}
	l.log1(op, func(res state.Result, err error) {
		if err == nil && res.Code != status.OK {
			err = res.Code
		}
		if err != nil {
			l.refuse(q, err)
			return
		}
		info, _ := l.st.Session(res.Session)
		s := l.newSession(info)
		s.root = root
		l.attach(s, q)
		kept := l.confirm(s, m.Held, false)
		l.slog.Info("mount connected", "session", s.id, "host", s.host, "mount", s.mount, "path", s.path, "addr", s.addr)
		l.reply(q, l.sessionReply(s, kept))
	})
}

// sessionTakeUp continues a session on a new connection. What the mount names in
// Held is confirmed where nobody else has taken it meanwhile; all else is gone.
func (l *loop) sessionTakeUp(q *request, m *wire.SessionOpen, root inode.Ino, err error) {
	s := l.sessions[m.Session]
	if s == nil || s.state >= sessionClosing {
		l.refuse(q, status.Errorf(status.Stale, "session %d has ended", m.Session))
		return
	}
	if m.Try < s.try {
		l.refuse(q, status.Errorf(status.Again, "session %d was taken up by a later request", m.Session))
		return
	}
	s.try = m.Try
	if s.root == 0 {
		if err != nil {
			l.refuse(q, err)
			return
		}
		s.root = root
	}
	if old := s.conn; old != nil {
		l.detach(old)
		old.Close()
	}
	returning := s.state == sessionReturning
	l.attach(s, q)
	l.takeUpLocks(s, m.Locks)
	kept := l.confirm(s, m.Held, returning)
	l.slog.Info("mount is back", "session", s.id, "host", s.host, "mount", s.mount, "addr", s.addr, "held", len(m.Held), "kept", len(kept))
	l.reply(q, l.sessionReply(s, kept))
	l.resolveAll(s, nil) // those who waited ask again if need be
	l.checkGrace()
}

// confirm makes s hold and have open just what it claims and may have.
func (l *loop) confirm(s *session, claims []wire.Held, returning bool) (kept []wire.Held) {
	claimed := make(map[inode.Ino]inode.Rights, len(claims))
	opened := make(map[inode.Ino]struct{})
	for _, h := range claims {
		a, ok := l.st.Attr(h.Ino)
		if !ok {
			continue
		}
		have := l.rights.held(h.Ino, s)
		if returning {
			have = l.unclaimed(s, h.Ino)
		}
		if a.Nlink == 0 && !slices.Contains(l.st.Holds(h.Ino), s.id) {
			continue // its last name went while the mount was away
		}
		h.Rights &= have
		if len(s.recalls[h.Ino]) > 0 {
			h.Rights &^= inode.D // it was to be told of names
		}
		if h.Rights != 0 {
			l.rights.add(h.Ino, s, h.Rights)
		}
		claimed[h.Ino] = h.Rights
		if h.Open {
			opened[h.Ino] = struct{}{}
		}
		kept = append(kept, h)
	}
	l.rights.keepOnly(s, func(ino inode.Ino, _ inode.Rights) inode.Rights { return claimed[ino] })
	for _, c := range l.st.LeasesOf(s.id) {
		if claimed[c.Ino]&inode.W == 0 {
			l.reconcile(c.ID)
		}
	}
	s.open = opened
	l.releaseStale(s, opened)
	return kept
}

// unclaimed is what a mount that comes back after a restart of the master may
// claim: whatever no other has claimed before. During the grace time nobody was
// given anything that could be in its way.
func (l *loop) unclaimed(s *session, ino inode.Ino) inode.Rights {
	others := l.rights.others(ino, s)
	switch {
	case others&inode.W != 0:
		return 0
	case others&(inode.R|inode.D) != 0:
		return inode.R | inode.D
	}
	return allRights
}

// releaseStale gives up holds on orphans that the mount no longer has open.
func (l *loop) releaseStale(s *session, opened map[inode.Ino]struct{}) {
	var stale []inode.Ino
	l.st.Orphans(func(ino inode.Ino, holds []uint64) bool {
		if _, still := opened[ino]; !still && slices.Contains(holds, s.id) {
			stale = append(stale, ino)
		}
		return true
	})
	if len(stale) > 0 {
		l.logFor(s, &state.ReleaseHold{Inos: stale}, nil)
	}
}

// attach ties a session to the connection of q.
func (l *loop) attach(s *session, q *request) {
	s.conn, s.state, s.seen = q.conn, sessionAttached, l.now
	_, s.addr = q.conn.Peer()
	s.version = strings.TrimPrefix(q.conn.PeerVersion(), "varve ")
	q.conn.SetValue(s)
	q.s = s
}

func (l *loop) sessionReply(s *session, kept []wire.Held) *wire.SessionReply {
	return &wire.SessionReply{
		Session: s.id, Root: s.root, LeaseMillis: uint32(l.cfg.SessionLease.Milliseconds()),
		Epoch: l.epoch, Cluster: l.st.Cluster(), Kept: kept,
	}
}

// walk finds an inode by its path from the root.
func (l *loop) walk(path string) (inode.Ino, error) {
	ino := inode.Root
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." {
			continue
		}
		next, ok := l.st.Lookup(ino, name)
		if !ok {
			return 0, status.Errorf(status.NotFound, "%s", path)
		}
		ino = next
	}
	return ino, nil
}

// walkDir finds a directory by its path.
func (l *loop) walkDir(path string) (inode.Ino, error) {
	ino, err := l.walk(path)
	if err != nil {
		return 0, err
	}
	if l.attr(ino).Kind != inode.Dir {
		return 0, status.Errorf(status.NotDir, "%s", path)
	}
	return ino, nil
}

// detach notes that a connection has ended.
func (l *loop) detach(c *link.Conn) {
	s, _ := c.Value().(*session)
	if s == nil || s.conn != c {
		return
	}
	s.conn = nil
	for _, tag := range l.locks.DropWaits(s.id) {
		l.refuse(tag.(*request), status.Closed)
	}
	if s.state == sessionAttached {
		s.state = sessionLost
		l.slog.Info("mount lost", "session", s.id, "host", s.host, "mount", s.mount, "err", c.Err())
	}
}

// sessionClose ends a session at the mount's wish.
func (l *loop) sessionClose(q *request, _ *wire.SessionClose) {
	l.closeSession(q.s, "at its wish", func(err error) {
		if err != nil {
			l.refuse(q, err)
			return
		}
		l.reply(q, &wire.Empty{})
	})
}

// closeSession takes all rights from a session and logs its end.
func (l *loop) closeSession(s *session, why string, done func(error)) {
	s.state = sessionClosing
	l.resolveAll(s, func(r *recall) { l.seize(s, r.ino, r.keep) })
	l.checkGrace()
	l.log1(&state.SessionClose{ID: s.id}, func(_ state.Result, err error) {
		if err == nil {
			l.ended(s)
			l.slog.Info("session closed", "session", s.id, "host", s.host, "mount", s.mount, "why", why)
		}
		if done != nil {
			done(err)
		}
	})
}

// ended forgets a session that the state no longer has. Its leases are reconciled.
func (l *loop) ended(s *session) {
	s.state = sessionClosed
	l.resolveAll(s, nil)
	l.rights.leave(s)
	delete(l.sessions, s.id)
	l.wakeLocks(l.locks.CloseSession(s.id))
	for _, c := range l.st.LeasesOf(s.id) {
		l.reconcile(c.ID)
	}
	if s.conn != nil {
		s.conn.SetValue((*session)(nil))
	}
}

// checkSessions expires and closes sessions that have been silent. A mount that
// pings is never expelled: it may be waiting for chunkservers to take what it
// has written, and would lose it.
func (l *loop) checkSessions() {
	for _, s := range l.sortedSessions() {
		silent := l.now.Sub(s.seen)
		switch s.state {
		case sessionAttached:
			l.nameSlow(s)
			l.trim(s)
			// A living connection proves that the process lives, but rights end
			// when it has not pinged: the mount itself counts from its last ping.
			if silent > l.cfg.SessionLease {
				s.conn.Close()
				l.expire(s)
			}
		case sessionReturning, sessionLost:
			if silent > l.cfg.SessionLease {
				l.expire(s)
			}
		case sessionExpired:
			if silent > l.cfg.SessionKeep {
				l.closeSession(s, "silent", nil)
			}
		}
	}
}

// expire makes a session's rights anybody's who asks for them.
func (l *loop) expire(s *session) {
	l.slog.Warn("mount has not been heard of; others may take its rights", "session", s.id, "host", s.host, "mount", s.mount)
	if s.state == sessionReturning {
		for _, c := range l.st.LeasesOf(s.id) {
			l.reconcile(c.ID) // what rights it had is not known
		}
	}
	s.state, s.conn = sessionExpired, nil
	l.resolveAll(s, func(r *recall) { l.seize(s, r.ino, r.keep) })
	l.checkGrace()
}

// nameSlow tells the operator of a mount that others have been waiting for.
func (l *loop) nameSlow(s *session) {
	ino, waited := s.oldestRecall(l.now)
	if waited < l.cfg.RecallLimit || l.now.Sub(s.named) < l.cfg.RecallLimit {
		return
	}
	s.named = l.now
	l.slog.Warn("others wait for a mount that has not given a file back; it may be waiting for chunkservers; if it hangs, end its process",
		"session", s.id, "host", s.host, "mount", s.mount, "addr", s.addr, "path", l.st.PathOf(ino), "for", waited.Round(time.Second))
}

// oldestRecall is how long a session's longest unanswered recall has waited, and
// what for.
func (s *session) oldestRecall(now time.Time) (ino inode.Ino, waited time.Duration) {
	for _, list := range s.recalls {
		for _, r := range list {
			if d := now.Sub(r.sent); d > waited {
				ino, waited = r.ino, d
			}
		}
	}
	return ino, waited
}

func (l *loop) sortedSessions() []*session {
	list := make([]*session, 0, len(l.sessions))
	for _, s := range l.sessions {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *session) int { return int(a.id) - int(b.id) })
	return list
}
