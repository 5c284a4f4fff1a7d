// Package runner is the thin shell around package elect: it shows the machine
// the changelog and the time, and carries out what it decides. cmd starts one in
// every master and metalogger that is one of several voters, and in a single
// master that has virtual addresses.
//
// Runner.run is the only goroutine that touches the machine; everything else
// reaches it through channels.
package runner

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/varvefs/varve/elect"
	"github.com/varvefs/varve/master/journal"
)

// Log is the changelog: a *journal.Log.
type Log interface {
	Status() journal.Status
	Lease() int64
	ForgetLeader(term uint64)
	Campaign()
	Handover(to uint64, why string)
}

// Addresses takes and drops the virtual addresses, and is told which term this
// voter leads: a *guard.Line.
type Addresses interface {
	Leads(term uint64) error
	Hold(until time.Duration) error
	Drop() error
}

// Config says what to run. Log, Addresses and Masters are required.
type Config struct {
	Self      uint64
	Masters   []uint64      // voters that can serve; a metalogger is not among them
	Timeout   time.Duration // journal's election timeout
	Log       Log
	Addresses Addresses
	Virtual   bool // there are virtual addresses
	// Ready tells whether this voter leads and serves; nil: it never serves.
	Ready   func() bool
	Logger  *slog.Logger // nil: slog.Default()
	Metrics *metrics.Set // nil: a set of its own
}

// Pauses between two looks at the log: normally, and while something is going on.
const (
	calm  = 20 * time.Millisecond
	brisk = 3 * time.Millisecond
)

// patience is how long one hand-over may take.
const patience = 600 * time.Millisecond

// Runner is a running machine.
type Runner struct {
	cfg     Config
	m       *elect.Machine
	deaths  chan elect.Obituary
	masters chan []uint64
	orders  chan uint64
	leave   chan chan struct{}
	stop    chan struct{}
	done    chan struct{}
	once    sync.Once

	held atomic.Bool // the addresses

	obituaries, campaigns, transfers, holds, drops *metrics.Counter

	// Owned by run.
	leaving []chan struct{} // closed when this voter no longer leads
	briskTo time.Time       // look often until then
}

// Start begins to watch the log.
func Start(cfg Config) *Runner {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.NewSet()
	}
	ns := func(d time.Duration) elect.Nanos { return elect.Nanos(d) }
	r := &Runner{
		cfg: cfg, deaths: make(chan elect.Obituary, 16), masters: make(chan []uint64, 1), orders: make(chan uint64, 1), leave: make(chan chan struct{}),
		stop: make(chan struct{}), done: make(chan struct{}),
		m: elect.New(elect.Config{
			Self: cfg.Self, Masters: cfg.Masters, Timeout: ns(cfg.Timeout), Holdback: ns(300 * time.Millisecond),
			Retry: ns(20 * time.Millisecond), Voting: ns(200 * time.Millisecond), Stall: ns(time.Second), Patience: ns(patience),
		}),
		obituaries: cfg.Metrics.GetOrCreateCounter("varve_elect_obituaries_total"),
		campaigns:  cfg.Metrics.GetOrCreateCounter("varve_elect_campaigns_total"),
		transfers:  cfg.Metrics.GetOrCreateCounter("varve_elect_transfers_total"),
		holds:      cfg.Metrics.GetOrCreateCounter("varve_elect_address_extensions_total"),
		drops:      cfg.Metrics.GetOrCreateCounter("varve_elect_address_drops_total"),
	}
	cfg.Metrics.GetOrCreateGauge("varve_elect_holds_addresses", func() float64 {
		if r.Holds() {
			return 1
		}
		return 0
	})
	go r.run()
	return r
}

// Died takes an obituary; any goroutine.
func (r *Runner) Died(voter, term uint64) {
	r.obituaries.Inc()
	select {
	case r.deaths <- elect.Obituary{Voter: voter, Term: term}:
	default: // a flood; the lease will do
	}
}

// SetMasters says which voters can serve; any goroutine.
func (r *Runner) SetMasters(ids []uint64) {
	select {
	case r.masters <- ids:
	case <-r.done:
	}
}

// Handover makes this voter, if it leads, give up the addresses and hand over to
// voter to, 0: any other master. It does not wait; any goroutine.
func (r *Runner) Handover(to uint64) {
	select {
	case r.orders <- to:
	default: // one is under way
	}
}

// Holds tells whether this host has the virtual addresses; any goroutine.
func (r *Runner) Holds() bool { return r.cfg.Virtual && r.held.Load() }

// Leave hands leadership over, if this voter has it, before it stops. It returns
// when another voter leads, or when ctx ends.
func (r *Runner) Leave(ctx context.Context) {
	gone := make(chan struct{})
	select {
	case r.leave <- gone:
	case <-r.done:
		return
	}
	select {
	case <-gone:
	case <-ctx.Done():
	}
}

// Close drops the addresses and ends the runner.
func (r *Runner) Close() {
	r.once.Do(func() { close(r.stop) })
	<-r.done
}

func (r *Runner) run() {
	defer close(r.done)
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-r.stop:
			r.drop()
			return
		case o := <-r.deaths:
			r.cfg.Logger.Warn("a supervisor says that its master is dead", "voter", o.Voter, "term", o.Term)
			r.m.Died(o)
			r.hurry()
		case to := <-r.orders:
			r.m.Handover(to)
			r.hurry()
		case ids := <-r.masters:
			r.m.SetMasters(ids)
		case gone := <-r.leave:
			r.leaving = append(r.leaving, gone)
			r.m.Stop()
			r.hurry()
		case <-t.C:
		}
		t.Reset(r.step())
	}
}

// hurry looks often for a while: what is being waited for takes milliseconds.
func (r *Runner) hurry() { r.briskTo = time.Now().Add(time.Second) }

// step shows the machine the log and says when to do so again.
func (r *Runner) step() time.Duration {
	v, now := r.view()
	for _, a := range r.m.Step(now, v) {
		r.act(a, now, v)
	}
	if v.Leader != r.cfg.Self || r.m.Leaving() && v.Leader == 0 {
		for _, gone := range r.leaving {
			close(gone)
		}
		r.leaving = nil
	}
	pause := calm
	if r.held.Load() || time.Now().Before(r.briskTo) {
		pause = brisk // the lease may end at any time, by an order to hand over for example
	}
	return max(min(pause, time.Duration(r.m.Next()-now)), brisk)
}

func (r *Runner) view() (elect.View, elect.Nanos) {
	s := r.cfg.Log.Status()
	now := elect.Nanos(journal.BootTime())
	v := elect.View{Term: s.Term, Leader: s.Leader, Lease: elect.Nanos(r.cfg.Log.Lease()), Heard: elect.Nanos(s.Heard), Syncing: elect.Nanos(s.Writing), Longest: s.Longest}
	if v.Leader == r.cfg.Self {
		if err := r.cfg.Addresses.Leads(s.Term); err != nil {
			r.cfg.Logger.Error("cannot tell the supervisor which term this master leads", "err", err)
		}
		v.Ready = r.cfg.Ready != nil && r.cfg.Ready()
	}
	for _, p := range s.Peers {
		v.Peers = append(v.Peers, elect.Peer{ID: p.ID, Lag: p.Lag, Active: p.Active && !p.Learner})
	}
	return v, now
}

func (r *Runner) act(a elect.Action, now elect.Nanos, v elect.View) {
	if a.Why != "" && (r.cfg.Virtual || a.Do != elect.Hold && a.Do != elect.Drop) {
		r.cfg.Logger.Info("election: "+a.At(now), "term", v.Term)
	}
	switch a.Do {
	case elect.Forget:
		r.cfg.Log.ForgetLeader(v.Term)
	case elect.Campaign:
		r.campaigns.Inc()
		r.cfg.Log.Campaign()
		r.hurry()
	case elect.Transfer:
		r.transfers.Inc()
		r.cfg.Log.Handover(a.To, a.Why)
		r.hurry()
	case elect.Hold:
		r.holds.Inc()
		r.held.Store(true)
		if err := r.cfg.Addresses.Hold(time.Duration(min(a.Until, math.MaxInt64))); err != nil {
			r.cfg.Logger.Error("cannot hold the virtual addresses", "err", err)
		}
	case elect.Drop:
		r.drop()
	}
}

// drop gives the addresses up. If that fails they go when the right to them ends.
func (r *Runner) drop() {
	r.drops.Inc()
	r.held.Store(false)
	if err := r.cfg.Addresses.Drop(); err != nil {
		r.cfg.Logger.Error("cannot drop the virtual addresses", "err", err)
	}
}
