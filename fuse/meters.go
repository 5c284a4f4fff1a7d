package fuse

import (
	"fmt"
	"time"

	"github.com/VictoriaMetrics/metrics"
	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

// op is a kind of request, for the metrics.
type op int

const (
	opLookup op = iota
	opGetAttr
	opSetAttr
	opMake
	opRemove
	opRename
	opLink
	opReadlink
	opXattr
	opOpen
	opRead
	opWrite
	opSeek
	opCopy
	opAllocate
	opFlush
	opSync
	opRelease
	opLock
	opReadDir
	opStatFS
	ops // count
)

var opNames = [ops]string{
	"lookup", "getattr", "setattr", "make", "remove", "rename", "link", "readlink", "xattr", "open", "read",
	"write", "seek", "copy", "allocate", "flush", "fsync", "release", "lock", "readdir", "statfs",
}

// meters counts requests and measures how long they take.
type meters struct {
	seconds [ops]*metrics.Histogram
	errors  [ops]*metrics.Counter
	read    *metrics.Counter
	written *metrics.Counter
}

// newMeters registers the metrics in set, which may be nil.
func newMeters(set *metrics.Set, open func() int) *meters {
	if set == nil {
		set = metrics.NewSet()
	}
	m := &meters{
		read:    set.GetOrCreateCounter("varve_fuse_read_bytes_total"),
		written: set.GetOrCreateCounter("varve_fuse_written_bytes_total"),
	}
	for i, name := range opNames {
		m.seconds[i] = set.GetOrCreateHistogram(fmt.Sprintf("varve_fuse_request_seconds{op=%q}", name))
		m.errors[i] = set.GetOrCreateCounter(fmt.Sprintf("varve_fuse_errors_total{op=%q}", name))
	}
	set.GetOrCreateGauge("varve_fuse_open_handles", func() float64 { return float64(open()) })
	return m
}

// observe ends the measurement of a request. ENOENT of a lookup and ENODATA of
// an attribute are answers, not errors.
func (m *meters) observe(o op, begin time.Time, code *gofuse.Status) {
	m.seconds[o].UpdateDuration(begin)
	answer := (o == opLookup && *code == gofuse.ENOENT) || (o == opXattr && *code == gofuse.ENODATA)
	if *code != gofuse.OK && !answer {
		m.errors[o].Inc()
	}
}
