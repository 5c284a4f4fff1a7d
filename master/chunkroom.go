package master

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/master/placement"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// chunkRoom is what the loop knows of chunkservers and copies.
type chunkRoom struct {
	plan    *placement.Placement
	servers map[chunk.Server]*chunkd
	sets    map[chunk.ID]struct{} // leased chunks whose set of servers is known
	waits   []*serverWait
	lost    map[chunk.ID]*reconciling // chunks whose writer is gone
	raising map[chunk.ID]*raise       // chunks whose copies are being raised
	ahead   map[chunk.Server]uint64   // chunkservers that have obeyed a later epoch, which is given
	nudged  time.Time                 // when writers of short chunks were last asked to end their leases

	counting bool     // plan does not yet know all chunks of the tree
	isWarm   bool     // plan has all that chunkservers told this master as a standby
	whenWarm []func() // what waits for that
}

// chunkd is one chunkserver that has registered since this master leads.
type chunkd struct {
	id   chunk.Server
	conn *link.Conn // nil: down
	reg  wire.Register
	beat wire.Beat
	seen time.Time
	told bool // has listed all its copies

	// warm is what it has listed, while this master does not lead.
	warm map[chunk.ID]chunk.Version
}

// serverWait is something that waits for chunkservers to come back.
type serverWait struct {
	until time.Time
	run   func()
}

func newChunkRoom() *chunkRoom {
	return &chunkRoom{servers: map[chunk.Server]*chunkd{}, sets: map[chunk.ID]struct{}{}, lost: map[chunk.ID]*reconciling{}, raising: map[chunk.ID]*raise{}, ahead: map[chunk.Server]uint64{}}
}

// startChunks tells placement what the changelog knows.
func (l *loop) startChunks() {
	l.chunks = newChunkRoom()
	l.chunks.plan = placement.New(placement.Config{
		Seed:  uint64(l.begun.UnixNano()),
		Delay: int64(l.cfg.RepairDelay), EndangeredDelay: int64(min(time.Second, l.cfg.RepairDelay)),
		Incoming: l.cfg.RepairPerServer, Outgoing: l.cfg.RepairPerServer,
	}, stateView{l.st})
	var known []chunk.Server
	for _, s := range l.st.Servers() {
		known = append(known, s.ID)
	}
	plan := l.chunks.plan
	plan.Start(l.nanos(), known)
	// Chunks count as missing from when they were met here. Whatever is known of
	// one before that is not lost by it.
	begun := time.Now()
	l.chunks.counting = true
	l.walkChunks(func(c state.ChunkInfo) { plan.Load(c.ID) }, func(err error) {
		if err == nil {
			l.chunks.counting = false
			l.met.started("chunks", time.Since(begun))
		}
	})
}

// stateView lets placement look into the tree.
type stateView struct{ st *state.State }

// Chunk is placement.View's.
func (v stateView) Chunk(id chunk.ID) (placement.Want, bool) {
	c, ok := v.st.Chunk(id)
	return wantOf(&c), ok
}

// Allocated is placement.View's.
func (v stateView) Allocated(id chunk.ID) bool { return v.st.Allocated(id) }

func wantOf(c *state.ChunkInfo) placement.Want {
	return placement.Want{Version: c.Version, Min: c.Min, Goal: c.Goal, Leased: c.Lease != 0}
}

// nanos is now as placement counts time: since the start.
func (l *loop) nanos() int64 { return int64(l.now.Sub(l.begun)) }

// effects tells placement what an entry did.
func (l *loop) effects(e *state.Effects) {
	for _, f := range e.Freed {
		l.chunks.plan.Freed(f.ID, f.Version)
		delete(l.chunks.sets, f.ID)
		l.ceased(f.ID)
	}
	for _, id := range e.Goal {
		l.chunks.plan.Changed(id)
	}
}

// register answers wire.Register.
func (l *loop) register(q *request, m *wire.Register) {
	switch {
	case m.Server == 0:
		l.refuse(q, status.Errorf(status.Invalid, "a chunkserver without identity"))
		return
	case m.Cluster != "" && m.Cluster != l.st.Cluster():
		l.slog.Error("chunkserver of another cluster refused", "addr", m.Addr, "its cluster", m.Cluster, "cluster", l.st.Cluster())
		l.refuse(q, status.Errorf(status.Invalid, "the disks belong to cluster %s, this is %s", m.Cluster, l.st.Cluster()))
		return
	case m.Epoch > l.epoch:
		l.outdated(q, m)
		return
	}
	known := slices.ContainsFunc(l.st.Servers(), func(s state.ServerInfo) bool {
		return s.ID == m.Server && s.Addr == m.Addr && s.Labels == m.Labels
	})
	if known {
		l.welcome(q, m)
		return
	}
	l.log1(&state.ServerSeen{ID: m.Server, Addr: m.Addr, Labels: m.Labels}, func(_ state.Result, err error) {
		if err != nil {
			l.refuse(q, err)
			return
		}
		l.welcome(q, m)
	})
}

// outdated refuses a chunkserver that has obeyed a master of a later epoch. That is
// how a master may learn that it was deposed. But if its lease holds nobody can have deposed
// it: its directory is older than that master's, a backup for example.
func (l *loop) outdated(q *request, m *wire.Register) {
	if !l.log.Leased() {
		l.slog.Warn("chunkserver has obeyed a master of a later epoch", "addr", m.Addr, "its epoch", m.Epoch, "epoch", l.epoch)
		l.refuse(q, status.Errorf(status.OldEpoch, "epoch %d here, %d there", l.epoch, m.Epoch))
		return
	}
	ahead := l.chunks.ahead
	if _, said := ahead[m.Server]; !said {
		l.slog.Error("chunkserver refused: it has obeyed a master of a later epoch, so that this master's directory is an older state. If the newer one is lost: "+l.newEpoch(m.Epoch),
			"addr", m.Addr, "its epoch", m.Epoch, "epoch", l.epoch)
	}
	ahead[m.Server] = m.Epoch
	l.refuse(q, status.Errorf(status.OldEpoch, "epoch %d here, %d there: the master's directory is an older state; if the newer one is lost, 'varve master recover --epoch %d' on its host",
		l.epoch, m.Epoch, m.Epoch))
}

// newEpoch says how this master comes to an epoch above those that have been seen.
func (l *loop) newEpoch(seen uint64) string {
	return fmt.Sprintf("stop all masters and metaloggers, then 'varve master recover --dir %s --epoch %d --yes'", l.cfg.Dir, seen)
}

// aheadProblem tells of chunkservers that outdated has refused.
func (l *loop) aheadProblem(s *wire.Status) {
	var seen uint64
	for _, epoch := range l.chunks.ahead {
		seen = max(seen, epoch)
	}
	if n := len(l.chunks.ahead); n > 0 {
		s.Problems = append(s.Problems, fmt.Sprintf("%d chunkservers are refused: they have obeyed a master of epoch %d, this one leads epoch %d. Its directory is older than that master's. "+
			"Start that one instead; if it is lost: %s.", n, seen, l.epoch, l.newEpoch(seen)))
	}
}

// welcome takes a chunkserver in. One that was connected before is replaced: it
// has restarted, or its connection was lost without a word.
func (l *loop) welcome(q *request, m *wire.Register) {
	room := l.chunks
	s := room.servers[m.Server]
	if s == nil {
		s = &chunkd{id: m.Server}
		room.servers[m.Server] = s
	} else if s.conn != nil {
		old := s.conn
		l.serverGone(old)
		old.Close()
	}
	delete(room.ahead, m.Server)
	s.conn, s.reg, s.beat, s.seen, s.told = q.conn, *m, wire.Beat{Disks: m.Disks}, l.now, false
	q.conn.SetValue(s)
	room.plan.ServerUp(l.nanos(), s.space())
	l.slog.Info("chunkserver connected", "server", s.id, "addr", m.Addr, "disks", len(m.Disks))
	l.reply(q, &wire.RegisterReply{Cluster: l.st.Cluster(), Epoch: l.epoch, BeatMillis: uint32(l.cfg.Beat.Milliseconds())})
}

// slowShare is how much less room counts on a disk that is slow. It counts for something:
// where all are slow, one of them must do.
const slowShare = 64

// space sums up a server's disks.
func (s *chunkd) space() placement.ServerInfo {
	info := placement.ServerInfo{ID: s.id}
	for i := range s.beat.Disks {
		if d := &s.beat.Disks[i]; !d.Failed {
			info.Total += d.Total
			if d.Slow {
				info.Free += d.Free / slowShare
			} else {
				info.Free += d.Free
			}
		}
	}
	return info
}

// serverOf is the chunkserver that a request comes from, nil when its
// connection was replaced or it has not registered.
func (l *loop) serverOf(q *request) *chunkd {
	s, _ := q.conn.Value().(*chunkd)
	if s == nil || s.conn != q.conn {
		l.refuse(q, status.Errorf(status.Stale, "this connection has not registered"))
		return nil
	}
	s.seen = l.now
	return s
}

// serverGone notes that a chunkserver's connection has ended.
func (l *loop) serverGone(c *link.Conn) {
	s, _ := c.Value().(*chunkd)
	if s == nil || s.conn != c {
		return
	}
	s.conn = nil
	if l.chunks.plan == nil || l.chunks.servers[s.id] != s {
		return // this master is a standby, or was deposed since the chunkserver came
	}
	l.slog.Warn("chunkserver lost", "server", s.id, "addr", s.reg.Addr, "err", c.Err())
	l.chunks.plan.ServerDown(l.nanos(), s.id)
}

// report answers wire.Report.
func (l *loop) report(q *request, m *wire.Report) {
	s := l.serverOf(q)
	if s == nil {
		return
	}
	if !s.told { // a takeover is under way: the new version may be news here
		m.Copies = append(m.Copies, m.Raised...)
	}
	copies := make([]placement.Copy, len(m.Copies))
	for i, c := range m.Copies {
		copies[i] = placement.Copy{Chunk: c.Chunk, Version: c.Version}
	}
	l.chunks.plan.Report(l.nanos(), s.id, copies, m.Last)
	l.reply(q, &wire.Empty{})
	if m.Last {
		l.toldAll(s)
	}
}

// toldAll notes that all copies of a chunkserver are known.
func (l *loop) toldAll(s *chunkd) {
	if s.told {
		return
	}
	s.told = true
	l.slog.Info("chunkserver has told its copies", "server", s.id, "addr", s.reg.Addr)
	l.wakeServerWaits()
	l.retryReconciles()
}

// beat answers wire.Beat.
func (l *loop) beat(q *request, m *wire.Beat) {
	if s := l.serverOf(q); s != nil {
		s.beat = *m
		l.chunks.plan.Beat(l.nanos(), s.space())
		l.reply(q, &wire.Empty{})
	}
}

// trouble answers wire.Trouble.
func (l *loop) trouble(q *request, m *wire.Trouble) {
	s := l.serverOf(q)
	if s == nil {
		return
	}
	if len(m.Lost) > 0 {
		l.slog.Warn("chunkserver has lost copies", "server", s.id, "addr", s.reg.Addr, "copies", len(m.Lost))
		l.chunks.plan.Lost(s.id, m.Lost)
	}
	if len(m.Damaged) > 0 {
		l.slog.Warn("chunkserver has damaged copies", "server", s.id, "addr", s.reg.Addr, "copies", len(m.Damaged))
		l.chunks.plan.Damaged(s.id, m.Damaged)
	}
	l.reply(q, &wire.Empty{})
}

// awaitServers runs f again when a chunkserver has come back; false: q has
// waited long enough, or no server is missing.
func (l *loop) awaitServers(q *request, f func()) bool {
	if !l.patient(q) || !l.serversMissing() {
		return false
	}
	l.chunks.waits = append(l.chunks.waits, &serverWait{q.patience, f})
	return true
}

// patient tells whether q may wait for chunkservers any longer.
func (l *loop) patient(q *request) bool {
	if q.patience.IsZero() {
		q.patience = l.now.Add(l.cfg.ServerWait)
	}
	return !l.now.After(q.patience)
}

// serversMissing tells whether a chunkserver of the changelog is not connected
// or has not told all its copies, or there is none at all.
func (l *loop) serversMissing() bool {
	known := l.st.Servers()
	return len(known) == 0 || slices.ContainsFunc(known, func(s state.ServerInfo) bool {
		c := l.chunks.servers[s.ID]
		return c == nil || c.conn == nil || !c.told
	})
}

func (l *loop) wakeServerWaits() {
	for _, w := range l.chunks.waits {
		l.later(w.run)
	}
	l.chunks.waits = nil
}

// chunkTick carries on repair and lets those go on who have waited too long.
func (l *loop) chunkTick() {
	waits := l.chunks.waits
	l.chunks.waits = nil
	for _, w := range waits {
		if l.now.After(w.until) {
			l.later(w.run)
		} else {
			l.chunks.waits = append(l.chunks.waits, w)
		}
	}
	for _, o := range l.chunks.plan.Next(l.nanos()) {
		l.carryOut(o)
	}
	l.retryReconciles()
	if l.now.Sub(l.chunks.nudged) > nudgeTime {
		l.chunks.nudged = l.now
		l.nudgeWriters()
	}
}

// nudgeTime is how often writers of chunks with too few copies are asked to end
// their leases, so that the chunks can be copied.
const nudgeTime = 5 * time.Second

// maxNudges bounds what one round asks for.
const maxNudges = 256

// nudgeWriters recalls W from mounts that write to chunks which have lost
// copies: only without a lease can a chunk be copied.
func (l *loop) nudgeWriters() {
	ready := 0
	for _, s := range l.chunks.servers {
		if s.conn != nil && s.told {
			ready++
		}
	}
	n := 0
	l.st.Leases(func(c state.ChunkInfo) bool {
		if copies := len(l.validCopies(c.ID)); copies == 0 || copies >= min(int(c.Goal), ready) {
			return true
		}
		n++
		for _, h := range l.rights.holders(nil, c.Ino, nil, inode.W) {
			l.recallFrom(nil, h.s, c.Ino, inode.R|inode.D)
		}
		return n < maxNudges
	})
}

// sortedServers lists the chunkservers by identity.
func (r *chunkRoom) sortedServers() []*chunkd {
	list := make([]*chunkd, 0, len(r.servers))
	for _, s := range r.servers {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *chunkd) int { return cmp.Compare(a.id, b.id) })
	return list
}
