package master

import (
	"runtime/debug"
	"slices"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// A standby applies the changelog as it is committed, so that its tree is the
// leader's. Chunkservers tell it their copies as they tell the leader; it keeps
// the lists as they are and makes its placement of them when it begins to lead.
// Mounts keep a connection to it and ask who leads.

// standby serves a request while another master leads, or none.
func (l *loop) standby(q *request, m wire.Message) {
	switch m := m.(type) {
	case *wire.Who:
		q.again()
		return
	case *wire.Admin:
		if m.What == wire.AskStatus {
			q.again()
			return
		}
	case *wire.Register:
		l.standbyRegister(q, m)
		return
	case *wire.Report:
		l.standbyReport(q, m)
		return
	case *wire.Beat:
		if s := l.serverOf(q); s != nil {
			s.beat = *m
			l.reply(q, &wire.Empty{})
		}
		return
	case *wire.Trouble:
		if s := l.serverOf(q); s != nil {
			for _, id := range m.Lost {
				delete(s.warm, id)
			}
			l.reply(q, &wire.Empty{})
		}
		return
	}
	l.refuse(q, notLeading)
}

// followed notes when a standby has caught up: when it has applied what the leader
// had committed by its first word to this standby.
func (l *loop) followed() {
	if !l.behind || l.net == nil {
		return
	}
	if leader := l.log.Status().Leader; l.goal == 0 && leader != 0 {
		for _, b := range l.net.Beats() {
			if b.ID == leader {
				l.goal = b.Commit
			}
		}
	}
	if l.goal != 0 && l.index >= l.goal {
		l.caughtUp()
	}
}

// caughtUp ends the start of a master: what comes behind is new.
func (l *loop) caughtUp() {
	if l.behind {
		l.behind = false
		l.met.started("changelog", time.Since(l.opened))
		go debug.FreeOSMemory() // what reading image and changelog took is not needed again
	}
}

// standbyRegister takes a chunkserver in that the changelog knows. A new one has
// to be known to the leader first; it tries again.
func (l *loop) standbyRegister(q *request, m *wire.Register) {
	cluster := l.st.Cluster()
	known := slices.ContainsFunc(l.st.Servers(), func(s state.ServerInfo) bool {
		return s.ID == m.Server && s.Addr == m.Addr && s.Labels == m.Labels
	})
	switch {
	case m.Server == 0 || m.Cluster != "" && cluster != "" && m.Cluster != cluster:
		l.refuse(q, status.Errorf(status.Invalid, "the disks belong to cluster %s, this is %s", m.Cluster, cluster))
		return
	case cluster == "" || !known:
		l.refuse(q, notLeading)
		return
	}
	room := l.chunks
	s := room.servers[m.Server]
	if s == nil {
		s = &chunkd{id: m.Server}
		room.servers[m.Server] = s
	} else if s.conn != nil {
		s.conn.Close()
	}
	s.conn, s.reg, s.beat, s.seen, s.told = q.conn, *m, wire.Beat{Disks: m.Disks}, l.now, false
	s.warm = map[chunk.ID]chunk.Version{}
	q.conn.SetValue(s)
	l.slog.Info("chunkserver connected to this standby", "server", s.id, "addr", m.Addr)
	l.reply(q, &wire.RegisterReply{Cluster: cluster, BeatMillis: uint32(l.cfg.Beat.Milliseconds())})
}

// standbyReport keeps what a chunkserver tells.
func (l *loop) standbyReport(q *request, m *wire.Report) {
	s := l.serverOf(q)
	if s == nil {
		return
	}
	for _, id := range m.Gone {
		delete(s.warm, id)
	}
	for _, c := range append(m.Copies, m.Raised...) {
		s.warm[c.Chunk] = c.Version
	}
	s.told = s.told || m.Last
	l.reply(q, &wire.Empty{})
}

// takeOverChunks begins to lead chunkservers: placement is made anew from the
// tree and from the lists of those that are connected. Each is told who leads,
// which fences it against the old leader, and tells what is new since its last
// report before it answers. Until then its list is not relied on.
func (l *loop) takeOverChunks() {
	warm := l.chunks.servers
	l.startChunks()
	for id, s := range warm {
		if s.conn == nil {
			continue
		}
		l.chunks.servers[id] = s
	}
	for _, s := range l.chunks.sortedServers() {
		l.takeOver(s)
	}
	l.warmUp()
}

func (l *loop) takeOver(s *chunkd) {
	plan := l.chunks.plan
	plan.ServerUp(l.nanos(), s.space())
	plan.Warm(l.nanos(), s.id, s.warm)
	complete := s.told
	s.told, s.warm = false, nil
	conn := s.conn
	l.order(s.id, l.cfg.OrderLimit, &wire.Lead{Epoch: l.epoch}, nil, func(err error) {
		if s.conn != conn {
			return // it has registered again
		}
		if err != nil {
			l.slog.Warn("chunkserver does not follow; it has to register again", "server", s.id, "addr", s.reg.Addr, "err", err)
			conn.Close()
			return
		}
		if complete {
			l.whenWarm(func() {
				if s.conn == conn {
					plan.Report(l.nanos(), s.id, nil, true)
					l.toldAll(s)
				}
			})
		}
	})
}

// warmSlice is how many copies of the lists one turn of the loop takes in.
const warmSlice = 4096

// warmUp takes in the lists, some in each turn of the loop.
func (l *loop) warmUp() {
	room := l.chunks
	var step func()
	step = func() {
		switch {
		case l.chunks != room:
		case room.plan.Warming(warmSlice):
			l.in.post(func(*loop) { step() }) // false: the loop has ended
		default:
			room.isWarm = true
			for _, f := range room.whenWarm {
				l.later(f)
			}
			room.whenWarm = nil
		}
	}
	step()
}

// whenWarm runs f when all lists are taken in.
func (l *loop) whenWarm(f func()) {
	if l.chunks.isWarm {
		f()
		return
	}
	l.chunks.whenWarm = append(l.chunks.whenWarm, f)
}

// whoAsks is a question who leads that waits for its answer.
type whoAsks struct {
	q     *request
	until time.Time
}

// maxAsking bounds the questions that wait; further ones are answered at once.
const maxAsking = 10_000

// who answers wire.Who: at once when this master leads and serves, else when it
// does or when the time is over.
func (l *loop) who(q *request, m *wire.Who) {
	if l.helm.Ready() || m.WaitMillis == 0 || len(l.asking) >= maxAsking {
		l.reply(q, l.whoReply())
		return
	}
	wait := time.Duration(min(m.WaitMillis, 10_000)) * time.Millisecond
	l.asking = append(l.asking, &whoAsks{q, l.now.Add(wait)})
}

func (l *loop) whoReply() *wire.WhoReply {
	return &wire.WhoReply{Leads: l.helm.Ready(), Epoch: l.epoch, Masters: l.masters()}
}

// tellWho answers all who wait to hear who leads: this master does.
func (l *loop) tellWho() {
	for _, a := range l.asking {
		l.reply(a.q, l.whoReply())
	}
	l.asking = nil
}

// tellLate answers those who have waited long enough.
func (l *loop) tellLate() {
	l.asking = slices.DeleteFunc(l.asking, func(a *whoAsks) bool {
		late := l.now.After(a.until)
		if late {
			l.reply(a.q, l.whoReply())
		}
		return late
	})
}
