package master

import (
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// goalStep is how many inodes one entry of a recursive change has, and about how
// many names one turn of the loop looks at for it.
const goalStep = 512

// goalWalk changes the goal of all inodes below a directory, a step at a time;
// between two steps the loop serves others. Names that come or go meanwhile may
// be met or not.
type goalWalk struct {
	l       *loop
	q       *request
	goal    uint8
	dirs    []walkDir   // still to be read, the last first
	found   []inode.Ino // to be changed by the next entry
	seen    uint64
	changed uint64
}

// walkDir is a directory that is read behind cookie.
type walkDir struct {
	ino    inode.Ino
	cookie uint64
}

// askSetGoal changes the goal of an inode or of a whole tree.
func (l *loop) askSetGoal(q *request, text []byte) {
	var args wire.GoalArgs
	if err := decodeArgs(text, &args); err != nil {
		l.refuse(q, err)
		return
	}
	if args.Goal < inode.GoalMin || args.Goal > inode.GoalMax {
		l.refuse(q, status.Errorf(status.Invalid, "goal %d: it must be %d to %d", args.Goal, inode.GoalMin, inode.GoalMax))
		return
	}
	a, ok := l.st.Attr(inode.Ino(args.Ino))
	if !ok {
		l.refuse(q, status.Errorf(status.NotFound, "inode %d", args.Ino))
		return
	}
	w := &goalWalk{l: l, q: q, goal: args.Goal}
	w.meet(a)
	if a.Kind == inode.Dir && args.Recursive {
		w.dirs = append(w.dirs, walkDir{ino: a.Ino})
	}
	w.step()
}

// meet notes one inode of the tree.
func (w *goalWalk) meet(a inode.Attr) {
	w.seen++
	if a.Goal != w.goal {
		w.found = append(w.found, a.Ino)
	}
}

// step reads names until there is enough to change or it has taken long enough.
func (w *goalWalk) step() {
	for looked := 0; len(w.dirs) > 0 && len(w.found) < goalStep && looked < goalStep; {
		looked += 1 + w.read(goalStep-looked)
	}
	switch {
	case len(w.found) > 0:
		w.change()
	case len(w.dirs) > 0:
		w.next()
	default:
		w.l.answer(w.q, &wire.GoalReply{Changed: w.changed, Unchanged: w.seen - w.changed}, nil)
	}
}

// read meets up to limit names of the last directory and tells how many. The
// directories among them are read before it goes on.
func (w *goalWalk) read(limit int) (n int) {
	top := len(w.dirs) - 1
	dir := w.dirs[top]
	w.l.st.ReadDir(dir.ino, dir.cookie, limit, func(_ string, cookie uint64, ino inode.Ino) bool {
		n++
		w.dirs[top].cookie = cookie
		a := w.l.attr(ino)
		w.meet(a)
		if a.Kind == inode.Dir {
			w.dirs = append(w.dirs, walkDir{ino: ino})
		}
		return true
	})
	if n == 0 {
		w.dirs = w.dirs[:top]
	}
	return n
}

// next lets others have their turn first.
func (w *goalWalk) next() {
	if !w.l.in.post(func(*loop) { w.step() }) {
		w.l.refuse(w.q, status.Closed)
	}
}

// change logs the new goal of what was found, when nobody else relies on the old one.
func (w *goalWalk) change() {
	found := w.found
	w.found = nil
	w.l.begin(&change{
		q:     w.q,
		touch: func() []inode.Ino { return found },
		op: func() (state.Op, error) {
			return &state.SetMany{Inos: found, Valid: state.SetGoal, Goal: w.goal}, nil
		},
		done: func(res state.Result) {
			if res.Code != status.OK {
				w.l.refuse(w.q, res.Code)
				return
			}
			w.changed += uint64(res.Count)
			w.next()
		},
		fail: func(err error) { w.l.refuse(w.q, err) },
	})
}
