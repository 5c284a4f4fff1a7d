// Package journal keeps the master's changelog: the log of go.etcd.io/raft/v3
// in files of its own format (FORMAT.md), and the goroutine that drives raft.
//
// The master's loop proposes batches of changes and applies what comes back as
// committed; it is the only caller of Propose and the only reader of Committed.
// Compact, Status and Step may be called from any goroutine.
//
// One goroutine, the driver, owns the RawNode. The file that is written belongs
// to whoever runs append: the driver itself while there is one voter (nothing
// else could happen meanwhile, and a hop to another goroutine costs more than
// it gains), a writer goroutine when there are peers. What both share is in
// store, under its own lock. Lock order: Log.mu and store.mu are leaves; none
// is held while the other is taken, nor over I/O or a channel operation.
package journal

import (
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/varvefs/varve/master/journal/files"
	"go.etcd.io/raft/v3/raftpb"
)

// Durability modes, Config.SyncMode.
const (
	// SyncFsync acknowledges a proposal when a majority has it on disk.
	SyncFsync = "fsync"
	// SyncQuorum acknowledges it when a majority has it in its page cache; it is
	// on disk within Config.SyncDelay. Terms and votes are always synced. A power
	// cut of the majority may lose the last SyncDelay of acknowledged proposals.
	SyncQuorum = "quorum"
)

// Config says where the log is and how it is kept. Dir and ID are required.
type Config struct {
	Dir   string            // owned by this log alone; made if missing
	ID    uint64            // this voter, not 0
	Peers []uint64          // the voters of a new log, with ID among them; empty: ID alone
	Addrs map[uint64]string // where each of them is reached by the others
	// Await makes a new log wait for Found instead of being founded by Peers: until
	// then it neither votes nor takes entries, lest a voter that has lost its log
	// passes for the one that it was.
	Await bool
	// Changed is told, on the driver, when the membership has changed. It must not block.
	Changed func(Members)

	// Applied and AppliedTerm are the index and term of the last entry that the
	// image holds; 0 without an image. Entries up to Applied are not delivered again.
	Applied     uint64
	AppliedTerm uint64

	SyncMode  string        // SyncFsync (default) or SyncQuorum
	SyncDelay time.Duration // quorum: longest time without a sync, default 50 ms
	FileSize  int64         // bytes of each log file, default 16 MiB; a multiple of 4096
	BackLogs  int           // files kept although an image holds all they hold; default 2, <0: none

	// Transport carries messages to the other voters; nil with a single voter.
	Transport Transport
	Tick      time.Duration // raft's clock when there are peers, default 25 ms; an election takes 20 to 40 ticks
	// Fetch is called, on the driver, when the leader from no longer has the
	// entries that this voter lacks: an image of entry index or a later one is
	// needed. It must not block; it is called again while the need lasts. What it
	// sets going ends with Install.
	Fetch func(from, index uint64)
	// Reluctant holds back this voter's own candidacies, so that another one wins
	// where one can: for voters that lead only to hand over.
	Reluctant bool
	// Clock gives the time for the lease, in nanoseconds; nil: CLOCK_BOOTTIME,
	// which goes on while the machine is suspended.
	Clock func() int64

	// Files is where the log is kept; nil: in Dir on the host. A simulation brings
	// its own, as it does with Boot, which names the present boot of the kernel.
	Files files.Dir
	Boot  func() string

	manual bool // set by OpenManual

	Log     *slog.Logger // nil: slog.Default()
	Metrics *metrics.Set // nil: a set of its own
}

// Transport sends raft messages to other voters. Send must not block and may
// drop; the other side hands what arrives to Log.Step.
type Transport interface {
	Send(msgs []*raftpb.Message)
}

// Committed is one entry of the log that a majority holds, or the end of a
// proposal that did not make it into the log.
type Committed struct {
	Index uint64
	Term  uint64
	// Data is what was proposed. It is nil in the first entry of a leader's term:
	// whoever leads term T has caught up with all former leaders when it has
	// applied the entry without data of term T.
	Data []byte
	// Tag is what Propose was given, if this log proposed the entry since Open.
	Tag any
	// Err is set (and Index 0) when the proposal with Tag is certainly not in the
	// log and never will be: this master did not lead, or was deposed.
	Err error
	// Members is set when the entry changed the membership; there is nothing to apply.
	Members bool
	// Image is set when the log was cut and starts behind Index: the state must
	// be fetched from the leader as an image of that index. Never with one voter.
	Image bool
}

// Leadership is a change of who leads.
type Leadership struct {
	Term   uint64
	Leader bool // this log leads Term
}

// Status is a glance at the log.
type Status struct {
	ID       uint64 // this voter
	Term     uint64
	Leader   uint64 // 0: none known
	Commit   uint64 // last index known to be committed
	Applied  uint64 // last index that was taken from Committed, or that the image holds
	First    uint64 // first index that is still in the files
	Last     uint64 // last index in the log
	LastTerm uint64 // term of that entry
	Amnesia  bool   // entries that it acknowledged may be missing; it does not vote
	Since    uint64 // with Amnesia: what may be missing is of terms before
	Heard    int64  // Config.Clock when a leader was last heard, 0: not since Open
	Longest  bool   // since no leader is heard a voter asked for votes that has less of the log than this one
	Writing  int64  // Config.Clock since when a write to the files has been under way, 0: none is
	Trouble  string // what an operator should see to, a full disk for example; empty: nothing
	Bytes    uint64 // of files that hold what no image holds yet: what a start has to read
	// Peers is what the leader knows of the others, by ID; empty elsewhere. It is
	// at most 100 ms old.
	Peers []Peer
}

// Peer is how far another voter is.
type Peer struct {
	ID      uint64
	Match   uint64 // it has all entries up to here
	Lag     uint64 // entries that it does not have yet
	Active  bool   // it has answered within the last election timeout
	Learner bool   // it does not vote
	State   string // of raft's replication: probe, replicate or snapshot
}
