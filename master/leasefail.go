package master

import (
	"slices"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// raiseLimit is how long a chunkserver has to raise a version. A writer waits.
const raiseLimit = 5 * time.Second

// leaseFail answers wire.LeaseFail. Sent again after it was executed it finds a
// newer version, and the mount asks for the lease anew.
func (l *loop) leaseFail(q *request, m *wire.LeaseFail) {
	info, ok := l.st.Chunk(m.Chunk)
	switch {
	case !ok || info.Ino != m.Ino || info.Lease != q.s.id || l.chunks.lost[m.Chunk] != nil || l.rights.held(m.Ino, q.s)&inode.W == 0:
		l.refuse(q, status.Errorf(status.NoLease, "chunk %v", m.Chunk))
		return
	case info.Version != m.Version:
		l.refuse(q, status.Errorf(status.StaleVersion, "chunk %v is at version %d", m.Chunk, info.Version))
		return
	}
	l.met.leaseFails.Inc()
	l.slog.Warn("a mount reports failed copies", "chunk", m.Chunk, "inode", m.Ino, "session", q.s.id,
		"failed", m.Failed, "set", l.leaseSet(m.Chunk))
	l.raiseThen(m.Chunk, m.Failed, func(err error) {
		if err != nil {
			l.refuse(q, err)
			return
		}
		reply := &wire.LeaseReply{Blocks: l.attr(m.Ino).Blocks}
		if k, ok := l.st.Chunk(m.Chunk); ok {
			reply.Chunks = []wire.ChunkLoc{l.location(&k.ChunkSlot, l.members(l.leaseSet(m.Chunk)), true)}
		}
		l.reply(q, reply)
	})
}

// raise lifts the copies of a leased chunk above those that have missed
// something. First the copies are raised, then the changelog notes it: if the
// master dies in between, the copies are ahead of the changelog and the mount
// asks again.
type raise struct {
	l       *loop
	id      chunk.ID
	failed  []chunk.Server
	next    chunk.Version
	known   bool           // the set was known
	ask     []chunk.Server // to be raised
	open    int            // answers still to come
	good    []chunk.Server // raised
	empty   []chunk.Server // connected, without a copy
	unsure  []chunk.Server // nobody knows what they have: they did not answer
	waiters []func(error)
}

// raiseThen raises the copies of a chunk, but for those on failed, and runs done.
func (l *loop) raiseThen(id chunk.ID, failed []chunk.Server, done func(error)) {
	if r := l.chunks.raising[id]; r != nil {
		done(status.Errorf(status.Again, "chunk %v: its copies are being raised", id))
		return
	}
	info, ok := l.st.Chunk(id)
	if !ok {
		done(status.Errorf(status.NoLease, "chunk %v", id))
		return
	}
	r := &raise{l: l, id: id, failed: failed, next: info.Version + 1, waiters: []func(error){done}}
	l.chunks.raising[id] = r
	set := l.leaseSet(id)
	low := info.Min
	if r.known = len(set) > 0; !r.known {
		// Whoever has the writer's last writes is at Version.
		set, low = l.validCopies(id), info.Version
	}
	r.ask = without(set, failed)
	if len(r.ask) == 0 {
		r.ask = set // all have failed the mount: perhaps they answer the master
	}
	r.send(low)
}

func without(set, failed []chunk.Server) []chunk.Server {
	return slices.DeleteFunc(slices.Clone(set), func(s chunk.Server) bool { return slices.Contains(failed, s) })
}

// send orders the copies from version low on to be raised.
func (r *raise) send(low chunk.Version) {
	r.open = len(r.ask)
	for _, id := range r.ask {
		r.l.order(id, raiseLimit, &wire.SetVersion{
			Epoch: r.l.epoch, Chunk: r.id, Min: low, Max: r.next, Version: r.next,
		}, nil, func(err error) { r.answered(low, id, err) })
	}
	if r.open == 0 {
		r.l.later(func() { r.finish(low) })
	}
}

// answered takes one server's answer.
func (r *raise) answered(low chunk.Version, id chunk.Server, err error) {
	switch status.CodeOf(err) {
	case status.OK:
		r.good = append(r.good, id)
	case status.NoChunk:
		r.empty = append(r.empty, id)
	case status.Closed, status.Timeout, status.Interrupted, status.Busy, status.Again:
		r.unsure = append(r.unsure, id)
		fallthrough
	default:
		r.l.slog.Warn("a copy could not be raised", "chunk", r.id, "server", id, "err", err)
	}
	if r.open--; r.open == 0 {
		r.finish(low)
	}
}

// finish notes the new version in the changelog when all have answered.
func (r *raise) finish(low chunk.Version) {
	l := r.l
	info, ok := l.st.Chunk(r.id)
	switch {
	case !ok || info.Lease == 0:
		r.end(status.Errorf(status.NoLease, "chunk %v", r.id))
		return
	case info.Version >= r.next:
		r.end(status.Errorf(status.StaleVersion, "chunk %v is at version %d", r.id, info.Version))
		return
	case len(r.good) == 0 && len(r.unsure) > 0:
		// They may have what nobody else has.
		r.end(status.Errorf(status.NoServers, "chunk %v: of its chunkservers none answers: %v", r.id, r.unsure))
		return
	case len(r.good) == 0 && low > info.Min:
		r.empty = nil
		r.send(info.Min) // nobody has a write of this lease
		return
	case !r.known && (len(r.good) == 0 || low < info.Version) && l.serversMissing():
		r.end(status.Errorf(status.NoServers, "chunk %v: the copies with the last writes may be on a server that is away", r.id))
		return
	}
	var set []chunk.Server
	switch {
	case len(r.good) > 0:
		set = r.good
	case info.Fresh && (len(r.empty) > 0 || !r.known):
		// Nobody has a copy: nothing of it was ever acknowledged.
		var place placed
		if err := l.place(&place, info.Goal, r.failed...); err == nil {
			set = place[0]
		} else if set = r.empty; len(set) == 0 {
			r.end(err)
			return
		}
	default:
		r.end(status.Errorf(status.IO, "chunk %v: no copy is left", r.id))
		return
	}
	s := l.sessions[info.Lease]
	if s == nil {
		r.end(status.Errorf(status.NoLease, "chunk %v: the session has ended", r.id))
		return
	}
	l.logFor(s, &state.LeaseFail{Ino: info.Ino, Index: info.Index, Chunk: r.id, Version: r.next}, func(res state.Result, err error) {
		if err == nil && res.Code != status.OK {
			err = res.Code
		}
		if err == nil && len(r.good) > 0 {
			l.chunks.plan.LeaseFail(r.id, set)
		} else if err == nil {
			l.chunks.plan.Created(r.id, set)
		}
		if err == nil {
			l.chunks.sets[r.id] = struct{}{}
		}
		r.end(err)
	})
}

// end tells those who wait.
func (r *raise) end(err error) {
	delete(r.l.chunks.raising, r.id)
	for _, f := range r.waiters {
		f(err)
	}
}
