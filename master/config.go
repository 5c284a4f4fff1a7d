package master

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Config says how a master runs. Dir, Key, ClientAddr and ServerAddr must be
// set; everything else has a default.
type Config struct {
	Dir        string // changelog and images; made if missing
	Key        []byte // of the cluster
	Name       string // in status
	Version    string // of the program, in status and handshakes
	ClientAddr string // host:port for mounts and tools
	ServerAddr string // host:port for chunkservers

	// ID is this master's number in the quorum of the changelog, default 1. With
	// Peers, the host:port of all voters on their port for each other by number
	// (this one's too), it is one of several: RaftAddr is where it listens for them.
	ID       uint64
	Peers    map[uint64]string
	RaftAddr string
	HTTPAddr string // of the web page, for status; "" for none

	Sync         string        // durability of the changelog: fsync (default) or quorum
	ImageEvery   time.Duration // between two images of the tree; default 1 h
	ImageEntries uint64        // log entries after which an image is due at the latest; default 1 M
	ImageBytes   uint64        // bytes of changelog after which one is due; default 256 MiB, which a start reads in about five seconds
	ImagesKept   int           // default 3

	SessionLease time.Duration // how long a silent mount keeps its rights; default 10 s
	SessionKeep  time.Duration // after which a silent mount's session is closed; default 6 leases
	RecallLimit  time.Duration // the log names a connected mount that answers no recall for so long; default 2 min
	RightsLimit  int           // rights of one session above which the oldest are recalled; default 500,000

	RepairDelay     time.Duration // how long a lost chunkserver may come back; default 10 s
	RepairPerServer int           // copies made at once by one chunkserver; default 4
	MinCopies       int           // fewest copies with which writing goes on; default 1
	ServerWait      time.Duration // how long a request waits for lost chunkservers; default 30 s
	Beat            time.Duration // between two beats of a chunkserver; default 1 s
	OrderLimit      time.Duration // a chunkserver that has not carried out an order by then has failed it; default 2 min

	Concerns func() []string // sentences of others on this host for status, while this master leads; nil: none
	Metrics  *metrics.Set
	Log      *slog.Logger
}

// withDefaults fills in what is not set and checks the rest.
func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" || len(c.Key) == 0 || c.ClientAddr == "" || c.ServerAddr == "" {
		return c, fmt.Errorf("master: directory, key and both addresses must be set")
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	def(&c.Name, "master")
	def(&c.Sync, "fsync")
	def(&c.ImageEvery, time.Hour)
	def(&c.ImageEntries, 1_000_000)
	def(&c.ImageBytes, 256<<20)
	def(&c.ID, 1)
	def(&c.ImagesKept, 3)
	def(&c.SessionLease, 10*time.Second)
	def(&c.SessionKeep, 6*c.SessionLease)
	def(&c.RecallLimit, 2*time.Minute)
	def(&c.RightsLimit, 500_000)
	def(&c.RepairDelay, 10*time.Second)
	def(&c.RepairPerServer, 4)
	def(&c.MinCopies, 1)
	def(&c.ServerWait, 30*time.Second)
	def(&c.Beat, time.Second)
	def(&c.OrderLimit, 2*time.Minute)
	if len(c.Peers) > 0 && (c.Peers[c.ID] == "" || c.RaftAddr == "") {
		return c, fmt.Errorf("master: voter %d must be among its peers %v and have an address for them", c.ID, c.Peers)
	}
	if c.Sync != "fsync" && c.Sync != "quorum" {
		return c, fmt.Errorf("master: sync is %q, not fsync or quorum", c.Sync)
	}
	return c, nil
}

// def sets *v to d when it is its type's zero.
func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
