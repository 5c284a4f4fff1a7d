package journal

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// meters are what the log counts.
type meters struct {
	writes  *metrics.Summary // one frame, written and (fsync mode) synced
	syncs   *metrics.Summary // quorum mode: fdatasync
	frames  *metrics.Counter
	entries *metrics.Counter
	bytes   *metrics.Counter
	refused *metrics.Counter
	won     *metrics.Counter
	set     *metrics.Set
	file    atomic.Uint64
}

func newMeters(set *metrics.Set, l *Log) *meters {
	m := &meters{
		writes:  set.GetOrCreateSummary("varve_journal_write_seconds"),
		syncs:   set.GetOrCreateSummary("varve_journal_sync_seconds"),
		frames:  set.GetOrCreateCounter("varve_journal_frames_total"),
		entries: set.GetOrCreateCounter("varve_journal_entries_total"),
		bytes:   set.GetOrCreateCounter("varve_journal_written_bytes_total"),
		set:     set,
		won:     set.GetOrCreateCounter("varve_journal_elections_won_total"),
		refused: set.GetOrCreateCounter("varve_journal_refused_proposals_total"),
	}
	for name, f := range map[string]func() float64{
		"varve_journal_leads":                 func() float64 { return one(l.isLeader()) },
		"varve_journal_lease_seconds":         l.leaseLeft,
		"varve_journal_leader_silent_seconds": l.silence,
		"varve_journal_apply_lag_entries": func() float64 {
			s := l.Status()
			return float64(s.Commit - min(s.Commit, s.Applied))
		},
		"varve_journal_queue_entries": func() float64 { return float64(l.queued()) },
		"varve_journal_term":          func() float64 { return float64(l.Status().Term) },
		"varve_journal_commit_index":  func() float64 { return float64(l.Status().Commit) },
		"varve_journal_file_number":   func() float64 { return float64(m.file.Load()) },
	} {
		set.UnregisterMetric(name) // of a log that was closed
		set.NewGauge(name, f)
	}
	return m
}

func (m *meters) frame(bytes, records int, took time.Duration) {
	m.writes.Update(took.Seconds())
	m.frames.Inc()
	m.entries.Add(records)
	m.bytes.Add(bytes)
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// leaseLeft is how long the lease still lasts: 0 without one, and with a single
// voter, which needs none.
func (l *Log) leaseLeft() float64 {
	until := l.Lease()
	if until == 0 || until == math.MaxInt64 {
		return 0
	}
	return max(0, time.Duration(until-l.cfg.Clock()).Seconds())
}

// silence is how long the leader has not been heard; 0 for a leader, and when
// none was heard yet.
func (l *Log) silence() float64 {
	heard := l.Status().Heard
	if heard == 0 || l.isLeader() {
		return 0
	}
	return time.Duration(l.cfg.Clock() - heard).Seconds()
}

// lags makes a gauge for each of the other voters, which the leader keeps up to date.
func (m *meters) lags(l *Log, peers []Peer) {
	for _, p := range peers {
		m.set.GetOrCreateGauge(fmt.Sprintf("varve_journal_voter_lag_entries{voter=\"%d\"}", p.ID), func() float64 {
			for _, now := range l.Status().Peers {
				if now.ID == p.ID {
					return float64(now.Lag)
				}
			}
			return 0
		})
	}
}
