package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/master/journal/files"
	"github.com/varvefs/varve/owner"
	"go.etcd.io/raft/v3"
)

// Raft's clock, in ticks, and its limits in bytes.
const (
	electionTicks  = 20
	heartbeatTicks = 2
	maxMessage     = 1 << 20  // entries in one message to a peer
	maxApplying    = 4 << 20  // committed and not yet taken from Committed
	maxInflight    = 16 << 20 // on their way to one peer
)

func (c *Config) complete() error {
	if c.ID == 0 {
		return errors.New("journal: ID is 0")
	}
	if len(c.Peers) == 0 {
		c.Peers = []uint64{c.ID}
	}
	c.Peers = slices.Clone(c.Peers)
	slices.Sort(c.Peers)
	switch {
	case !slices.Contains(c.Peers, c.ID):
		return fmt.Errorf("journal: voter %d is not among its peers %v", c.ID, c.Peers)
	case len(c.Peers) > maxVoters:
		return fmt.Errorf("journal: %d voters, at most %d are possible", len(c.Peers), maxVoters)
	case len(c.Peers) > 1 && c.Transport == nil:
		return errors.New("journal: several voters need a transport")
	}
	if c.SyncMode == "" {
		c.SyncMode = SyncFsync
	}
	if c.SyncMode != SyncFsync && c.SyncMode != SyncQuorum {
		return fmt.Errorf("journal: sync mode %q; possible are %q and %q", c.SyncMode, SyncFsync, SyncQuorum)
	}
	if c.FileSize == 0 {
		c.FileSize = 16 << 20
	}
	if c.FileSize < 4*page || c.FileSize%page != 0 || c.FileSize > 1<<40 {
		return fmt.Errorf("journal: file size %d is not a multiple of %d from %d on", c.FileSize, page, 4*page)
	}
	if c.BackLogs == 0 {
		c.BackLogs = 2
	}
	c.BackLogs = max(c.BackLogs, 0)
	if c.SyncDelay <= 0 {
		c.SyncDelay = 50 * time.Millisecond
	}
	if c.Tick <= 0 {
		c.Tick = 25 * time.Millisecond
	}
	if c.Boot == nil {
		c.Boot = kernelBoot
	}
	if c.Clock == nil {
		c.Clock = BootTime
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	return nil
}

// Open takes the directory, recovers the log and starts to drive it. A torn
// tail is cut. Damage anywhere else is a *CorruptError; a directory in use by
// another master and a changelog that does not join the image are errors too.
// A single voter leads when Open returns.
func Open(cfg Config) (*Log, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	dir := cfg.Files
	if dir == nil {
		if err := owner.MkdirAll(cfg.Dir, 0o750); err != nil {
			return nil, err
		}
		dir = files.Host(cfg.Dir)
	}
	lock, err := dir.Lock()
	if err != nil {
		return nil, err
	}
	l := &Log{
		cfg: cfg, dir: dir, lock: lock, single: cfg.Transport == nil,
		wake:      make(chan struct{}, 1),
		writeWake: make(chan struct{}, 1),
		stop:      make(chan struct{}),
		done:      make(chan struct{}),
		committed: make(chan []Committed, 16),
		leading:   make(chan Leadership, 1),
	}
	l.room.L = &l.mu
	if err := l.start(); err != nil {
		l.halt()
		l.background.Wait()
		if l.w != nil {
			_ = l.w.finish(false)
		}
		_ = lock.Close()
		return nil, err
	}
	return l, nil
}

// start recovers, makes the newest file writable, starts raft and the goroutines.
func (l *Log) start() error {
	begun := time.Now()
	r, err := recoverDir(l.dir, position{Index: l.cfg.Applied, Term: l.cfg.AppliedTerm}, false, l.cfg.Log)
	if err != nil {
		return err
	}
	l.st = r.store
	l.m = newMeters(l.cfg.Metrics, l)
	l.w = &writer{
		dir: l.dir, node: l.cfg.ID,
		lazy: l.cfg.SyncMode == SyncQuorum, fresh: l.cfg.FileSize,
		store: l.st, m: l.m, log: l.cfg.Log,
		stop: l.stop, buf: engine.Alloc(16 * page),
	}
	if err := l.identify(r); err != nil {
		return err
	}
	if err := l.resume(r); err != nil {
		return err
	}
	if id := &l.identity; id.Term > l.w.hard.Term { // Survive left the old terms behind
		l.w.hard.Term, l.w.hard.Vote = id.Term, 0
		l.st.setHard(l.w.hard)
	}
	if err := l.wakeUp(); err != nil {
		return err
	}
	if err := l.startRaft(); err != nil {
		return err
	}
	first, last := l.st.bounds()
	l.cfg.Log.Info("journal: open", "dir", l.cfg.Dir, "first", first, "last", last.Index, "applied", l.cfg.Applied,
		"files", len(r.store.files), "mode", l.cfg.SyncMode, "took", time.Since(begun).Round(time.Millisecond))
	if l.cfg.manual {
		return nil
	}
	if !l.single {
		l.background.Go(l.writeLoop)
	}
	if l.w.lazy {
		l.background.Go(l.syncLoop)
	}
	go l.run()
	return nil
}

// resume continues the newest file, or begins the first one.
func (l *Log) resume(r *recovery) error {
	next := uint64(1)
	if r.tail != nil {
		next = r.tail.head.Number + 1
	}
	ready := false
	for _, n := range r.spares {
		if n == next && r.size(n) == l.cfg.FileSize {
			ready = true
		} else if err := l.dir.Remove(fileName(n)); err != nil {
			return err
		}
	}
	if r.tail == nil {
		return l.found(next, ready)
	}
	l.w.spares = l.prepare(next, ready)
	f, err := l.dir.Open(fileName(r.tail.head.Number), !l.w.lazy)
	if err != nil {
		return err
	}
	if err := r.tail.writeAgain(f); err != nil {
		_ = f.Close()
		return err
	}
	l.w.adopt(f, &r.tail.head, r.tail.size, r.tail.end, r.tail.sum)
	l.w.hard, l.w.written = r.store.hard, r.tail.hard
	if r.last.Index < l.cfg.Applied {
		// The image was on disk before the end of the log: quorum mode and a power cut.
		l.cfg.Log.Warn("journal: the log ends before the image", "last", r.last.Index, "applied", l.cfg.Applied)
		return l.w.mark(r.store.base)
	}
	return nil
}

// found begins the first file of a new log.
func (l *Log) found(number uint64, ready bool) error {
	if l.cfg.Applied > 0 {
		l.cfg.Log.Warn("journal: there is an image but no changelog; changes behind the image are lost", "dir", l.cfg.Dir, "applied", l.cfg.Applied)
	}
	if !ready {
		if err := prepareFile(l.dir, number, l.cfg.FileSize); err != nil {
			return err
		}
	}
	l.w.spares = l.prepare(number+1, false)
	l.w.hard = hard{Term: l.cfg.AppliedTerm, Commit: l.cfg.Applied}
	l.st.setHard(l.w.hard)
	return l.w.begin(number, header{})
}

// startRaft starts the state machine. A single voter is its own majority and
// leads at once, without waiting for a tick.
func (l *Log) startRaft() (err error) {
	defer l.rescue(&err)
	l.view.ID, l.view.Term, l.view.Commit, l.applied = l.cfg.ID, l.w.hard.Term, l.w.hard.Commit, l.cfg.Applied
	l.lease.begin(l)
	rn, err := raft.NewRawNode(&raft.Config{
		ID: l.cfg.ID, Storage: l.st, Applied: l.cfg.Applied,
		ElectionTick: electionTicks, HeartbeatTick: heartbeatTicks,
		MaxSizePerMsg: maxMessage, MaxCommittedSizePerReady: maxApplying,
		MaxInflightMsgs: 256, MaxInflightBytes: maxInflight,
		CheckQuorum: true, PreVote: true,
		AsyncStorageWrites:        true,
		DisableProposalForwarding: true, // an entry holds its leader's time
		StepDownOnRemoval:         true,
		Logger:                    &raftLogger{log: l.cfg.Log},
	})
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	l.rn = rn
	if v := l.st.voters(); len(v) == 1 && v[0] == l.cfg.ID {
		if err := rn.Campaign(); err != nil {
			return fmt.Errorf("journal: campaign: %w", err)
		}
	}
	if err := l.drain(); err != nil {
		return err
	}
	if l.single && !l.isLeader() {
		panic("BUG: the only voter did not become leader at once")
	}
	return nil
}

// prepare keeps the next file ready, so that going on with it costs one write.
func (l *Log) prepare(next uint64, ready bool) <-chan uint64 {
	if l.cfg.manual {
		l.w.ready = func() (number uint64, err error) {
			if !ready {
				err = prepareFile(l.dir, next, l.cfg.FileSize)
			}
			number, next, ready = next, next+1, false
			return number, err
		}
		return nil
	}
	spares := make(chan uint64)
	l.background.Go(func() {
		for ; ; next++ {
			if !ready && !l.prepareOne(next) {
				return
			}
			ready = false
			select {
			case spares <- next:
			case <-l.stop:
				return
			}
		}
	})
	return spares
}

// prepareOne tries until it succeeds: a full disk should stop the log only when
// the newest file is full too, and go on when there is room again.
func (l *Log) prepareOne(number uint64) bool {
	for {
		err := prepareFile(l.dir, number, l.cfg.FileSize)
		if err == nil {
			l.trouble.Store(nil)
			return true
		}
		text := fmt.Sprintf("the next file of the changelog cannot be prepared: %v", err)
		l.trouble.Store(&text)
		l.cfg.Log.Error("journal: cannot prepare the next file, trying again", "err", err)
		select {
		case <-time.After(time.Second):
		case <-l.stop:
			return false
		}
	}
}

// halt tells all goroutines to stop.
func (l *Log) halt() { l.once.Do(func() { close(l.stop) }) }
