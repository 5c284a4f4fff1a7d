package master

import (
	"slices"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/master/placement"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// maxChunks bounds the chunks of one Lease or Layout.
const maxChunks = 1024

// placed are the servers chosen for chunks that an entry will make, in order.
type placed [][]chunk.Server

// place chooses servers for one more chunk.
func (l *loop) place(to *placed, goal uint8, exclude ...chunk.Server) error {
	set := l.chunks.plan.Place(l.nanos(), int(goal), exclude)
	if len(set) < min(l.cfg.MinCopies, int(goal)) || len(set) == 0 {
		if l.full() {
			return status.NoSpace
		}
		return status.NoServers
	}
	*to = append(*to, set)
	return nil
}

// full tells whether there are servers, but none with room.
func (l *loop) full() bool {
	up := false
	for _, s := range l.chunks.servers {
		if s.conn != nil {
			up = true
			if s.space().Free > chunk.Size {
				return false
			}
		}
	}
	return up
}

// lease answers wire.Lease.
func (l *loop) lease(q *request, m *wire.Lease) {
	if m.Count == 0 || m.Count > maxChunks {
		l.refuse(q, status.Errorf(status.Invalid, "leases on %d chunks", m.Count))
		return
	}
	var place placed
	c := l.change(q, m.Once)
	c.op = func() (state.Op, error) {
		if l.rights.held(m.Ino, c.s)&inode.W == 0 {
			return nil, status.Errorf(status.NoLease, "inode %d: right W is not held", m.Ino)
		}
		place = place[:0]
		have, err := l.leasable(c, m)
		if err != nil {
			return nil, err
		}
		if have.mine == m.Count {
			return nil, nil // a new token is all that is wanted
		}
		for n := have.all; n < m.Count; n++ {
			if err := l.place(&place, l.attr(m.Ino).Goal); err != nil {
				if err == status.NoServers && l.awaitServers(c.q, func() { l.step(c) }) {
					return nil, errParked
				}
				return nil, err
			}
		}
		return &state.Lease{Ino: m.Ino, First: m.First, Count: m.Count}, nil
	}
	c.done = c.finish(l, func(state.Result) wire.Message {
		return &wire.LeaseReply{Chunks: l.granted(c.s, m.Ino, m.First, m.Count, &place), Blocks: l.attr(m.Ino).Blocks}
	})
	l.begin(c)
}

// leased counts the chunks in the range of a Lease.
type leased struct{ all, mine uint32 }

// leasable looks whether the existing chunks of the range can be leased now. It
// may park the change: until a dead writer's chunk is reconciled, a server with
// a copy is back, or it is known who is in the set of a lease.
func (l *loop) leasable(c *change, m *wire.Lease) (have leased, err error) {
	l.st.FileChunks(m.Ino, m.First, m.Count, func(k state.ChunkSlot) bool {
		have.all++
		switch {
		case k.Lease == c.s.id && l.chunks.lost[k.ID] != nil:
			// Granted by a reply that the mount never saw, and then taken for the
			// lease of a dead writer: it ends first.
			l.reconcileThen(k.ID, func() { l.step(c) })
			err = errParked
		case k.Lease == c.s.id:
			have.mine++
			err = l.renewable(c, &k)
		case k.Lease != 0 && !l.patient(c.q):
			err = status.Errorf(status.NoServers, "chunk %v: the copies that a dead writer has left cannot be had", k.ID)
		case k.Lease != 0, l.mayAdopt(&k):
			l.reconcileThen(k.ID, func() { l.step(c) })
			err = errParked
		case len(l.validCopies(k.ID)) < min(l.cfg.MinCopies, int(l.attr(m.Ino).Goal)):
			err = l.noCopies(c, k.ID)
		}
		return err == nil
	})
	return have, err
}

// noCopies parks c until servers are back, or gives up.
func (l *loop) noCopies(c *change, id chunk.ID) error {
	if l.awaitServers(c.q, func() { l.step(c) }) {
		return errParked
	}
	if l.lostForGood(id) {
		return status.Errorf(status.IO, "chunk %v: no copy is left", id)
	}
	return status.Errorf(status.NoServers, "chunk %v: too few servers with a copy are connected", id)
}

// lostForGood tells whether a chunk has no copy, and no chunkserver is away that
// could have one.
func (l *loop) lostForGood(id chunk.ID) bool {
	return !l.serversMissing() && len(l.replicas(l.chunks.plan.Usable(id))) == 0
}

// renewable sees to it that the set of a lease is known. A master that began to
// lead while the lease was open does not know it, and a copy that was away when
// the lease was granted looks like a member: the version is raised where the
// writer's last writes are, and nowhere else.
func (l *loop) renewable(c *change, k *state.ChunkSlot) error {
	if len(l.leaseSet(k.ID)) > 0 {
		return nil
	}
	if l.serversMissing() && l.awaitServers(c.q, func() { l.step(c) }) {
		return errParked
	}
	l.raiseThen(k.ID, nil, func(err error) {
		if err != nil {
			l.drop(c, err)
			return
		}
		l.step(c)
	})
	return errParked
}

// validCopies lists the servers with a copy that a writer may go on from.
func (l *loop) validCopies(id chunk.ID) (list []chunk.Server) {
	for _, k := range l.chunks.plan.Copies(id) {
		if k.State == placement.Valid && k.Up && !k.Deleting {
			list = append(list, k.Server)
		}
	}
	return list
}

// leaseSet lists the servers that the writer of a chunk writes to; none: it is
// not known, because another master has granted the lease.
func (l *loop) leaseSet(id chunk.ID) (list []chunk.Server) {
	if _, known := l.chunks.sets[id]; !known {
		return nil
	}
	for _, k := range l.chunks.plan.Copies(id) {
		if k.InLease {
			list = append(list, k.Server)
		}
	}
	return list
}

// granted makes the locations of chunks that s has leased. Chunks that were made
// just now are where place says.
func (l *loop) granted(s *session, ino inode.Ino, first, count uint32, place *placed) []wire.ChunkLoc {
	var locs []wire.ChunkLoc
	l.st.FileChunks(ino, first, count, func(k state.ChunkSlot) bool {
		if k.Lease != s.id || l.chunks.lost[k.ID] != nil {
			return true
		}
		set := l.leaseSet(k.ID)
		switch {
		case len(set) > 0:
		case k.Fresh && len(*place) > 0:
			set = (*place)[0]
			*place = (*place)[1:]
			l.chunks.plan.Created(k.ID, set)
			l.chunks.sets[k.ID] = struct{}{}
		case !k.Fresh:
			set = l.chunks.plan.Lease(k.ID)
			l.chunks.sets[k.ID] = struct{}{}
		}
		if loc := l.location(&k, l.members(set), true); len(loc.Replicas) > 0 {
			locs = append(locs, loc)
		}
		return true
	})
	return locs
}

// location describes a chunk.
func (l *loop) location(k *state.ChunkSlot, where []wire.Replica, write bool) wire.ChunkLoc {
	return wire.ChunkLoc{
		Index: k.Index, Chunk: k.ID, Version: k.Version, Min: k.Min, Valid: k.Valid, Fresh: k.Fresh,
		Replicas: where, Token: l.token(k.ID, k.Min, k.Version, write),
	}
}

// locate describes the existing chunks of a range for reading.
func (l *loop) locate(ino inode.Ino, first, count uint32) []wire.ChunkLoc {
	var locs []wire.ChunkLoc
	l.st.FileChunks(ino, first, count, func(k state.ChunkSlot) bool {
		loc := l.location(&k, l.replicas(l.chunks.plan.Usable(k.ID)), false)
		loc.Gone = len(loc.Replicas) == 0 && l.lostForGood(k.ID)
		locs = append(locs, loc)
		return true
	})
	return locs
}

// layout answers wire.Layout. It waits for nobody's rights; only when no chunk
// can be read now, but perhaps soon, is the answer put off.
func (l *loop) layout(q *request, m *wire.Layout) {
	l.reads++
	if _, ok := l.st.Attr(m.Ino); !ok {
		l.refuse(q, status.Errorf(status.Stale, "inode %d", m.Ino))
		return
	}
	count := min(m.Count, maxChunks)
	if id, dead := l.unreconciled(m.Ino, m.First, count); dead {
		l.reconcileThen(id, q.again)
		return
	}
	if id, found := l.adopting(m.Ino, m.First, count); found {
		l.reconcileThen(id, q.again)
		return
	}
	locs := l.locate(m.Ino, m.First, count)
	readable := len(locs) == 0
	for i := range locs {
		readable = readable || len(locs[i].Replicas) > 0
	}
	if !readable && l.awaitServers(q, q.again) {
		return
	}
	l.reply(q, &wire.LayoutReply{Chunks: locs})
}

// commit answers wire.Commit. A file on which the mount has lost W is refused by
// itself; the others go on.
func (l *loop) commit(q *request, m *wire.Commit) {
	c := l.change(q, m.Once)
	taken := make([]bool, len(m.Files))
	c.touch = func() []inode.Ino {
		inos := make([]inode.Ino, 0, len(m.Files))
		for i := range m.Files {
			f := &m.Files[i]
			taken[i] = l.rights.held(f.Ino, c.s)&inode.W != 0 && !l.losing(f.Ended)
			if taken[i] {
				inos = append(inos, f.Ino)
			}
		}
		return inos
	}
	var ended []state.LeaseEnd
	c.op = func() (state.Op, error) {
		op := &state.Commit{}
		for i := range m.Files {
			if !taken[i] {
				continue
			}
			f := commitFile(&m.Files[i])
			ended = append(ended, l.mine(c.s, f.Ended)...)
			op.Files = append(op.Files, f)
		}
		if len(op.Files) == 0 {
			return nil, nil
		}
		return op, nil
	}
	c.done = c.finish(l, func(res state.Result) wire.Message {
		l.leasesEnded(ended)
		if !res.Repeat {
			c.s.keepCodes(m.Once, commitCodes(taken, res.Codes))
		}
		reply := &wire.CommitReply{Codes: c.s.codes[m.Once.Seq], Attrs: make([]inode.Attr, len(m.Files))}
		if reply.Codes == nil {
			reply.Codes = make([]uint32, len(m.Files))
		}
		for i := range m.Files {
			f := &m.Files[i]
			reply.Attrs[i] = l.attr(f.Ino)
			if f.DropW && status.Code(reply.Codes[i]) != status.NoLease {
				l.dropWrite(c.s, f.Ino)
			}
		}
		return reply
	})
	l.begin(c)
}

// losing tells whether one of the ending leases is about to be taken for that of
// a dead writer: then it is too late to end it.
func (l *loop) losing(ended []wire.LeaseEnd) bool {
	return slices.ContainsFunc(ended, func(e wire.LeaseEnd) bool { return l.chunks.lost[e.Chunk] != nil })
}

// commitCodes makes the codes of a CommitReply of which files the master took
// and what became of those (nil: all went well); nil when all is well.
func commitCodes(taken []bool, done []status.Code) (codes []uint32) {
	next := 0
	for i, ok := range taken {
		code := status.NoLease
		if ok {
			code = status.OK
			if done != nil {
				code = done[next]
			}
			next++
		}
		if code != status.OK && codes == nil {
			codes = make([]uint32, len(taken))
		}
		if code != status.OK {
			codes[i] = uint32(code)
		}
	}
	return codes
}

// keepCodes notes which files of a Commit failed, for when it is sent again. The
// state remembers only that it was executed.
func (s *session) keepCodes(once wire.Once, codes []uint32) {
	for seq := range s.codes {
		if seq <= once.Done {
			delete(s.codes, seq)
		}
	}
	if codes == nil || once.Seq == 0 {
		return
	}
	if s.codes == nil {
		s.codes = make(map[uint64][]uint32)
	}
	s.codes[once.Seq] = codes
}

func commitFile(f *wire.CommitFile) state.CommitFile {
	out := state.CommitFile{
		Ino: f.Ino, Size: f.Size, Mtime: f.Mtime, Trimmed: f.Trimmed, Kill: f.Kill,
		Sets: f.Sets, Mode: f.Mode, Uid: f.Uid, Gid: f.Gid, Atime: f.Atime, Ctime: f.Ctime,
	}
	for _, e := range f.Ended {
		out.Ended = append(out.Ended, state.LeaseEnd{Index: e.Index, Chunk: e.Chunk, Version: e.Version, Written: e.Written})
	}
	return out
}

// mine picks those of the ending leases that s has.
func (l *loop) mine(s *session, ended []state.LeaseEnd) (list []state.LeaseEnd) {
	for _, e := range ended {
		if k, ok := l.st.Chunk(e.Chunk); ok && k.Lease == s.id {
			list = append(list, e)
		}
	}
	return list
}

// leasesEnded tells placement of leases that were given back.
func (l *loop) leasesEnded(ended []state.LeaseEnd) {
	for _, e := range ended {
		if k, ok := l.st.Chunk(e.Chunk); ok && k.Lease == 0 {
			l.chunks.plan.LeaseEnd(e.Chunk, e.Written)
			delete(l.chunks.sets, e.Chunk)
		}
	}
}

// dropWrite turns a mount's W into R. Leases that it has not given back are
// treated like those of a dead writer.
func (l *loop) dropWrite(s *session, ino inode.Ino) {
	l.rights.keep(ino, s, inode.R|inode.D)
	l.reconcileFile(s, ino)
}
