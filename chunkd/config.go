package chunkd

import (
	"errors"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Config is what a chunkserver is told at start.
type Config struct {
	Dirs      []string // directories, made if missing, or block devices: one for each disk
	Key       []byte   // of the cluster
	DataAddr  string   // listen here for data, host:port
	Advertise string   // where clients reach it; empty: as the master's connection and DataAddr say
	Masters   []string // host:port of the masters' chunkserver port
	HTTP      string   // its metrics address, for the master's status
	Labels    string
	Version   string        // of the program
	Backend   string        // auto, uring or posix
	Limit     uint64        // bytes to use in each directory; 0: what is free less a reserve
	Share     int           // stores that share the file system of each directory; 0: 1
	NoLending bool          // do not let mounts on this host read the disks themselves
	Scrub     time.Duration // in which all that is stored is read and checked, again and again; 0: never
	Metrics   *metrics.Set
	Log       *slog.Logger

	// For tests and for small machines; 0 means the default.
	SegmentSize       uint32        // bytes, see segment.Config
	ContainerSegments uint32        // see segment.Config
	IdleTimeout       time.Duration // of connections, see link.Config; default 5 s
	HopTimeout        time.Duration // longest wait for the next server of a chain; default 10 s
	DialTimeout       time.Duration // to other servers; default 2 s
	Beat              time.Duration // overrides what the master says
	SlowAfter         time.Duration // see segment.Config
	StopTimeout       time.Duration // longest wait for requests under way at Close; default 3 s
}

const (
	readLane      = 64 // reads under way on one disk
	orderLane     = 64 // deletions and version changes under way
	replicateLane = 16 // copies made at the same time; the master limits them further
	reportBatch   = 16384
	copyBlock     = 1 << 20 // bytes of one read while a copy is made
	copyDepth     = 4       // such reads under way for one copy
)

func (c Config) withDefaults() (Config, error) {
	if len(c.Dirs) == 0 {
		return c, errors.New("no directory to store chunks in")
	}
	if len(c.Key) == 0 {
		return c, errors.New("no cluster key")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	if c.Backend == "" {
		c.Backend = "auto"
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.IdleTimeout, 5*time.Second)
	def(&c.HopTimeout, 10*time.Second)
	def(&c.DialTimeout, 2*time.Second)
	def(&c.StopTimeout, 3*time.Second)
	return c, nil
}
