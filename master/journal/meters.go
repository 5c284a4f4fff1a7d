package journal

import (
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
	file    atomic.Uint64
}

func newMeters(set *metrics.Set, l *Log) *meters {
	m := &meters{
		writes:  set.GetOrCreateSummary("varve_journal_write_seconds"),
		syncs:   set.GetOrCreateSummary("varve_journal_sync_seconds"),
		frames:  set.GetOrCreateCounter("varve_journal_frames_total"),
		entries: set.GetOrCreateCounter("varve_journal_entries_total"),
		bytes:   set.GetOrCreateCounter("varve_journal_written_bytes_total"),
		refused: set.GetOrCreateCounter("varve_journal_refused_proposals_total"),
	}
	for name, f := range map[string]func() float64{
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
