package master

import (
	"slices"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/wire"
)

const allRights = inode.R | inode.W | inode.D

// maxRecallItems bounds one Recall message.
const maxRecallItems = 4096

// waiter is something that goes on when a number of answers have come.
type waiter struct {
	left int
	run  func()
}

// recall is one item that a session was or will be asked to give back.
type recall struct {
	ino     inode.Ino
	keep    inode.Rights
	names   []string // not empty: only these names of the directory, and keep is everything
	sent    time.Time
	waiters []*waiter
}

// recallAll asks all sessions but s for those of their rights on ino that are in
// drop, and makes w wait for them. Sessions that are gone are not asked.
func (l *loop) recallAll(w *waiter, s *session, ino inode.Ino, drop inode.Rights) {
	l.holders = l.rights.holders(l.holders[:0], ino, s, drop)
	for _, h := range l.holders {
		l.recallFrom(w, h.s, ino, h.rights&^drop)
	}
}

// recallFrom asks one session to keep no more than keep on ino. w may be nil.
func (l *loop) recallFrom(w *waiter, s *session, ino inode.Ino, keep inode.Rights) {
	if s.gone() {
		l.seize(s, ino, keep)
		return
	}
	for _, r := range s.recalls[ino] {
		if r.keep&^keep == 0 {
			r.wait(w)
			return
		}
	}
	for _, r := range s.unsent {
		if r.ino == ino && r.names == nil {
			r.keep &= keep
			r.wait(w)
			return
		}
	}
	l.ask(s, &recall{ino: ino, keep: keep}).wait(w)
}

// recallName tells all sessions but s that hold D on a directory that a name
// there is about to change. In a directory that several mounts change, D is
// taken from them altogether: a recall for each name would cost more than
// asking for a name again.
func (l *loop) recallName(w *waiter, s *session, k nameKey) {
	crowded := l.crowd.changed(k.dir, sessionID(s), l.now)
	l.holders = l.rights.holders(l.holders[:0], k.dir, s, inode.D)
	for _, h := range l.holders {
		switch {
		case h.s.gone():
			l.seize(h.s, k.dir, 0)
		case crowded:
			l.recallFrom(w, h.s, k.dir, 0)
		default:
			l.recallNameFrom(w, h.s, k)
		}
	}
}

func (l *loop) recallNameFrom(w *waiter, s *session, k nameKey) {
	for _, r := range s.recalls[k.dir] {
		if r.keep&inode.D == 0 {
			r.wait(w)
			return
		}
	}
	for _, r := range s.unsent {
		if r.ino == k.dir && r.names != nil {
			r.names = append(r.names, k.name)
			r.wait(w)
			return
		}
	}
	l.ask(s, &recall{ino: k.dir, keep: allRights, names: []string{k.name}}).wait(w)
}

func (r *recall) wait(w *waiter) {
	if w != nil {
		w.left++
		r.waiters = append(r.waiters, w)
	}
}

// ask queues a recall; it leaves when the loop has run out of other work.
func (l *loop) ask(s *session, r *recall) *recall {
	r.sent = l.now
	s.recalls[r.ino] = append(s.recalls[r.ino], r)
	if len(s.unsent) == 0 {
		l.recallers = append(l.recallers, s)
	}
	s.unsent = append(s.unsent, r)
	l.met.recalls.Inc()
	l.answerAcquires(s, r.ino)
	return r
}

// sendRecalls sends what ask has queued, one message a session.
func (l *loop) sendRecalls() {
	for _, s := range l.recallers {
		for s.conn != nil && len(s.unsent) > 0 {
			list := s.unsent[:min(len(s.unsent), maxRecallItems)]
			s.unsent = s.unsent[len(list):]
			l.sendRecall(s, list)
		}
		if len(s.unsent) == 0 {
			s.unsent = nil
		}
	}
	l.recallers = l.recallers[:0]
}

func (l *loop) sendRecall(s *session, list []*recall) {
	m := &wire.Recall{Items: make([]wire.RecallItem, len(list))}
	for i, r := range list {
		r.sent = l.now
		m.Items[i] = wire.RecallItem{Ino: r.ino, Keep: r.keep, Names: r.names}
	}
	conn, in := s.conn, l.in
	conn.Start(m, nil, func(reply *link.Reply) {
		var answer wire.RecallReply
		err := reply.Decode(&answer)
		reply.Free()
		in.post(func(l *loop) { l.recalled(s, conn, list, answer.Open, err) })
	})
}

// recalled takes a mount's answer. A mount that answers with an error cannot be
// trusted to have given anything back: its connection is closed, and its rights
// go when its session expires.
func (l *loop) recalled(s *session, conn *link.Conn, list []*recall, open []inode.Ino, err error) {
	if s.conn != conn {
		return // the session was taken up anew or is lost; both have dealt with its recalls
	}
	if err != nil {
		l.slog.Warn("a mount does not answer recalls", "session", s.id, "addr", s.addr, "err", err)
		conn.Close()
		return
	}
	s.seen = l.now
	for _, r := range list {
		if l.rights.held(r.ino, s)&^r.keep&inode.W != 0 {
			l.reconcileFile(s, r.ino) // leases that it has not given back
		}
		l.rights.keep(r.ino, s, r.keep)
		if r.keep&inode.R == 0 {
			delete(s.open, r.ino)
		}
		l.resolve(s, r)
	}
	for _, ino := range open {
		if l.rights.held(ino, s)&inode.R == 0 {
			s.open[ino] = struct{}{}
		}
	}
}

// resolve ends a recall and lets those go on who waited for it.
func (l *loop) resolve(s *session, r *recall) {
	list := s.recalls[r.ino]
	if i := slices.Index(list, r); i >= 0 {
		if list = slices.Delete(list, i, i+1); len(list) == 0 {
			delete(s.recalls, r.ino)
		} else {
			s.recalls[r.ino] = list
		}
	}
	for _, w := range r.waiters {
		if w.left--; w.left == 0 {
			l.later(w.run)
		}
	}
	r.waiters = nil
}

// resolveAll ends all of a session's recalls, in the order of inode numbers.
func (l *loop) resolveAll(s *session, each func(*recall)) {
	inos := make([]inode.Ino, 0, len(s.recalls))
	for ino := range s.recalls {
		inos = append(inos, ino)
	}
	slices.Sort(inos)
	for _, ino := range inos {
		for _, r := range slices.Clone(s.recalls[ino]) {
			if each != nil {
				each(r)
			}
			l.resolve(s, r)
		}
	}
	s.unsent = nil
}

// seize takes rights from a session that cannot be asked any more. What it may
// have had open counts as open; what it may have been writing is reconciled.
func (l *loop) seize(s *session, ino inode.Ino, keep inode.Rights) {
	had := l.rights.held(ino, s)
	l.rights.keep(ino, s, keep)
	if had&^keep&inode.R != 0 {
		s.open[ino] = struct{}{}
	}
	if had&^keep&inode.W != 0 {
		l.reconcileFile(s, ino)
	}
}

// grant gives s as much of want on ino as stands in nobody's way and tells what
// s holds then.
func (l *loop) grant(s *session, ino inode.Ino, want inode.Rights) inode.Rights {
	if len(s.recalls) > 0 && len(s.recalls[ino]) > 0 || l.marked(ino, s) || l.inGrace() {
		return l.holds(s, ino)
	}
	others := l.rights.others(ino, s)
	if others&inode.W != 0 {
		want &^= inode.R | inode.W
	}
	if others&(inode.R|inode.D) != 0 {
		want &^= inode.W
	}
	if want != 0 {
		l.rights.add(ino, s, want)
		if want&inode.R != 0 && len(s.open) > 0 {
			delete(s.open, ino)
		}
	}
	return l.rights.held(ino, s)
}

// holds is what s may say it holds on ino: less than the table says while a
// recall is on its way.
func (l *loop) holds(s *session, ino inode.Ino) inode.Rights {
	r := l.rights.held(ino, s)
	for _, rc := range s.recalls[ino] {
		r &= rc.keep
	}
	return r
}

// trim asks a session that holds too many rights for its oldest ones. Nobody
// waits for them.
func (l *loop) trim(s *session) {
	over := s.rights.count - l.cfg.RightsLimit
	if over <= 0 || s.conn == nil || len(s.recalls) > maxRecallItems {
		return
	}
	for _, ino := range l.rights.oldest(s, min(over+l.cfg.RightsLimit/100+1, maxRecallItems)) {
		if l.rights.held(ino, s)&inode.W == 0 && len(s.recalls[ino]) == 0 {
			l.recallFrom(nil, s, ino, 0)
		}
	}
}
