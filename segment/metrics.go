package segment

import (
	"github.com/VictoriaMetrics/metrics"
)

// stats are the figures that a store publishes. Stores that share a set add up.
type stats struct {
	frames, entries, written, moved, merged, cleaned, corrupt, failures, lost, again, checkpoints *metrics.Counter
	scrubbed, scrubErrors, slowTicks                                                              *metrics.Counter
}

func newStats(set *metrics.Set) *stats {
	return &stats{
		frames:      set.GetOrCreateCounter("varve_segment_frames_total"),
		entries:     set.GetOrCreateCounter("varve_segment_entries_total"),
		written:     set.GetOrCreateCounter("varve_segment_written_bytes_total"),
		moved:       set.GetOrCreateCounter("varve_segment_moved_bytes_total"),
		merged:      set.GetOrCreateCounter("varve_segment_merged_extents_total"),
		cleaned:     set.GetOrCreateCounter("varve_segment_cleaned_segments_total"),
		corrupt:     set.GetOrCreateCounter("varve_segment_corrupt_reads_total"),
		failures:    set.GetOrCreateCounter("varve_segment_write_errors_total"),
		checkpoints: set.GetOrCreateCounter("varve_segment_checkpoints_total"),
		again:       set.GetOrCreateCounter("varve_segment_reads_again_total"),
		scrubbed:    set.GetOrCreateCounter("varve_segment_scrubbed_bytes_total"),
		lost:        set.GetOrCreateCounter("varve_segment_lost_frames_total"),
		scrubErrors: set.GetOrCreateCounter("varve_segment_scrub_errors_total"),
		slowTicks:   set.GetOrCreateCounter("varve_segment_slow_seconds_total"),
	}
}
