package master

import (
	"fmt"
	"math"
	"os"
	"runtime/metrics"
	"slices"
	"strconv"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/master/placement"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// status describes the whole cluster.
func (l *loop) status() *wire.Status {
	s := &wire.Status{
		Cluster: l.st.Cluster(), Version: l.cfg.Version, Time: l.now.UnixNano(),
		Masters: append([]wire.MasterStatus{l.masterStatus()}, l.voterStatus()...), Servers: []wire.ServerStatus{}, Mounts: []wire.MountStatus{},
		Rates: l.rates, Problems: []string{},
	}
	t := l.st.Totals()
	s.Inodes = wire.InodeStatus{Total: t.Inodes, Files: t.Files, Dirs: t.Dirs, Orphans: t.Orphans, Bytes: t.Length}
	if !l.helm.Ready() {
		s.Problems = append(s.Problems, l.whoLeads(s))
		l.voterProblems(s)
		return s
	}
	s.Failover = l.failover
	l.serverStatus(s)
	l.chunkStatus(s)
	for _, m := range l.sortedSessions() {
		s.Mounts = append(s.Mounts, l.mountStatus(m))
	}
	l.problems(s)
	l.voterProblems(s)
	l.aheadProblem(s)
	return s
}

func (l *loop) masterStatus() wire.MasterStatus {
	log := l.log.Status()
	m := wire.MasterStatus{
		ID: l.cfg.ID, Version: l.cfg.Version, Commit: log.Commit, Match: log.Last, Raft: l.cfg.Peers[l.cfg.ID],
		Name: l.cfg.Name, Role: "standby", Pid: os.Getpid(), Addr: l.reachable(l.cfg.ClientAddr), Epoch: log.Term,
		Applied: l.index, ImageAt: l.images.last.Index, UptimeSec: l.now.Sub(l.begun).Seconds(),
		LoopBusy: l.met.figures.Load().busy, MemBytes: memory(),
	}
	if l.due > 0 {
		lag := l.due - min(l.due, l.index)
		m.Lag = &lag
	}
	m.HoldsVIP, m.Trouble = l.holdsVIP(), log.Trouble
	if l.helm.Ready() {
		m.Role = "leader"
		m.Lease, m.LeaseLeft = l.leaseStatus()
	}
	return m
}

// leaseStatus describes the lease of a leader.
func (l *loop) leaseStatus() (text string, seconds float64) {
	until := l.log.Lease()
	switch left := time.Duration(until - journal.BootTime()); {
	case until == math.MaxInt64:
		return "alone", 0
	case until == 0 || left <= 0:
		return "none", 0
	default:
		return "held", left.Seconds()
	}
}

// holdsVIP tells whether this host has the virtual addresses.
func (l *loop) holdsVIP() bool {
	e := l.elections.Load()
	return e != nil && (*e).Holds()
}

// tookOver notes how this master came to lead, when it begins to serve.
func (l *loop) tookOver() {
	l.failover = nil
	how, ok := l.log.Takeover()
	if !ok || how.Term != l.epoch {
		return
	}
	f := &wire.FailoverStatus{
		Time: l.now.UnixNano(), Epoch: l.epoch, From: how.From, To: l.cfg.ID, ToName: l.cfg.Name, Cause: how.Cause,
		Silent: how.Silent.Seconds(), Votes: how.Votes.Seconds(), Ready: time.Duration(journal.BootTime() - how.Won).Seconds(),
	}
	if l.net != nil {
		for _, b := range l.net.Beats() {
			if b.ID == f.From {
				f.FromName = b.Name
			}
		}
	}
	l.failover = f
	l.met.takeoverSeconds.Update(f.Votes + f.Ready)
	l.slog.Info("serving", "epoch", l.epoch, "cause", f.Cause, "votes took", how.Votes, "then", time.Duration(f.Ready*1e9).Round(100*time.Microsecond))
}

// memory is what the runtime has from the host, in bytes, without the pause of
// runtime.ReadMemStats.
func memory() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}

// serverStatus lists all chunkservers of the changelog, and sums up those that are up.
func (l *loop) serverStatus(s *wire.Status) {
	counts := map[chunk.Server]uint64{}
	for _, p := range l.chunks.plan.Servers() {
		counts[p.ID] = p.Copies
	}
	for _, known := range l.st.Servers() {
		out := wire.ServerStatus{
			ID: known.ID.String(), Addr: known.Addr, Labels: known.Labels, State: "down", Chunks: counts[known.ID], Disks: []wire.DiskStatus{},
		}
		if c := l.chunks.servers[known.ID]; c != nil {
			l.describeServer(&out, c)
			if c.conn != nil {
				out.State = "up"
				s.Space.Total += out.Total
				s.Space.Used += out.Used
				s.Space.Free += out.Free
			}
		}
		s.Servers = append(s.Servers, out)
	}
}

func (l *loop) describeServer(out *wire.ServerStatus, c *chunkd) {
	out.Addr, out.HTTP, out.Pid, out.Version, out.Labels = c.reg.Addr, c.reg.HTTP, int(c.reg.Pid), c.reg.Version, c.reg.Labels
	out.Read, out.Written, out.Reads, out.Writes = c.beat.ReadBytes, c.beat.WriteBytes, c.beat.ReadOps, c.beat.WriteOps
	out.Errors, out.Queue, out.Seen = c.beat.Errors, c.beat.Queue, l.now.Sub(c.seen).Seconds()
	for i := range c.beat.Disks {
		d := &c.beat.Disks[i]
		state := "ok"
		switch {
		case d.Failed:
			state = "failed"
		case d.Slow:
			state = "slow"
		case d.Free < chunk.Size:
			state = "full"
		}
		out.Disks = append(out.Disks, wire.DiskStatus{
			Path: d.Path, State: state, Error: d.Error, Backend: d.Backend,
			Total: d.Total, Used: d.Used, Free: d.Free, Chunks: d.Chunks, Damaged: d.Damaged,
			ScrubPasses: d.Scrub.Passes, ScrubProgress: float64(d.Scrub.Done) / max(1, float64(d.Scrub.All)),
			ScrubFinished: d.Scrub.Finished, ScrubFound: d.Scrub.Found,
		})
		if !d.Failed {
			out.Total += d.Total
			out.Used += d.Used
			out.Free += d.Free
		}
	}
}

// placed sums up the copies. A chunk that was made ahead for its writer, who has not
// written yet, is not missing, though a master that begins to lead knows of no copies.
// While a chunkserver is away nobody can tell.
func (l *loop) placed() placement.Stats {
	p := l.chunks.plan.Stats()
	if p.Missing == 0 || l.serversMissing() {
		return p
	}
	l.st.Leases(func(c state.ChunkInfo) bool {
		if c.Fresh && len(l.validCopies(c.ID)) == 0 {
			p.Missing--
		}
		return p.Missing > 0
	})
	return p
}

func (l *loop) chunkStatus(s *wire.Status) {
	p := l.placed()
	s.Chunks = wire.ChunkStatus{
		Total: p.Chunks, Copies: p.Copies, UnderGoal: p.UnderGoal, OverGoal: p.OverGoal, Missing: p.Missing,
		Damaged: p.Damaged, Leased: p.Leased, Replicating: p.Replicating, Deleting: p.Deleting,
	}
	for _, row := range l.chunks.plan.Matrix() {
		s.Chunks.Matrix = append(s.Chunks.Matrix, append([]uint64(nil), row[:]...))
	}
	for len(s.Chunks.Matrix) < 11 {
		s.Chunks.Matrix = append(s.Chunks.Matrix, make([]uint64, 11))
	}
}

func (l *loop) mountStatus(m *session) wire.MountStatus {
	out := wire.MountStatus{
		Session: strconv.FormatUint(m.id, 10), Host: m.host, Addr: m.addr, Version: m.version, Mount: m.mount, Path: m.path, ReadOnly: m.readOnly,
		State: "lost", Open: len(m.open), Rights: m.rights.count, Seen: l.now.Sub(m.seen).Seconds(), Ops: m.ops,
	}
	if m.state == sessionAttached {
		out.State = "connected"
	}
	return out
}

// problems says in sentences what an operator should look at.
func (l *loop) problems(s *wire.Status) {
	add := func(format string, args ...any) { s.Problems = append(s.Problems, fmt.Sprintf(format, args...)) }
	if len(s.Servers) == 0 {
		add("No chunkserver has ever connected: nothing can be written.")
	}
	for i := range s.Servers {
		srv := &s.Servers[i]
		if srv.State == "down" {
			add("Chunkserver %s (%s) is not connected.", srv.ID, srv.Addr)
		}
		for _, d := range srv.Disks {
			switch {
			case srv.State == "down":
			case d.State == "failed":
				add("Disk %s of chunkserver %s has failed: %s.", d.Path, srv.Addr, d.Error)
			case d.State == "slow":
				add("Disk %s of chunkserver %s is slow: %s. Nothing new is placed on it.", d.Path, srv.Addr, d.Error)
			case d.State == "full":
				add("Disk %s of chunkserver %s is full.", d.Path, srv.Addr)
			}
		}
	}
	if l.cfg.Concerns != nil {
		s.Problems = append(s.Problems, l.cfg.Concerns()...)
	}
	if l.chunks.counting {
		add("The chunks are still being counted since this master began to lead: %d of %d.", s.Chunks.Total, l.st.Totals().Chunks)
	}
	if n := s.Chunks.Missing; n > 0 {
		add("%d chunks have no usable copy.", n)
	}
	if n := s.Chunks.UnderGoal; n > 0 {
		add("%d chunks have fewer copies than their goal; %d are being copied.", n, s.Chunks.Replicating)
	}
	if text := l.goalProblem(s); text != "" {
		add("%s", text)
	}
	if n := s.Chunks.Damaged; n > 0 {
		add("%d damaged copies were reported since the master started.", n)
	}
	if l.inGrace() {
		add("%d mounts have not come back since the master started; changes wait for them up to %v.", l.returning, l.cfg.SessionLease)
	}
	if n := len(l.chunks.lost); n > 0 {
		add("%d chunks of writers that are gone are being reconciled.", n)
	}
}

// goalProblem says so when there are not as many chunkservers as copies are wanted:
// then new data has too few from the moment it is acknowledged.
func (l *loop) goalProblem(s *wire.Status) string {
	goal := int(l.attr(inode.Root).Goal)
	for g, row := range s.Chunks.Matrix {
		if g > goal && slices.Max(row) > 0 {
			goal = g
		}
	}
	up := 0
	for i := range s.Servers {
		if s.Servers[i].State == "up" {
			up++
		}
	}
	switch {
	case len(s.Servers) == 0 || up >= goal:
		return ""
	case up < min(l.cfg.MinCopies, goal):
		return fmt.Sprintf("Connected chunkservers: %d. No chunk is made or opened for writing with fewer than %d copies (master.min-copies).", up, min(l.cfg.MinCopies, goal))
	default:
		return fmt.Sprintf("Connected chunkservers: %d, and goals ask for up to %d copies: what is written now gets fewer, and is acknowledged with %d (master.min-copies).",
			up, goal, min(l.cfg.MinCopies, goal))
	}
}

// statFS answers wire.StatFS.
func (l *loop) statFS(q *request, _ *wire.StatFS) {
	goal := max(uint64(l.attr(inode.Root).Goal), 1)
	reply := &wire.StatFSReply{Inodes: l.st.Totals().Inodes}
	for _, c := range l.chunks.servers {
		if c.conn != nil {
			space := c.space()
			reply.Total += space.Total
			reply.Free += space.Free
		}
	}
	reply.Total /= goal
	reply.Free /= goal
	l.reply(q, reply)
}

// askFileInfo tells where a file's chunks are.
func (l *loop) askFileInfo(args wire.InoArgs) (*wire.FileInfo, error) {
	a, err := l.file(args.Ino)
	if err != nil {
		return nil, err
	}
	info := &wire.FileInfo{Ino: args.Ino, Path: l.st.PathOf(a.Ino), Size: a.Size, Goal: a.Goal, Chunks: []wire.ChunkInfo{}}
	l.st.FileChunks(a.Ino, 0, ^uint32(0), func(k state.ChunkSlot) bool {
		info.Chunks = append(info.Chunks, l.chunkInfo(&k))
		return len(info.Chunks) <= maxListed
	})
	if len(info.Chunks) > maxListed {
		return nil, status.Errorf(status.TooBig, "%s has more than %d chunks, too many to list; checkfile counts them", info.Path, maxListed)
	}
	return info, nil
}

func (l *loop) chunkInfo(k *state.ChunkSlot) wire.ChunkInfo {
	out := wire.ChunkInfo{Index: k.Index, ID: k.ID.String(), Version: uint32(k.Version), Leased: k.Lease != 0, Copies: []wire.CopyInfo{}}
	for _, c := range l.chunks.plan.Copies(k.ID) {
		if !c.Up {
			continue
		}
		info := wire.CopyInfo{Server: c.Server.String(), State: "stale"}
		switch c.State {
		case placement.Valid:
			info.State = "valid"
		case placement.Damaged:
			info.State = "damaged"
		}
		if s := l.chunks.servers[c.Server]; s != nil {
			info.Addr = s.reg.Addr
		}
		out.Copies = append(out.Copies, info)
	}
	return out
}

// askCheckFile counts a file's chunks by their valid copies.
func (l *loop) askCheckFile(args wire.InoArgs) (*wire.CheckFile, error) {
	a, err := l.file(args.Ino)
	if err != nil {
		return nil, err
	}
	check := &wire.CheckFile{Ino: args.Ino, Path: l.st.PathOf(a.Ino), Copies: make([]uint64, 11)}
	l.st.FileChunks(a.Ino, 0, ^uint32(0), func(k state.ChunkSlot) bool {
		check.Chunks++
		check.Copies[min(len(l.validCopies(k.ID)), 10)]++
		return true
	})
	return check, nil
}

// measure publishes the figures of the last second.
func (l *loop) measure() {
	seconds := l.now.Sub(l.rateAt).Seconds()
	rate := func(n uint64) uint64 { return uint64(float64(n)/seconds + 0.5) }
	l.rates = wire.RateStatus{Reads: rate(l.reads), Changes: rate(l.changes), Batches: rate(l.batches)}
	l.reads, l.changes, l.batches, l.rateAt = 0, 0, 0, l.now
	l.due, l.dueNext = l.dueNext, l.log.Status().Commit
	l.describeSelf()
	t := l.st.Totals()
	held, waiting := l.locks.Len()
	f := &figures{
		busy:   l.busy.share(l.now),
		inodes: float64(t.Inodes), orphans: float64(t.Orphans), chunks: float64(t.Chunks), leases: float64(t.Leases),
		sessions: float64(len(l.sessions)), rights: float64(l.rights.count), locks: float64(held), lockWaiters: float64(waiting),
		index: float64(l.index), imageIndex: float64(l.images.last.Index), graceWaiting: float64(len(l.graceQueue)),
	}
	if l.helm.Ready() {
		p := l.placed()
		f.under, f.missing, f.over = float64(p.UnderGoal), float64(p.Missing), float64(p.OverGoal)
		for _, c := range l.chunks.servers {
			if c.conn != nil {
				f.servers++
			}
		}
	}
	l.met.figures.Store(f)
}
