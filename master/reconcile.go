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

// How often a chunk that could not be reconciled is tried again, and how long a
// copy that may have missed writes waits for better ones to come back.
const (
	reconcileRetry = time.Second
	reconcileWait  = 2 * time.Minute
	digestLimit    = 30 * time.Second
)

// reconciling is a chunk whose writer is gone with the lease. Its copies may
// differ in what was not yet acknowledged. The master asks all of them what they
// have, chooses the one that has most, raises it and those equal to it by a
// version, and ends the lease; the others are stale then and are replaced.
type reconciling struct {
	id      chunk.ID
	since   time.Time
	retry   time.Time // when to try again, while not active
	active  bool      // questions or orders are under way
	open    int
	asked   []chunk.Server
	answers []digest
	waiters []func()
}

type digest struct {
	server chunk.Server
	err    error
	wire.DigestReply
}

// reconcileFile reconciles all chunks of a file that s has leased.
func (l *loop) reconcileFile(s *session, ino inode.Ino) {
	var ids []chunk.ID
	l.st.FileChunks(ino, 0, ^uint32(0), func(k state.ChunkSlot) bool {
		if k.Lease == s.id {
			ids = append(ids, k.ID)
		}
		return true
	})
	for _, id := range ids {
		l.reconcile(id)
	}
}

// reconcile begins to end the lease of a writer that is gone.
func (l *loop) reconcile(id chunk.ID) *reconciling {
	r := l.chunks.lost[id]
	if r == nil {
		r = &reconciling{id: id, since: l.now, retry: l.now}
		l.chunks.lost[id] = r
		l.later(func() { l.tryReconcile(r) })
	}
	return r
}

// reconcileThen runs f when a chunk is reconciled, or the next time it could not be.
func (l *loop) reconcileThen(id chunk.ID, f func()) {
	r := l.reconcile(id)
	r.waiters = append(r.waiters, f)
}

// unreconciled finds a chunk of a range that is being reconciled right now.
func (l *loop) unreconciled(ino inode.Ino, first, count uint32) (id chunk.ID, found bool) {
	if len(l.chunks.lost) == 0 {
		return 0, false
	}
	l.st.FileChunks(ino, first, count, func(k state.ChunkSlot) bool {
		r := l.chunks.lost[k.ID]
		id, found = k.ID, r != nil && r.active
		return !found
	})
	return id, found
}

// ceased notes that a chunk is no more.
func (l *loop) ceased(id chunk.ID) {
	if r := l.chunks.lost[id]; r != nil {
		l.reconciled(r)
	}
}

// reconciled ends the work on a chunk.
func (l *loop) reconciled(r *reconciling) {
	delete(l.chunks.lost, r.id)
	for _, f := range r.waiters {
		l.later(f)
	}
	r.waiters = nil
}

// putOff tries again later. Those who wait are told: they may not want to.
func (l *loop) putOff(r *reconciling) {
	r.active, r.retry = false, l.now.Add(reconcileRetry)
	for _, f := range r.waiters {
		l.later(f)
	}
	r.waiters = nil
}

// retryReconciles goes on with chunks whose time has come.
func (l *loop) retryReconciles() {
	var due []*reconciling
	for _, r := range l.chunks.lost {
		if !r.active && !l.now.Before(r.retry) {
			due = append(due, r)
		}
	}
	slices.SortFunc(due, func(a, b *reconciling) int { return int(int64(a.id) - int64(b.id)) })
	for _, r := range due {
		l.tryReconcile(r)
	}
}

// unsettled finds a chunk if it is still to be reconciled.
func (l *loop) unsettled(id chunk.ID) (info state.ChunkInfo, ok bool) {
	info, ok = l.st.Chunk(id)
	return info, ok && (info.Lease != 0 || l.adoptable(id))
}

// tryReconcile asks all copies what they have.
func (l *loop) tryReconcile(r *reconciling) {
	if r.active || l.chunks.lost[r.id] != r {
		return
	}
	if _, ok := l.unsettled(r.id); !ok {
		l.reconciled(r)
		return
	}
	r.active, r.answers, r.asked = true, nil, nil
	for _, k := range l.chunks.plan.Copies(r.id) {
		if k.Up {
			r.asked = append(r.asked, k.Server)
		}
	}
	slices.Sort(r.asked)
	r.open = len(r.asked)
	for _, server := range r.asked {
		d := &digest{server: server}
		l.order(server, digestLimit, &wire.Digest{Epoch: l.epoch, Chunk: r.id}, &d.DigestReply, func(err error) {
			d.err = err
			r.answers = append(r.answers, *d)
			if r.open--; r.open == 0 {
				l.choose(r)
			}
		})
	}
	if r.open == 0 {
		l.choose(r)
	}
}

// choose picks the copy to go on from, when all have answered.
func (l *loop) choose(r *reconciling) {
	info, ok := l.unsettled(r.id)
	if !ok {
		l.reconciled(r)
		return
	}
	least := info.Min
	if info.Lease == 0 {
		least = info.Version + 1
	}
	slices.SortFunc(r.answers, func(a, b digest) int { return int(int64(a.server) - int64(b.server)) })
	var best *digest
	for i := range r.answers {
		a := &r.answers[i]
		if a.err != nil || a.Version < least {
			continue
		}
		if best == nil || a.better(best) {
			best = a
		}
	}
	missing := l.copiesMissing(r)
	switch {
	case best == nil && info.Fresh && (!missing || l.beyondEnd(&info)):
		l.dropLease(r, 0, nil) // it was never written
	case best == nil:
		l.putOff(r)
	case (best.Version < info.Version || info.Lease == 0) && missing && l.now.Sub(r.since) < reconcileWait:
		l.putOff(r) // this copy may have missed writes that one has that is away
	default:
		if best.Version < info.Version && missing {
			l.slog.Error("a dead writer's chunk is taken from a copy that may have missed its last writes; better ones did not come back",
				"chunk", r.id, "inode", info.Ino, "server", best.server)
		}
		l.equalize(r, best, max(best.Version, info.Version)+1)
	}
}

// better orders copies by what they have seen.
func (d *digest) better(than *digest) bool {
	if d.Version != than.Version {
		return d.Version > than.Version
	}
	if d.Writes != than.Writes {
		return d.Writes > than.Writes
	}
	return d.Length > than.Length
}

// same tells whether two copies have the same bytes.
func (d *digest) same(as *digest) bool {
	return d.err == nil && d.Version == as.Version && d.Length == as.Length && slices.Equal(d.Blocks, as.Blocks)
}

// copiesMissing tells whether a copy that the writer wrote to may be on a server
// that has not answered.
func (l *loop) copiesMissing(r *reconciling) bool {
	for i := range r.answers {
		if code := status.CodeOf(r.answers[i].err); code != status.OK && code != status.NoChunk {
			return true
		}
	}
	set := l.leaseSet(r.id)
	if len(set) == 0 {
		return l.serversMissing()
	}
	return len(without(set, r.asked)) > 0
}

// beyondEnd tells whether a chunk lies behind the end of its file: then nothing
// in it was acknowledged by fsync.
func (l *loop) beyondEnd(info *state.ChunkInfo) bool {
	return uint64(info.Index)*chunk.Size >= l.attr(info.Ino).Size
}

// equalize raises the best copy and all that are equal to it.
func (l *loop) equalize(r *reconciling, best *digest, next chunk.Version) {
	var good []chunk.Server
	for i := range r.answers {
		a := &r.answers[i]
		if !a.same(best) {
			continue
		}
		r.open++
		l.order(a.server, raiseLimit, &wire.SetVersion{
			Epoch: l.epoch, Chunk: r.id, Min: a.Version, Max: a.Version, Version: next,
		}, nil, func(err error) {
			if err == nil {
				good = append(good, a.server)
			} else {
				l.slog.Warn("a copy could not be raised", "chunk", r.id, "server", a.server, "err", err)
			}
			if r.open--; r.open > 0 {
				return
			}
			if len(good) == 0 {
				l.putOff(r)
				return
			}
			l.dropLease(r, next, good)
		})
	}
}

// dropLease ends the lease in the changelog, if there is one; the copies on good have version.
func (l *loop) dropLease(r *reconciling, version chunk.Version, good []chunk.Server) {
	var op state.Op = &state.LeaseDrop{Chunk: r.id, Version: version}
	if info, ok := l.st.Chunk(r.id); ok && info.Lease == 0 {
		op = &state.Adopt{Chunk: r.id, Version: version}
	}
	l.log1(op, func(res state.Result, err error) {
		switch {
		case err != nil:
			l.putOff(r)
			return
		case res.Code != status.OK: // the lease has ended otherwise
			l.slog.Warn("a dead writer's chunk is not its own any more", "chunk", r.id, "err", res.Code)
			l.reconciled(r)
			return
		}
		l.slog.Info("a dead writer's chunk is whole again", "chunk", r.id, "inode", res.Ino, "version", version, "copies", len(good))
		l.met.reconciledChunks.Inc()
		l.chunks.plan.Settle(r.id, good)
		delete(l.chunks.sets, r.id)
		l.reconciled(r)
	})
}
