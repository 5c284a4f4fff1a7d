package client

import "github.com/VictoriaMetrics/metrics"

// gauges shows what is in memory now.
func (c *Client) gauges(s *metrics.Set) {
	gauge := func(name string, f func() float64) { s.GetOrCreateGauge("varve_client_"+name, f) }
	gauge("unwritten_bytes", func() float64 { return float64(c.budget.inUse()) })
	gauge("cache_bytes", func() float64 { return float64(c.cache.size()) })
	gauge("short_files", func() float64 { return float64(c.short.files.Load()) })
	gauge("short_map_bytes", func() float64 { return float64(c.maps.size()) })
	gauge("inodes", func() float64 { return float64(c.table.size()) })
	gauge("names", func() float64 { return float64(c.table.names.Load()) })
	gauge("background_files", func() float64 {
		c.taskMu.Lock()
		defer c.taskMu.Unlock()
		return float64(len(c.tasks))
	})
	gauge("unanswered_requests", func() float64 { return float64(c.ses.waiting()) })
}

// counters are the client's metrics.
type counters struct {
	set                    *metrics.Set
	recalls, reconnects    *metrics.Counter
	early, spoilt          *metrics.Counter
	reads, readBytes       *metrics.Counter
	writes, writeBytes     *metrics.Counter
	syncs, commits         *metrics.Counter
	committed, resent      *metrics.Counter
	dropped, lost          *metrics.Counter
	hedges, corrupt        *metrics.Counter
	ahead, cacheHits       *metrics.Counter
	dialErrors             *metrics.Counter
	shortReads, shortBytes *metrics.Counter
	maps                   *metrics.Counter
	calls                  *metrics.Histogram
	entryHits, attrHits    *metrics.Counter
	entryMiss, attrMisses  *metrics.Counter
}

func newCounters(s *metrics.Set) *counters {
	c := func(name string) *metrics.Counter { return s.GetOrCreateCounter("varve_client_" + name) }
	return &counters{
		set: s, shortReads: c("short_reads_total"), shortBytes: c("short_read_bytes_total"), maps: c("short_maps_total"),
		recalls: c("recalled_rights_total"), reconnects: c("master_reconnects_total"),
		reads: c("chunk_reads_total"), readBytes: c("read_bytes_total"),
		writes: c("chunk_writes_total"), writeBytes: c("chunk_written_bytes_total"),
		syncs: c("chunk_syncs_total"), commits: c("commits_total"), committed: c("committed_files_total"),
		early: c("early_changes_total"), spoilt: c("lost_early_changes_total"),
		resent: c("resent_writes_total"), dropped: c("dropped_replicas_total"), lost: c("lost_bytes_total"),
		hedges: c("hedged_reads_total"), corrupt: c("corrupt_reads_total"),
		ahead: c("read_ahead_blocks_total"), cacheHits: c("block_hits_total"), dialErrors: c("chunkd_dial_errors_total"),
		entryHits: c("entry_hits_total"), entryMiss: c("entry_misses_total"),
		calls:    s.GetOrCreateHistogram("varve_client_master_call_seconds"),
		attrHits: c("attr_hits_total"), attrMisses: c("attr_misses_total"),
	}
}

// shortMiss counts a read, or a map, that could not be had without the chunkserver.
func (m *counters) shortMiss(reason string) {
	m.set.GetOrCreateCounter(`varve_client_short_fallbacks_total{reason="` + reason + `"}`).Inc()
}
