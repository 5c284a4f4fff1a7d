package master

import (
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/wire"
)

// A mount that holds W on a directory answers changes of its names itself and
// tells them here a moment later: no other mount can see the directory, or have
// a name of it in its cache, before W was recalled and all changes have come.

// aloneAfter is how many changes in a row a mount must have made in a directory
// before others lose what they hold on it, so that the next can be made early.
const aloneAfter = 4

// grantAlone grants W (and R and D, without which it is of no use) on a
// directory that s has just changed, or is about to, when it is wanted and no other mount is
// interested. It tells what s holds on the directory.
func (l *loop) grantAlone(s *session, dir inode.Ino, want bool) inode.Rights {
	if !want || l.crowd.is(dir, l.now) || l.rights.held(dir, s)&inode.W != 0 {
		return l.holds(s, dir)
	}
	const all = inode.R | inode.D | inode.W
	if l.rights.others(dir, s) != 0 {
		if l.crowd.row(dir, s.id) >= aloneAfter {
			l.recallAll(nil, s, dir, all)
		}
		return l.holds(s, dir)
	}
	return l.grant(s, dir, all)
}

// reserve answers wire.Reserve.
func (l *loop) reserve(q *request, m *wire.Reserve) {
	c := l.change(q, m.Once)
	c.op = func() (state.Op, error) { return &state.Reserve{Count: m.Count}, nil }
	c.done = c.finish(l, func(res state.Result) wire.Message { return &wire.ReserveReply{Inos: res.Inos} })
	l.begin(c)
}
