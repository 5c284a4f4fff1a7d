package journal

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
)

// The lease. A follower that has heard its leader neither votes for another one
// nor campaigns for electionTicks ticks (raft's CheckQuorum). The leader puts
// the time into every heartbeat, the follower sends it back; whatever time a
// majority has sent back is one from which on nobody else can have led for that
// long. The leader counts from before the heartbeat was sent, the follower from
// after it arrived, and each on its own clock, so that only their rates must
// agree.
//
// A follower's ticks come from a time.Ticker, which may hold one tick back and
// deliver it late: electionTicks of them may take two less. The rest of the
// margin is for clocks that run at different rates.
const (
	leaseTicks  = electionTicks - 2
	leaseMargin = 20 // one part in so many
)

// reluctance is how long, in ticks, after the last word of a leader a reluctant
// voter's own candidacy may begin: others have won or failed by then.
const reluctance = electionTicks * 2

// lease is what a voter promised and was promised. until and term may be read by any
// goroutine; the rest is the driver's.
type lease struct {
	until atomic.Int64  // clock at which the leader must stop to serve; 0: it does not lead
	term  atomic.Uint64 // that it leads; 0: none

	log      *Log
	length   int64
	acks     map[uint64]int64 // newest send time of a heartbeat that a voter has answered
	won      int64            // clock when this voter began to lead
	spoiled  bool             // leadership was offered to another: no lease in this term any more
	offered  uint64           // tick at which that was
	mute     uint64           // tick up to which no vote is given
	ledAt    uint64           // tick at which a leader was last known
	campaign bool             // the next candidacy was asked for
}

// BootTime is CLOCK_BOOTTIME in nanoseconds.
func BootTime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("BUG: no CLOCK_BOOTTIME: " + err.Error())
	}
	return ts.Nano()
}

// begin starts with what an earlier life of this voter may have promised.
func (l *lease) begin(log *Log) {
	l.log, l.acks = log, map[uint64]int64{}
	d := leaseTicks * log.cfg.Tick
	l.length = int64(d - d/leaseMargin)
	if !log.single && log.w.hard.Term > 0 {
		l.mute = electionTicks
	}
}

// Lease is the time of Config.Clock up to which this voter alone leads, 0 when
// it does not. What was read from the state may be told to others if it is not
// over after the answer was made: it is checked last. It never ends with a
// single voter.
func (l *Log) Lease() int64 { return l.lease.until.Load() }

// Leased tells whether the lease holds now.
func (l *Log) Leased() bool {
	until := l.lease.until.Load()
	return until == math.MaxInt64 || until != 0 && l.cfg.Clock() < until
}

// LeasedIn tells whether this voter leads term and the lease holds now. A lease
// that was won in an earlier term is as good: nobody else has led since.
func (l *Log) LeasedIn(term uint64) bool { return l.Leased() && l.lease.term.Load() == term }

// led notes that this voter begins to lead, or no longer does, or that the
// membership has changed.
func (l *lease) led(leads bool) {
	clear(l.acks)
	l.spoiled = false
	l.term.Store(0)
	if leads {
		l.term.Store(l.log.view.Term)
	}
	switch {
	case !leads:
		l.until.Store(0)
	case len(l.log.st.voters()) == 1:
		l.until.Store(math.MaxInt64)
	default:
		l.until.Store(0)
		l.won = l.log.cfg.Clock()
	}
}

// again has the lease earned anew, when it is another majority that grants it.
func (l *lease) again() {
	clear(l.acks)
	l.won = 0
	switch {
	case l.until.Load() == 0 && l.log.soft.RaftState != raft.StateLeader:
	case len(l.log.st.voters()) == 1:
		l.until.Store(math.MaxInt64)
	default:
		l.until.Store(0)
	}
}

// leaving looks at a message to another voter; false: it is not sent.
func (l *Log) leaving(m *raftpb.Message) bool {
	if l.barred(m) {
		return false
	}
	switch m.GetType() {
	case raftpb.MsgHeartbeat:
		m.Context = binary.LittleEndian.AppendUint64(nil, uint64(l.cfg.Clock()))
	case raftpb.MsgTimeoutNow:
		m.Context = []byte(l.why) // raft has no use for it
		// Its receiver may campaign at any time from now on, and wins although the
		// others have heard of this leader.
		l.lease.spoiled, l.lease.offered = true, l.ticks
		l.lease.until.Store(0)
	case raftpb.MsgSnap:
		if l.snaps == nil {
			l.snaps = map[uint64]uint64{}
		}
		l.snaps[m.GetTo()] = l.ticks
	case raftpb.MsgPreVote:
		if l.cfg.Reluctant && !l.lease.campaign && l.ticks < l.lease.ledAt+reluctance {
			return false
		}
	}
	return true
}

// heard looks at a message of another voter; false: raft does not get it.
func (l *Log) heard(m *raftpb.Message) bool {
	if len(l.identity.List) == 0 {
		return m.GetFrom() == l.cfg.ID // not founded
	}
	l.recognise(m)
	if l.barred(m) {
		return false
	}
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap, raftpb.MsgTimeoutNow:
		if l.hearing.posthumous(l, m) {
			l.inherit(m)
			return false
		}
	}
	switch m.GetType() {
	case raftpb.MsgTimeoutNow:
		l.hearing.offer = cmp.Or(string(m.GetContext()), "it does not say why")
	case raftpb.MsgVote, raftpb.MsgPreVote:
		l.hearing.behind(l, m)
		// A vote for a successor that the leader itself has named breaks no promise.
		return l.ticks >= l.lease.mute || string(m.GetContext()) == "CampaignTransfer"
	case raftpb.MsgHeartbeat:
		if l.holed(m) {
			return false
		}
		l.promise(m)
	case raftpb.MsgApp:
		l.promise(m)
	case raftpb.MsgSnap:
		l.promise(m)
		return l.needsImage(m)
	case raftpb.MsgHeartbeatResp, raftpb.MsgAppResp:
		l.lease.answered(m)
		m.Context = nil
	}
	return true
}

// promise notes that a leader has been heard: for an election timeout this voter
// votes for nobody else, itself included. Raft holds that promise too, but
// forgets it when this voter becomes a candidate.
func (l *Log) promise(m *raftpb.Message) {
	if m.GetTerm() >= l.term() {
		l.lease.ledAt = l.ticks
		l.lease.mute = l.ticks + electionTicks
		l.hearing.hear(l, m)
	}
}

// needsImage deals with a leader's word that its log does not reach back to what
// this voter has. The image is fetched outside; raft hears of it by Install.
func (l *Log) needsImage(m *raftpb.Message) bool {
	index := m.GetSnapshot().GetMetadata().GetIndex()
	if l.cfg.Fetch == nil || index <= l.view.Commit {
		return true // raft tells the leader what is here
	}
	l.cfg.Fetch(m.GetFrom(), index)
	return false
}

// snapTicks is how long a follower may be silent about an image before it is
// told again that it needs one: it may have restarted.
const snapTicks = 2 * electionTicks

// remind tells followers again that they need an image.
func (l *Log) remind() {
	for id, at := range l.snaps {
		if l.ticks > at+snapTicks {
			delete(l.snaps, id)
			l.rn.ReportSnapshot(id, raft.SnapshotFailure)
		}
	}
}

// answered extends the lease when a majority has answered a newer heartbeat.
func (l *lease) answered(m *raftpb.Message) {
	log := l.log
	if log.soft.RaftState != raft.StateLeader || m.GetTerm() != log.term() || l.spoiled {
		return
	}
	at := l.won // an answer in this term: to something that was sent since it began
	if b := m.GetContext(); len(b) == 8 {
		at = int64(binary.LittleEndian.Uint64(b))
	}
	if at <= l.acks[m.GetFrom()] {
		return
	}
	l.acks[m.GetFrom()] = at
	var times []int64
	for _, id := range log.st.voters() {
		if id == log.cfg.ID {
			times = append(times, math.MaxInt64)
		} else {
			times = append(times, l.acks[id])
		}
	}
	slices.Sort(times)
	// The newest time that a majority has reached.
	if at := times[(len(times)-1)/2]; at > 0 && at != math.MaxInt64 {
		l.until.Store(max(l.until.Load(), at+l.length))
	}
}

// tick is raft's clock.
func (l *Log) tick() {
	l.ticks++
	if l.soft.Lead != raft.None {
		l.lease.ledAt, l.lease.campaign = l.ticks, false
	}
	if len(l.identity.List) == 0 {
		return
	}
	l.letGo()
	l.rn.Tick()
	if l.lease.spoiled && l.ticks >= l.lease.offered+electionTicks {
		l.resign()
	}
	l.remind()
	if l.ticks%progressTicks == 0 || l.ticks < l.hearing.freshTo {
		l.progress()
	}
}

// resign gives up a term in which leadership was offered to another voter that
// did not take it. It may still do so, so that this term can have no lease; a
// new one can.
func (l *Log) resign() {
	l.lease.spoiled = false
	if l.soft.RaftState != raft.StateLeader {
		return
	}
	l.cfg.Log.Warn("journal: nobody took over; leaving the term")
	for _, id := range l.st.voters() {
		if id != l.cfg.ID { // as if a voter had told of a later term, which any of them may begin
			term := l.term() + 1
			l.step(&raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), To: &l.cfg.ID, From: &id, Term: &term})
			return
		}
	}
}

// progressTicks is how often Status.Peers is renewed. It is at every tick while
// a leader is new: it may want to hand over at once.
const progressTicks = 4

// progress publishes how far the others are.
func (l *Log) progress() {
	var peers []Peer
	if l.soft.RaftState == raft.StateLeader {
		last := l.st.lastIndex()
		l.rn.WithProgress(func(id uint64, typ raft.ProgressType, pr progressOf) {
			if id == l.cfg.ID {
				return
			}
			p := Peer{ID: id, Match: pr.Match, Active: pr.RecentActive, Learner: typ == raft.ProgressTypeLearner, State: progressState(pr)}
			p.Lag = last - min(last, pr.Match)
			// RecentActive is cleared once per election timeout; the lease knows better.
			if at := l.lease.acks[id]; at > 0 {
				p.Active = l.cfg.Clock()-at < int64(electionTicks*l.cfg.Tick)
			}
			peers = append(peers, p)
		})
	}
	slices.SortFunc(peers, func(a, b Peer) int { return int(a.ID) - int(b.ID) })
	l.promote(peers)
	l.m.lags(l, peers)
	l.mu.Lock()
	l.view.Peers = peers
	l.mu.Unlock()
}

// ElectionTimeout is how long a follower waits for its leader at least.
func (l *Log) ElectionTimeout() time.Duration { return electionTicks * l.cfg.Tick }
