package master

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// kindNames name the requests in metrics.
var kindNames = map[wire.Kind]string{
	wire.KindSessionOpen: "session_open", wire.KindSessionClose: "session_close", wire.KindPing: "ping",
	wire.KindLookup: "lookup", wire.KindGetAttr: "getattr", wire.KindSetAttr: "setattr", wire.KindMake: "make",
	wire.KindRemove: "remove", wire.KindRename: "rename", wire.KindLink: "link", wire.KindReadlink: "readlink",
	wire.KindReadDir: "readdir", wire.KindGetXattr: "getxattr", wire.KindSetXattr: "setxattr",
	wire.KindRemoveXattr: "removexattr", wire.KindListXattr: "listxattr", wire.KindAcquire: "acquire",
	wire.KindRelease: "release", wire.KindLease: "lease", wire.KindLeaseFail: "lease_fail", wire.KindCommit: "commit",
	wire.KindLayout: "layout", wire.KindLock: "lock", wire.KindLockCancel: "lock_cancel", wire.KindStatFS: "statfs",
	wire.KindAdmin: "admin", wire.KindRegister: "register", wire.KindReport: "report", wire.KindBeat: "beat",
	wire.KindTrouble: "trouble", wire.KindWho: "who",
}

// meters are the master's metrics. Counters and histograms may be used from any
// goroutine; the gauges read what the loop publishes once a second.
type meters struct {
	set              *metrics.Set
	seconds          map[wire.Kind]*metrics.Histogram
	recalls          *metrics.Counter
	expelled         *metrics.Counter
	batches          *metrics.Counter
	changes          *metrics.Counter
	batchEntries     *metrics.Histogram
	leaseFails       *metrics.Counter
	reconciledChunks *metrics.Counter
	imageSeconds     *metrics.Histogram
	withheld         *metrics.Counter   // times that replies had to wait for the lease
	takeovers        *metrics.Counter   // times that this master began to lead
	takeoverSeconds  *metrics.Histogram // from asking for votes to serving
	figures          atomic.Pointer[figures]
}

// figures are what the gauges show.
type figures struct {
	busy                                 float64
	inodes, orphans, chunks, leases      float64
	sessions, rights, locks, lockWaiters float64
	servers, under, missing, over        float64
	index, imageIndex, graceWaiting      float64
}

func newMeters(set *metrics.Set) *meters {
	m := &meters{
		set:              set,
		seconds:          map[wire.Kind]*metrics.Histogram{},
		recalls:          set.GetOrCreateCounter("varve_master_recalled_items_total"),
		expelled:         set.GetOrCreateCounter("varve_master_expelled_sessions_total"),
		batches:          set.GetOrCreateCounter("varve_master_log_batches_total"),
		changes:          set.GetOrCreateCounter("varve_master_changes_total"),
		batchEntries:     set.GetOrCreateHistogram("varve_master_batch_entries"),
		leaseFails:       set.GetOrCreateCounter("varve_master_failed_leases_total"),
		reconciledChunks: set.GetOrCreateCounter("varve_master_reconciled_chunks_total"),
		withheld:         set.GetOrCreateCounter("varve_master_withheld_replies_total"),
		takeovers:        set.GetOrCreateCounter("varve_master_takeovers_total"),
		takeoverSeconds:  set.GetOrCreateHistogram("varve_master_takeover_seconds"),
		imageSeconds:     set.GetOrCreateHistogram("varve_master_image_seconds"),
	}
	for kind, name := range kindNames {
		m.seconds[kind] = set.GetOrCreateHistogram(fmt.Sprintf("varve_master_op_seconds{op=%q}", name))
	}
	m.figures.Store(&figures{})
	gauge := func(name string, read func(*figures) float64) {
		set.GetOrCreateGauge("varve_master_"+name, func() float64 { return read(m.figures.Load()) })
	}
	gauge("loop_busy_ratio", func(f *figures) float64 { return f.busy })
	gauge("inodes", func(f *figures) float64 { return f.inodes })
	gauge("orphans", func(f *figures) float64 { return f.orphans })
	gauge("chunks", func(f *figures) float64 { return f.chunks })
	gauge("chunks_leased", func(f *figures) float64 { return f.leases })
	gauge("chunks_under_goal", func(f *figures) float64 { return f.under })
	gauge("chunks_over_goal", func(f *figures) float64 { return f.over })
	gauge("chunks_missing", func(f *figures) float64 { return f.missing })
	gauge("sessions", func(f *figures) float64 { return f.sessions })
	gauge("rights", func(f *figures) float64 { return f.rights })
	gauge("locks", func(f *figures) float64 { return f.locks })
	gauge("lock_waiters", func(f *figures) float64 { return f.lockWaiters })
	gauge("grace_waiting_requests", func(f *figures) float64 { return f.graceWaiting })
	gauge("chunkservers", func(f *figures) float64 { return f.servers })
	gauge("applied_index", func(f *figures) float64 { return f.index })
	gauge("image_index", func(f *figures) float64 { return f.imageIndex })
	return m
}

// started notes how long a part of the start took: image, changelog or chunks.
func (m *meters) started(phase string, took time.Duration) {
	m.set.GetOrCreateGauge(fmt.Sprintf("varve_master_start_seconds{phase=%q}", phase), nil).Set(took.Seconds())
}

// served counts a request that was answered, and how long it took.
func (m *meters) served(kind wire.Kind, start time.Time) {
	if h := m.seconds[kind]; h != nil {
		h.UpdateDuration(start)
	}
}

// refused counts a request that was answered with an error.
func (m *meters) refused(kind wire.Kind, code status.Code, start time.Time) {
	m.served(kind, start)
	m.set.GetOrCreateCounter(fmt.Sprintf("varve_master_op_errors_total{op=%q,code=%q}", kindNames[kind], code.String())).Inc()
}

// busyMeter measures which share of the time the loop works.
type busyMeter struct {
	slept time.Time
	idle  time.Duration
	since time.Time
}

// sleep is called before the loop waits.
func (b *busyMeter) sleep() { b.slept = time.Now() }

// woke is called when the wait is over.
func (b *busyMeter) woke(now time.Time) { b.idle += now.Sub(b.slept) }

// share gives the share since the last call, 0..1.
func (b *busyMeter) share(now time.Time) float64 {
	total := now.Sub(b.since)
	idle := b.idle
	b.idle, b.since = 0, now
	if total <= 0 || idle >= total {
		return 0
	}
	return 1 - float64(idle)/float64(total)
}
