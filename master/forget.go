package master

import (
	"slices"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/master/placement"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// askForget removes a chunkserver that will not come back from the changelog, so
// that nobody waits for it any longer. It refuses while the server is connected,
// and, unless forced, while it may have the only copy of something.
func (l *loop) askForget(q *request, text []byte) {
	var args wire.ForgetArgs
	if err := decodeArgs(text, &args); err != nil {
		l.refuse(q, err)
		return
	}
	if !l.helm.Ready() {
		l.refuse(q, notLeading)
		return
	}
	s, err := l.serverNamed(args.Server)
	if err != nil {
		l.refuse(q, err)
		return
	}
	if err := l.forgettable(s); err != nil {
		l.refuse(q, err)
		return
	}
	l.onlyOn(s.ID, func(only uint64, err error) {
		if err == nil {
			err = l.forgettable(s) // it may have come back meanwhile
		}
		if err == nil && only > 0 && !args.Force {
			err = status.Errorf(status.Busy,
				"%d chunks have no copy on a server that is connected and may have one on chunkserver %v (%s); start it again, "+
					"or wait until all others are connected; with --force they are given up until it comes back", only, s.ID, s.Addr)
		}
		if err != nil {
			l.refuse(q, err)
			return
		}
		l.forget(q, s, only)
	})
}

// forgettable refuses what is connected.
func (l *loop) forgettable(s state.ServerInfo) error {
	if c := l.chunks.servers[s.ID]; c != nil && c.conn != nil {
		return status.Errorf(status.Busy, "chunkserver %v (%s) is connected; stop it first", s.ID, s.Addr)
	}
	return nil
}

// forget takes a chunkserver out of the changelog and answers.
func (l *loop) forget(q *request, s state.ServerInfo, only uint64) {
	l.log1(&state.ServerForget{ID: s.ID}, func(res state.Result, err error) {
		if err == nil && res.Code != status.OK {
			err = res.Code
		}
		if err == nil {
			l.forgot(s)
		}
		l.answer(q, &wire.ForgetReply{ID: s.ID.String(), Addr: s.Addr, Lost: only}, err)
	})
}

// serverNamed finds a chunkserver of the changelog by its identity or address.
func (l *loop) serverNamed(name string) (state.ServerInfo, error) {
	var found []state.ServerInfo
	for _, s := range l.st.Servers() {
		if s.ID.String() == name {
			return s, nil
		}
		if s.Addr == name {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return state.ServerInfo{}, status.Errorf(status.NotKnown, "chunkserver %q", name)
	case 1:
		return found[0], nil
	}
	return state.ServerInfo{}, status.Errorf(status.Invalid,
		"%d chunkservers have had the address %s; name one by its identity, as 'varve status' lists it", len(found), name)
}

// onlyOn counts the chunks that nobody can read now and that no other server is
// known to have. All chunks are looked at, since placement's own count of what is
// missing follows a server's end only after a while; others are served meanwhile.
func (l *loop) onlyOn(id chunk.Server, done func(n uint64, err error)) {
	plan, n := l.chunks.plan, uint64(0)
	l.walkChunks(func(c state.ChunkInfo) {
		elsewhere := slices.ContainsFunc(plan.Copies(c.ID), func(k placement.CopyInfo) bool {
			return k.Server != id && (k.State == placement.Valid || k.State == placement.Unsure)
		})
		if !elsewhere && len(plan.Usable(c.ID)) == 0 {
			n++
		}
	}, func(err error) { done(n, err) })
}

// forgot follows the changelog, which no longer has a server.
func (l *loop) forgot(s state.ServerInfo) {
	if c := l.chunks.servers[s.ID]; c != nil && c.conn != nil { // it came back meanwhile
		l.log1(&state.ServerSeen{ID: s.ID, Addr: c.reg.Addr, Labels: c.reg.Labels}, nil)
		return
	}
	l.slog.Warn("chunkserver forgotten", "server", s.ID, "addr", s.Addr)
	delete(l.chunks.servers, s.ID)
	l.chunks.plan.Forget(s.ID)
	l.wakeServerWaits()
	l.retryReconciles()
}
