package state

import (
	"slices"
	"sort"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
)

// State is the whole metadata. See the package comment.
type State struct {
	clk *clock

	inodes  slab[inodeRec]
	edges   slab[edgeRec]
	links   slab[linkRec]
	dirs    slab[dirRec]
	tallies slab[tallyRec]
	trees   slab[tree] // of files with more than their first chunk
	nodes   slab[node] // of all trees
	chunks  slab[chunkRec]
	details slab[detailRec]
	traits  slab[traitsRec]
	leases  slab[leaseRec]
	xattrs  slab[xattrRec]
	blobs   blobs
	names   index // (directory, name) -> edge
	owners  index // inode -> its extended attributes
	kinds   index // traits -> their record

	// What does not grow with the number of files.
	head     header
	sessions []*session          // by number
	servers  []ServerInfo        // by number
	orphans  map[uint32][]uint64 // inode slot -> sessions that hold it, ascending
	scratch  Result              // of the entry being applied
}

// header is the part of a State that is a handful of numbers.
type header struct {
	time     int64  // of the last entry
	seed     uint64 // of the hash of names
	session  uint64 // the last number given out
	cluster  string
	files    uint64
	dirs     uint64
	symlinks uint64
	others   uint64
	chunks   uint64
	length   uint64 // sum of the sizes of files
	leapt    uint64 // epoch of the last Leap
	floor    uint32 // uses of a slot begin here: what a Leap has left behind
}

// session is a mount and the replies it may still ask for.
type session struct {
	info    SessionInfo
	floor   uint64      // replies up to here are forgotten
	replies []reply     // by seq
	numbers []inode.Ino // reserved for inodes that it will make
}

// reply is what is remembered of an executed request.
type reply struct {
	seq    uint64
	ino    inode.Ino
	gone   inode.Ino
	codes  []status.Code
	count  uint32
	code   status.Code
	orphan bool
}

// maxReplies bounds what is remembered for a session that never says Done.
const maxReplies = 1 << 16

// New makes an empty file system: the root directory with mode 0755, owner 0
// and goal 2, made at time (nanoseconds since 1970). All masters of a cluster
// must start with the same time.
func New(time int64) *State {
	s := &State{orphans: map[uint32][]uint64{}}
	s.head.time = time
	s.head.seed = mix(uint64(time))
	s.setClock(newClock())
	slot := s.newInode(s.inodes.alloc(), inode.Dir, 0o755, time)
	s.setTraits(slot, traits{nlink: 2})
	n := s.inodes.mut(slot)
	n.goal = 2
	if n.number(slot) != inode.Root {
		panic("BUG: the first inode is not the root")
	}
	return s
}

// Apply carries out e. What it returns stays valid.
func (s *State) Apply(e *Entry) Result {
	r := &s.scratch
	*r = Result{}
	s.head.time = e.Time
	if e.Seq == 0 {
		e.Op.apply(s, e, r)
		return *r
	}
	ses := s.session(e.Session)
	if ses == nil {
		r.Code = status.Stale
		return *r
	}
	if old, ok := ses.find(e.Seq); ok {
		*r = old.result()
		ses.forget(e.Done)
		return *r
	}
	if e.Seq <= ses.floor {
		r.Code = status.Stale
		return *r
	}
	ses.forget(e.Done)
	e.Op.apply(s, e, r)
	ses.remember(reply{
		seq: e.Seq, ino: r.Ino, gone: r.Gone, codes: r.Codes, count: r.Count, code: r.Code, orphan: r.Orphan,
	})
	return *r
}

// Replied gives what is remembered of a session's request: false when it has
// not been executed, or when the session has said that it has the reply.
func (s *State) Replied(session, seq uint64) (Result, bool) {
	ses := s.session(session)
	if ses == nil {
		return Result{}, false
	}
	old, ok := ses.find(seq)
	if !ok {
		return Result{}, false
	}
	return old.result(), true
}

func (p *reply) result() Result {
	return Result{Code: p.code, Ino: p.ino, Gone: p.gone, Orphan: p.orphan, Codes: p.codes, Count: p.count, Repeat: true}
}

// place finds where the reply of seq is or belongs.
func (ses *session) place(seq uint64) int {
	if n := len(ses.replies); n == 0 || ses.replies[n-1].seq < seq {
		return n
	}
	return sort.Search(len(ses.replies), func(i int) bool { return ses.replies[i].seq >= seq })
}

func (ses *session) find(seq uint64) (*reply, bool) {
	i := ses.place(seq)
	if i == len(ses.replies) || ses.replies[i].seq != seq {
		return nil, false
	}
	return &ses.replies[i], true
}

// forget drops the replies up to done.
func (ses *session) forget(done uint64) {
	if done <= ses.floor {
		return
	}
	ses.floor = done
	i := 0
	for i < len(ses.replies) && ses.replies[i].seq <= done {
		i++
	}
	if i > 0 {
		ses.replies = slices.Delete(ses.replies, 0, i)
	}
}

func (ses *session) remember(p reply) {
	if p.seq <= ses.floor {
		return // the request said itself that its reply is not wanted
	}
	if len(ses.replies) >= maxReplies {
		ses.forget(ses.replies[0].seq)
	}
	ses.replies = slices.Insert(ses.replies, ses.place(p.seq), p)
}

// session finds a session, nil: none.
func (s *State) session(id uint64) *session {
	i := sort.Search(len(s.sessions), func(i int) bool { return s.sessions[i].info.ID >= id })
	if i == len(s.sessions) || s.sessions[i].info.ID != id {
		return nil
	}
	return s.sessions[i]
}

// live keeps those of the sessions that exist, ascending and each once.
func (s *State) live(sessions []uint64) []uint64 {
	var out []uint64
	for _, id := range sessions {
		if s.session(id) != nil {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
