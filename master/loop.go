package master

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/master/helm"
	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/master/locks"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/master/voters"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// tickTime is how often the loop looks at what depends on time alone.
const tickTime = 100 * time.Millisecond

// loop is the one goroutine that owns the tree and everything that is known
// about mounts and chunkservers. Its fields are touched by it alone unless they
// say otherwise.
type loop struct {
	cfg    Config
	in     *inbox
	log    *journal.Log
	net    *voters.Net // nil: the only voter
	st     *state.State
	met    *meters
	slog   *slog.Logger
	images *images
	begun  time.Time
	opened time.Time // when its image was read
	behind bool      // the changelog behind it is not applied yet
	goal   uint64    // entry up to which a standby has to apply it; 0: not known

	now     time.Time // when this turn began
	ticked  time.Time // last tick
	soon    []func()  // what this turn still has to do
	taken   []func(*loop)
	hurry   bool          // more work waits in this turn: leave the sending of replies to others
	stopped chan struct{} // closed when the loop has ended
	err     error         // why, if not at Close's wish; read after stopped

	// The changelog.
	helm     *helm.Helm
	epoch    uint64 // term that this master leads
	early    []func()
	batch    *batch
	inFlight int
	lastTime int64
	index    uint64        // of the last entry applied
	reached  atomic.Uint64 // index, for any goroutine
	term     uint64

	// Who asks for the leader (standby.go).
	asking []*whoAsks
	hangUp func() // closes all connections of mounts, tools and chunkservers
	self   atomic.Pointer[wire.VoterBeat]

	elections atomic.Pointer[Elections] // nil: nobody
	failover  *wire.FailoverStatus      // how this master came to lead; nil: it does not, or alone

	// Mounts.
	sessions   map[uint64]*session
	rights     *rightsTable
	recallers  []*session // with recalls that have not left
	holders    []holder   // scratch
	names      map[nameKey]*nameLock
	marks      map[inode.Ino]int32 // changes under way that touch an inode
	marksBy    map[inoSession]int32
	acquires   map[inode.Ino][]*request // waiting until a marked inode is free
	crowd      crowd
	returning  int // mounts not heard of since this master leads
	graceQueue []*request
	locks      *locks.Table

	// Chunks and chunkservers.
	chunks *chunkRoom

	// Figures of the last second.
	reads, changes, batches uint64
	due, dueNext            uint64 // what was committed a second before rateAt, and at it
	rates                   wire.RateStatus
	rateAt                  time.Time
	busy                    busyMeter
	isReady                 atomic.Bool // for Ready; any goroutine

	background sync.WaitGroup // goroutines that write images
	killed     bool           // stop without leaving anything behind; set by tests before stop
}

// run is the loop.
func (l *loop) run(stop <-chan struct{}) {
	defer close(l.stopped)
	tick := time.NewTicker(tickTime)
	defer tick.Stop()
	l.now = time.Now()
	l.rateAt, l.busy.since = l.now, l.now
	for l.err == nil {
		l.busy.sleep()
		select {
		case <-stop:
			l.shutdown()
			return
		case <-l.in.wake:
			l.wakeUp()
			l.serve()
		case list, open := <-l.log.Committed():
			l.wakeUp()
			if !open {
				l.die(l.log.Err())
				break
			}
			l.committed(list)
		case lead := <-l.log.Leading():
			l.wakeUp()
			l.leadership(lead)
		case <-tick.C:
			l.wakeUp()
			l.tick()
		}
		l.finish()
	}
	l.shutdown()
}

// wakeUp begins a turn.
func (l *loop) wakeUp() {
	l.now = time.Now()
	l.hurry = false
	l.busy.woke(l.now)
}

// serve runs what others have posted.
func (l *loop) serve() {
	list := l.in.take(l.taken)
	l.hurry = len(list) > 1
	for i, f := range list {
		f(l)
		list[i] = nil
		l.runSoon()
	}
	l.taken = list
}

// later runs f in this turn, after what is being done now.
func (l *loop) later(f func()) { l.soon = append(l.soon, f) }

func (l *loop) runSoon() {
	for i := 0; i < len(l.soon); i++ {
		f := l.soon[i]
		l.soon[i] = nil
		f()
	}
	l.soon = l.soon[:0]
}

// finish ends a turn: what has gathered leaves.
func (l *loop) finish() {
	l.runSoon()
	if l.batch != nil && l.inFlight < maxInFlight {
		l.propose()
	}
	if l.helm.LetGo() {
		l.sendRecalls()
	}
}

// tick does what depends on time alone. After a pause of the whole process what
// has come meanwhile is heard first: the mounts were not silent, it was deaf.
func (l *loop) tick() {
	deaf := l.now.Sub(l.ticked) > 5*tickTime
	l.ticked = l.now
	if l.helm.Ready() {
		if !deaf {
			l.checkSessions()
		}
		l.runSoon()
		l.chunkTick()
	}
	l.imageTick()
	l.tellLate()
	l.followed()
	if l.now.Sub(l.rateAt) >= time.Second {
		l.measure()
	}
}

// leadership notes who leads.
func (l *loop) leadership(change journal.Leadership) {
	if l.helm.Leadership(change) {
		l.depose()
	}
	l.epoch = l.helm.Epoch()
	l.lead()
}

// lead begins to serve when this master leads and has applied all entries of
// former leaders. The changelog says which mounts and chunkservers there are;
// what they hold they will say themselves.
func (l *loop) lead() {
	if !l.helm.MayServe() {
		return
	}
	l.met.takeovers.Inc()
	l.slog.Info("leading", "epoch", l.epoch, "index", l.index, "inodes", l.st.Totals().Inodes)
	for _, info := range l.st.Sessions() {
		s := l.newSession(info)
		s.state, s.relock = sessionReturning, true
	}
	l.returning = len(l.sessions)
	l.caughtUp()
	l.takeOverChunks()
	l.st.Leases(func(c state.ChunkInfo) bool {
		if l.sessions[c.Lease] == nil {
			l.reconcile(c.ID) // its writer's session was closed before
		}
		return true
	})
	l.open()
}

// open makes ready, after the changes that come before all others.
func (l *loop) open() {
	switch survived := l.log.Survived(); {
	case l.st.Cluster() == "":
		l.openAfter(&state.SetCluster{ID: newClusterID()})
	case survived > l.st.Leapt():
		l.slog.Warn("this changelog began anew; numbers that were given in what is lost are not given again", "epoch", survived)
		l.openAfter(&state.Leap{Epoch: survived})
	default:
		l.becomeReady()
	}
}

func (l *loop) openAfter(op state.Op) {
	l.log1(op, func(_ state.Result, err error) {
		if err == nil {
			l.open()
		}
	})
}

func (l *loop) becomeReady() {
	l.helm.Serve()
	l.isReady.Store(true)
	for _, f := range l.early {
		l.later(f)
	}
	l.early = nil
	l.tellWho()
	l.tookOver()
	l.describeSelf()
}

// depose stops serving: another master leads. Everything volatile is dropped.
func (l *loop) depose() {
	l.slog.Warn("this master leads no longer", "epoch", l.epoch)
	l.isReady.Store(false)
	l.hangUp()
	l.batch, l.inFlight, l.early, l.soon = nil, 0, nil, nil
	for _, s := range l.sessions {
		s.conn = nil // what it has answered and is not yet served is about rights that are void
	}
	l.clear()
	l.describeSelf()
}

// clear makes all volatile tables empty.
func (l *loop) clear() {
	l.sessions = map[uint64]*session{}
	l.rights = newRightsTable()
	l.recallers = nil
	l.names = map[nameKey]*nameLock{}
	l.marks = map[inode.Ino]int32{}
	l.marksBy = map[inoSession]int32{}
	l.acquires = map[inode.Ino][]*request{}
	l.crowd = crowd{dirs: map[inode.Ino]crowdDir{}}
	l.returning = 0
	l.graceQueue = nil
	l.locks = locks.New()
	l.chunks = newChunkRoom()
}

// enter is where a request of a mount or tool comes in.
func (l *loop) enter(q *request, m wire.Message) {
	if !l.helm.Ready() {
		if !l.helm.Leading() {
			l.standby(q, m)
			return
		}
		l.early = append(l.early, func() { l.enter(q, m) })
		return
	}
	role, _ := q.conn.Peer()
	if q.s == nil && role == wire.RoleMount && m.Kind() != wire.KindSessionOpen && m.Kind() != wire.KindWho {
		s, _ := q.conn.Value().(*session)
		if s == nil || s.conn != q.conn || s.state != sessionAttached {
			l.refuse(q, status.Errorf(status.Stale, "there is no session on this connection"))
			return
		}
		q.s = s
		s.seen = l.now
		s.ops++
	}
	if l.inGrace() && !l.harmless(q, m) {
		l.graceQueue = append(l.graceQueue, q)
		return
	}
	q.again()
}

// die ends the loop because of an error that nothing can be done about.
func (l *loop) die(err error) {
	if l.err == nil {
		l.err = err
		l.slog.Error("the master stops", "err", err)
	}
}

// stopWait bounds how long a clean stop waits for the log.
const stopWait = 5 * time.Second

// shutdown ends the loop: what is on its way to the log is applied and answered,
// then an image is written.
func (l *loop) shutdown() {
	l.isReady.Store(false)
	close(l.images.hurry)
	l.in.close()
	if l.killed || l.err != nil {
		return
	}
	if l.batch != nil {
		l.propose()
	}
	limit := time.NewTimer(stopWait)
	defer limit.Stop()
	for l.inFlight > 0 && l.err == nil {
		select {
		case list, open := <-l.log.Committed():
			if !open {
				return
			}
			l.wakeUp()
			l.committed(list)
		case <-limit.C:
			l.slog.Warn("the changelog does not end", "in flight", l.inFlight)
			return
		}
	}
	l.background.Wait() // an image that is being written now
	l.finalImage()
}
