// Package placement knows where the copies of chunks are and where they should
// be: a registry of chunkservers and copies, and a planner of orders.
//
// It is pure: time comes in as nanoseconds of any clock that only goes forward,
// chance from a seed, knowledge of files through View; what is to be done goes
// out as orders. The master's loop owns a Placement and is the only caller:
//
//	Start, Load                              after the changelog was replayed
//	ServerUp, Report, Beat, ServerDown       as chunkservers come, tell and go
//	Warm, Warming                            what they told this master as a standby
//	Lost, Damaged                            as they have trouble
//	Place, Created, Lease, LeaseFail,
//	LeaseEnd, Settle, Freed, Changed         after the change was applied to the state
//	Next, Done                               orders out, results in
//	Copies, Usable, Matrix, Stats, Servers   questions
//
// Every known chunk has a slot of 16 bytes without pointers. No call walks all
// slots: what concerns all of them (a server went) is noted by a sweep that
// Next carries on, Config.Sweep slots at a time. Nothing here is ever written to
// disk: chunkservers tell again what they have.
package placement

import (
	"unsafe"

	"github.com/varvefs/varve/chunk"
)

// second in nanoseconds; package time is banned here with its clock.
const second = int64(1_000_000_000)

// Config has the limits of repair. Zero values are replaced by the defaults.
type Config struct {
	Seed uint64 // of the choice among servers; the same calls give the same answers

	Delay           int64  // ns until the copies of a lost server are replaced; default 10 s
	EndangeredDelay int64  // the same for chunks with one copy left; default 1 s
	OrphanDelay     int64  // ns until a copy of a chunk that was freed is removed; default 60 s
	RetryMin        int64  // ns until a failed order is tried again; doubles up to RetryMax; default 1 s
	RetryMax        int64  // default 60 s
	Incoming        int    // copies being made on a server at once; default 4
	Outgoing        int    // copies being read from a server at once; default 4
	Deletes         int    // delete orders of a server at once; default 2
	DeleteBatch     int    // copies in one of them; default 256
	Reserve         uint64 // bytes of free space below which a server is a last resort; default 256 MiB
	Sweep           int    // slots that one Next looks at after a server came or went; default 200,000
}

// Want is what the changelog says about a chunk.
type Want struct {
	Version chunk.Version
	Min     chunk.Version // lower than Version only while Leased
	Goal    uint8
	Leased  bool
}

// View lets placement look into the master's state.
type View interface {
	// Chunk returns false for a chunk that no file has.
	Chunk(id chunk.ID) (Want, bool)
	// Allocated reports whether the number was ever given to a chunk. A copy with
	// a number that was not is a riddle (an old image was loaded?) and never removed.
	Allocated(id chunk.ID) bool
}

// ServerInfo is what a chunkserver says about itself at ServerUp and Beat.
type ServerInfo struct {
	ID    chunk.Server
	Total uint64 // bytes
	Free  uint64
}

// Copy is one copy that a chunkserver reports.
type Copy struct {
	Chunk   chunk.ID
	Version chunk.Version
}

// CopyState says what a copy is good for.
type CopyState uint8

// States of copies. Only Valid ones count.
const (
	Valid   CopyState = iota
	Unsure            // may have missed writes; its version is being asked for
	Stale             // has missed writes; removed when there are enough valid copies
	Damaged           // its bytes do not match their checksums; replaced
	Ahead             // newer than the changelog says; never removed
)

var copyStates = [...]string{Valid: "valid", Unsure: "unsure", Stale: "stale", Damaged: "damaged", Ahead: "ahead"}

func (s CopyState) String() string { return copyStates[s] }

// CopyInfo is one copy for Copies.
type CopyInfo struct {
	Server   chunk.Server
	State    CopyState
	Up       bool // the server is connected
	InLease  bool // part of the set that the writer writes to
	Deleting bool
}

// OrderKind says what a server is to do.
type OrderKind uint8

// The orders. Each of them may be repeated without harm.
const (
	Replicate OrderKind = iota + 1 // make a copy of Chunk at Version from From
	Delete                         // remove the copies in Deletes
	Verify                         // say whether the copy of Chunk has Version (wire.SetVersion from Version to Version)
)

func (k OrderKind) String() string {
	return [...]string{Replicate: "replicate", Delete: "delete", Verify: "verify"}[k]
}

// Order is for one server. Its end is told to Done.
type Order struct {
	ID      uint64
	Kind    OrderKind
	Server  chunk.Server
	Chunk   chunk.ID       // Replicate, Verify
	Version chunk.Version  // Replicate, Verify
	From    []chunk.Server // Replicate: best first
	Deletes []Copy         // Delete: each is to be removed if its version is at most this
}

// Stats counts chunks and orders.
type Stats struct {
	Chunks      uint64 // known to the changelog
	Copies      uint64 // reported by servers that are up, all states
	UnderGoal   uint64
	OverGoal    uint64
	Endangered  uint64 // one valid copy where the goal is higher
	Missing     uint64 // no valid copy
	Damaged     uint64 // copies reported since start
	Leased      uint64
	Replicating uint64 // orders in flight
	Deleting    uint64 // copies waiting or in flight
	Queued      uint64 // chunks waiting for an order
	Orphans     uint64 // copies of no chunk, waiting to be removed
	Riddles     uint64 // copies with numbers that were never given, kept
}

// ServerStats is one chunkserver.
type ServerStats struct {
	ServerInfo
	Up       bool
	Ready    bool   // has told all its copies
	Copies   uint64 // of all states
	Incoming int
	Outgoing int
	Deleting int // copies waiting or in flight
}

// Placement is the registry and the planner. It belongs to one goroutine.
type Placement struct {
	cfg  Config
	view View
	seed uint64

	table   table
	servers []*server
	byID    map[chunk.Server]int
	seats   []seat
	hold    int64 // see held; 0: over

	matrix  Matrix
	leased  uint64
	orphans uint64 // slots
	riddles uint64 // slots
	damaged uint64 // reports

	queues  [places]queue
	delayed heap
	retries map[chunk.ID]retry
	sweeps  [2]round // of the changelog's chunks and of strays
	warm    []warmList

	orders    map[uint64]*order
	lastOrder uint64
}

// Matrix counts chunks by goal (first index) and valid copies (second; 10 stands
// for 10 or more).
type Matrix [11][11]uint64

// New makes an empty Placement.
func New(cfg Config, view View) *Placement {
	def(&cfg.Delay, 10*second)
	def(&cfg.EndangeredDelay, second)
	def(&cfg.OrphanDelay, 60*second)
	def(&cfg.RetryMin, second)
	def(&cfg.RetryMax, 60*second)
	def(&cfg.Incoming, 4)
	def(&cfg.Outgoing, 4)
	def(&cfg.Deletes, 2)
	def(&cfg.DeleteBatch, 256)
	def(&cfg.Reserve, 256<<20)
	def(&cfg.Sweep, 200_000)
	return &Placement{
		cfg: cfg, view: view, seed: cfg.Seed,
		byID:    map[chunk.Server]int{},
		retries: map[chunk.ID]retry{},
		orders:  map[uint64]*order{},
	}
}

// def sets *v to d when it is zero.
func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Matrix returns the counts of all chunks that the changelog knows.
func (p *Placement) Matrix() Matrix { return p.matrix }

// Memory is what the slots of all chunks take, in bytes.
func (p *Placement) Memory() uint64 {
	t := &p.table
	slots := uint64(len(t.pages)*pageSlots + cap(t.strays))
	return slots*uint64(unsafe.Sizeof(slot{})) + uint64(cap(t.blocks))*2*maxCopies
}

// Stats sums up. It is cheap enough for every tick.
func (p *Placement) Stats() Stats {
	st := Stats{Leased: p.leased, Damaged: p.damaged, Orphans: p.orphans, Riddles: p.riddles}
	for goal := range p.matrix {
		for valid, n := range p.matrix[goal] {
			st.Chunks += n
			switch {
			case valid == 0:
				st.Missing += n
			case valid < goal:
				st.UnderGoal += n
				if valid == 1 {
					st.Endangered += n
				}
			case valid > goal:
				st.OverGoal += n
			}
		}
	}
	for _, s := range p.servers {
		if s.up {
			st.Copies += p.seats[s.seat].copies
		}
		st.Deleting += uint64(len(s.doomed) + s.dooming)
	}
	for _, o := range p.orders {
		if o.kind == Replicate {
			st.Replicating++
		}
	}
	for i := range p.queues {
		st.Queued += uint64(p.queues[i].len())
	}
	st.Queued += uint64(len(p.delayed))
	return st
}
