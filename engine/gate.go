package engine

import "sync/atomic"

// Gate is for backends: it keeps a file open while anybody uses it. It counts users and
// lets one closer wait for the last of them. It starts with one user, the opener, whom
// Shut takes off.
type Gate struct {
	users  atomic.Int64 // never rises again from 0
	closed atomic.Bool
	empty  chan struct{}
}

// Init makes the gate ready; it is called once, before anything else.
func (g *Gate) Init() {
	g.users.Store(1)
	g.empty = make(chan struct{})
}

// Enter adds n users; false when the gate is shut.
func (g *Gate) Enter(n int) bool {
	for {
		old := g.users.Load()
		if g.closed.Load() || old == 0 {
			return false
		}
		if g.users.CompareAndSwap(old, old+int64(n)) {
			return true
		}
	}
}

// Leave takes one user off. It is the last thing a user does with the file.
func (g *Gate) Leave() {
	switch n := g.users.Add(-1); {
	case n == 0:
		close(g.empty)
	case n < 0:
		panic("BUG: a file was left more often than entered")
	}
}

// Shut lets nobody in any more and waits until all have left; false when it was shut before.
func (g *Gate) Shut() bool {
	if g.closed.Swap(true) {
		return false
	}
	g.Leave()
	<-g.empty
	return true
}
