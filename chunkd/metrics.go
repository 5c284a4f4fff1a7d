package chunkd

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/varvefs/varve/status"
)

// meters are the server's metrics and the counts from which its beats make rates.
type meters struct {
	set                             *metrics.Set
	read, write, writeSync, forward *metrics.Histogram // seconds
	sync, replicate                 *metrics.Histogram
	readBytes, writeBytes           *metrics.Counter
	copyBytes, hopFailures          *metrics.Counter
	places, lent                    *metrics.Counter
	reads, writes, errors           atomic.Uint64
	queue                           atomic.Int64 // requests under way
	byCode                          sync.Map     // status.Code -> *metrics.Counter
}

func newMeters(set *metrics.Set) *meters {
	h := set.GetOrCreateHistogram
	m := &meters{
		set:  set,
		read: h("varve_chunkd_read_seconds"), write: h(`varve_chunkd_write_seconds{ack="accepted"}`), writeSync: h(`varve_chunkd_write_seconds{ack="durable"}`),
		forward: h("varve_chunkd_forward_seconds"), sync: h("varve_chunkd_sync_seconds"), replicate: h("varve_chunkd_replicate_seconds"),
		readBytes: set.GetOrCreateCounter("varve_chunkd_read_bytes_total"), writeBytes: set.GetOrCreateCounter("varve_chunkd_write_bytes_total"),
		copyBytes: set.GetOrCreateCounter("varve_chunkd_replicated_bytes_total"), hopFailures: set.GetOrCreateCounter("varve_chunkd_hop_failures_total"),
	}
	m.places, m.lent = set.GetOrCreateCounter("varve_chunkd_places_total"), set.GetOrCreateCounter("varve_chunkd_lent_files_total")
	set.GetOrCreateGauge("varve_chunkd_queue_requests", func() float64 { return float64(m.queue.Load()) })
	return m
}

// disks adds the gauges of each disk.
func (m *meters) disks(s *shelf) {
	for i, d := range s.all() {
		now := func() *disk { return s.all()[i] } // it may be another one after a while
		flag := func(b bool) float64 {
			if b {
				return 1
			}
			return 0
		}
		for name, f := range map[string]func() float64{
			"total_bytes":       func() float64 { return float64(now().state().Total) },
			"used_bytes":        func() float64 { return float64(now().state().Used) },
			"free_bytes":        func() float64 { return float64(now().state().Free) },
			"chunks":            func() float64 { return float64(now().state().Chunks) },
			"damaged_chunks":    func() float64 { return float64(now().bad.Load()) },
			"failed":            func() float64 { return flag(!now().ok()) },
			"slow":              func() float64 { return flag(now().state().Slow) },
			"scrub_passes":      func() float64 { return float64(now().state().Scrub.Passes) },
			"scrub_ratio":       func() float64 { sc := now().state().Scrub; return float64(sc.Done) / max(1, float64(sc.All)) },
			"scrub_damages":     func() float64 { return float64(now().state().Scrub.Found) },
			"scrub_end_seconds": func() float64 { return float64(now().state().Scrub.Finished) / 1e9 },
		} {
			m.set.GetOrCreateGauge(fmt.Sprintf("varve_chunkd_disk_%s{dir=%q}", name, d.path), f)
		}
	}
}

// failed counts a request that was answered with an error. Refusals that belong
// to daily life, such as another version after a lease, are no errors of ours.
func (m *meters) failed(err error) {
	code := status.CodeOf(err)
	switch code {
	case status.StaleVersion, status.NoChunk, status.OldEpoch, status.NoLease, status.Busy, status.BadToken:
	default:
		m.errors.Add(1)
	}
	c, ok := m.byCode.Load(code)
	if !ok {
		c, _ = m.byCode.LoadOrStore(code, m.set.GetOrCreateCounter(fmt.Sprintf("varve_chunkd_errors_total{code=%q}", code)))
	}
	c.(*metrics.Counter).Inc()
}

func since(h *metrics.Histogram, begin time.Time) { h.Update(time.Since(begin).Seconds()) }
