package journal

import (
	cryptorand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/test/sim/disk"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// The simulation: three voters in one goroutine, with a network that loses,
// doubles, delays and reorders, a clock for each that stops when it is paused,
// crashes at every point between two steps, and images. A seed repeats it all:
//
//	VARVE_SEED=1234 VARVE_SEEDS=1 go test ./master/journal -run 'TestSimulation$'
//
// After every step it holds that
//   - no term has two leaders,
//   - no two voters have the lease at the same time,
//   - whatever was committed at an index is the same everywhere and for ever,
//   - a voter's commit index never goes back while it lives.
//
// At the end everything heals, and every acknowledged proposal must be in every
// voter's log.

const simTick = 25 * time.Millisecond

type simNet struct {
	from, to uint64
	at       int64 // arrives at
	msg      *raftpb.Message
}

type simImage struct {
	at   position
	data []string // everything up to at
}

type simNode struct {
	s      *sim
	id     uint64
	disk   *disk.Disk
	log    *Manual // nil: down
	paused int64
	next   int64 // its next tick
	image  simImage
	seen   []string // all data applied, in order
	index  uint64   // last entry applied
	commit uint64
	fetch  int64 // an image arrives at that time, 0: none is under way
	from   uint64
}

type sim struct {
	t       testing.TB
	seed    uint64
	rng     *mathrand.Rand
	now     int64
	nodes   []*simNode
	net     []simNet
	cut     map[[2]uint64]bool // from, to
	leaders map[uint64]uint64  // term -> voter
	chosen  map[uint64]string  // index -> term and data
	acked   map[string]bool
	sent    int
	fails   []string
	calm    bool // no more faults
	elected int
	crashes int
}

// simPort is a node's Transport.
type simPort struct{ n *simNode }

func (p simPort) Send(msgs []*raftpb.Message) {
	s := p.n.s
	for _, m := range msgs {
		if s.cut[[2]uint64{p.n.id, m.GetTo()}] || !s.calm && s.rng.IntN(50) == 0 {
			continue
		}
		copies := 1
		if !s.calm && s.rng.IntN(50) == 0 {
			copies = 2
		}
		for range copies {
			delay := int64(s.rng.IntN(3000)) * int64(time.Microsecond)
			if !s.calm && s.rng.IntN(20) == 0 {
				delay += int64(s.rng.IntN(200)) * int64(time.Millisecond)
			}
			s.net = append(s.net, simNet{p.n.id, m.GetTo(), s.now + delay, proto.Clone(m).(*raftpb.Message)})
		}
	}
}

func newSim(t testing.TB, seed uint64) *sim {
	s := &sim{
		t: t, seed: seed, rng: mathrand.New(mathrand.NewPCG(seed, 99)), now: 1, cut: map[[2]uint64]bool{},
		leaders: map[uint64]uint64{}, chosen: map[uint64]string{}, acked: map[string]bool{},
	}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	cryptorand.Reader = mathrand.NewChaCha8(key) // raft draws its election timeouts from there
	for id := uint64(1); id <= 3; id++ {
		n := &simNode{s: s, id: id, disk: disk.New(seed + id)}
		s.nodes = append(s.nodes, n)
		n.start()
	}
	return s
}

func (s *sim) failf(format string, args ...any) {
	s.t.Fatalf("seed %d at %v: %s", s.seed, time.Duration(s.now), fmt.Sprintf(format, args...))
}

func (n *simNode) start() {
	cfg := config("")
	cfg.Files = n.disk
	cfg.ID, cfg.Peers, cfg.Transport, cfg.Tick, cfg.FileSize = n.id, []uint64{1, 2, 3}, simPort{n}, simTick, 256*page
	cfg.BackLogs, cfg.Reluctant = -1, n.id == 3
	cfg.Clock = func() int64 { return n.s.now }
	cfg.Applied, cfg.AppliedTerm = n.image.at.Index, n.image.at.Term
	cfg.Fetch = func(from, index uint64) {
		if n.fetch == 0 {
			n.fetch, n.from = n.s.now+int64(n.s.rng.IntN(300))*int64(time.Millisecond), from
		}
	}
	l, err := OpenManual(cfg)
	if err != nil {
		n.s.failf("voter %d does not start: %v", n.id, err)
	}
	n.log, n.next, n.paused, n.fetch = l, n.s.now+int64(simTick), 0, 0
	n.seen, n.index, n.commit = slices.Clone(n.image.data), n.image.at.Index, 0
	n.turn(nothing)
}

// crash ends a voter as kill -9 does: what was not written is gone.
func (n *simNode) crash() {
	n.log.Kill()
	n.disk.Die()
	n.log = nil
	n.s.crashes++
}

// turn is one round of the driver's loop.
func (n *simNode) turn(f func() error) {
	if err := errors.Join(f(), n.log.Turn()); err != nil {
		n.s.failf("voter %d: %v", n.id, err)
	}
	if n.log.Waiting() > 0 && n.s.rng.IntN(3) > 0 {
		n.apply()
	}
}

// nothing is a turn's reason when there is none but to look.
func nothing() error { return nil }

// apply takes what is committed.
func (n *simNode) apply() {
	s := n.s
	list, err := n.log.Take()
	if err != nil {
		s.failf("voter %d: %v", n.id, err)
	}
	for _, c := range list {
		switch {
		case c.Err != nil:
		case c.Image:
			if n.image.at != (position{c.Index, c.Term}) {
				s.failf("voter %d goes on behind entry %d, its image is of %d", n.id, c.Index, n.image.at.Index)
			}
			n.seen, n.index = slices.Clone(n.image.data), c.Index
		default:
			if c.Index != n.index+1 {
				s.failf("voter %d: entry %d follows %d", n.id, c.Index, n.index)
			}
			n.index = c.Index
			what := fmt.Sprintf("%d %s", c.Term, c.Data)
			if have, ok := s.chosen[c.Index]; ok && have != what {
				s.failf("voter %d has %q at %d, which was %q", n.id, what, c.Index, have)
			}
			s.chosen[c.Index] = what
			if c.Data != nil {
				n.seen = append(n.seen, string(c.Data))
			}
			if c.Tag != nil {
				s.acked[string(c.Data)] = true
			}
		}
	}
}

// step does one thing at random.
func (s *sim) step() {
	s.now += int64(s.rng.IntN(1000)) * int64(time.Microsecond)
	s.deliver()
	for _, n := range s.nodes {
		if n.log == nil || n.paused > s.now {
			continue
		}
		if n.next <= s.now {
			// A ticker keeps one tick for a late reader and drops the rest.
			n.next += int64(simTick)
			if n.next < s.now {
				n.next = s.now - (s.now-n.next)%int64(simTick) + int64(simTick)
			}
			n.turn(n.log.Tick)
		}
		if n.log.Writing() && s.rng.IntN(4) > 0 {
			n.write()
		}
		if n.fetch != 0 && n.fetch <= s.now {
			n.install()
		}
		if n.log.Waiting() > 0 && s.rng.IntN(4) == 0 {
			n.apply()
		}
	}
	switch n := s.nodes[s.rng.IntN(3)]; {
	case n.log == nil || n.paused > s.now:
	case s.rng.IntN(3) == 0:
		n.propose()
	case s.rng.IntN(300) == 0:
		n.save()
	}
	if !s.calm {
		s.fault()
	}
	s.check()
}

// deliver hands over what has arrived.
func (s *sim) deliver() {
	rest := s.net[:0]
	var due []simNet
	for _, m := range s.net {
		switch n := s.nodes[m.to-1]; {
		case m.at > s.now:
			rest = append(rest, m)
		case n.log == nil || s.cut[[2]uint64{m.from, m.to}]:
		case n.paused > s.now:
			rest = append(rest, m) // the kernel keeps it
		default:
			due = append(due, m)
		}
	}
	s.net = rest
	s.rng.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	for _, m := range due {
		if n := s.nodes[m.to-1]; n.log != nil {
			n.turn(func() error { return n.log.Step(m.msg) })
		}
	}
}

func (n *simNode) write() {
	n.turn(n.log.Write)
}

func (n *simNode) propose() {
	n.s.sent++
	data := fmt.Sprintf("p%d", n.s.sent)
	if err := n.log.Propose([]byte(data), data); err != nil && !errors.Is(err, status.NotLeader) {
		n.s.failf("voter %d: %v", n.id, err)
	}
	n.turn(nothing)
}

// save takes an image and lets the log behind it go.
func (n *simNode) save() {
	if n.index == 0 || n.index <= n.image.at.Index || n.fetch != 0 {
		return
	}
	term, err := n.log.st.Term(n.index)
	if err != nil {
		return
	}
	n.image = simImage{position{n.index, term}, slices.Clone(n.seen)}
	if err := n.log.Compact(n.index); err != nil {
		n.s.failf("voter %d: %v", n.id, err)
	}
}

// install gets the image that the leader had.
func (n *simNode) install() {
	n.fetch = 0
	im := n.s.nodes[n.from-1].image
	if im.at.Index > n.image.at.Index {
		n.image = simImage{im.at, slices.Clone(im.data)}
	}
	if n.image.at.Index <= n.index {
		return
	}
	n.log.Install(n.image.at.Index, n.image.at.Term) // again, if nobody led when it came
	n.turn(nothing)
}

func (s *sim) fault() {
	n := s.nodes[s.rng.IntN(3)]
	switch s.rng.IntN(4000) {
	case 0, 1:
		if n.log != nil {
			n.crash()
		}
	case 2, 3, 4, 5, 6:
		if n.log == nil {
			n.start()
		}
	case 7, 8: // SIGSTOP
		n.paused = s.now + int64(s.rng.IntN(1500))*int64(time.Millisecond)
	case 9, 10: // one way only
		s.cut[[2]uint64{n.id, uint64(1 + s.rng.IntN(3))}] = true
	case 11:
		for _, m := range s.nodes {
			s.cut[[2]uint64{n.id, m.id}], s.cut[[2]uint64{m.id, n.id}] = true, true
		}
	case 12, 13, 14, 15:
		clear(s.cut)
	case 16, 17:
		if n.log != nil && n.paused <= s.now {
			n.log.Transfer(uint64(1 + s.rng.IntN(2)))
			n.turn(nothing)
		}
	case 18:
		if n.log != nil && n.paused <= s.now {
			n.log.Campaign()
			n.turn(nothing)
		}
	case 19:
		s.obituary()
	}
}

// obituary is what the supervisor of a dead leader tells the others.
func (s *sim) obituary() {
	for _, dead := range s.nodes {
		if dead.log != nil || s.leaders[s.newest()] != dead.id {
			continue
		}
		for _, n := range s.nodes {
			if n.log != nil && n.paused <= s.now {
				n.log.ForgetLeader(s.newest())
				n.log.Campaign()
				n.turn(nothing)
			}
		}
	}
}

func (s *sim) newest() (term uint64) {
	for t := range s.leaders {
		term = max(term, t)
	}
	return term
}

// check holds the invariants.
func (s *sim) check() {
	leased := uint64(0)
	for _, n := range s.nodes {
		if n.log == nil {
			continue
		}
		st := n.log.Status()
		if n.log.leads {
			if other, ok := s.leaders[st.Term]; ok && other != n.id {
				s.failf("voters %d and %d both lead term %d", other, n.id, st.Term)
			} else if !ok {
				s.elected++
			}
			s.leaders[st.Term] = n.id
		}
		if n.log.Leased() {
			if leased != 0 {
				s.failf("voters %d and %d both have the lease", leased, n.id)
			}
			leased = n.id
		}
		if st.Commit < n.commit {
			s.failf("voter %d: the commit index goes back from %d to %d", n.id, n.commit, st.Commit)
		}
		n.commit = st.Commit
	}
}

// finish heals everything and compares.
func (s *sim) finish() {
	s.calm = true
	clear(s.cut)
	for _, n := range s.nodes {
		n.paused = 0
		if n.log == nil {
			n.start()
		}
	}
	level := func() bool {
		for _, n := range s.nodes {
			if n.index != s.nodes[0].index || n.log.Writing() || n.log.Waiting() > 0 || n.log.Status().Last != n.index {
				return false
			}
		}
		return len(s.net) < 10 && s.nodes[0].index > 0
	}
	s.rng = mathrand.New(mathrand.NewPCG(s.seed, 100))
	for i := 0; ; i++ {
		s.now += int64(time.Millisecond)
		s.deliver()
		for _, n := range s.nodes {
			if n.next <= s.now {
				n.next = s.now + int64(simTick)
				n.turn(n.log.Tick)
			}
			if n.log.Writing() {
				n.write()
			}
			if n.fetch != 0 && n.fetch <= s.now {
				n.install()
			}
			if n.log.Waiting() > 0 {
				n.apply()
			}
		}
		s.check()
		if i > 3000 && level() {
			break
		}
		if i > 60_000 {
			for _, n := range s.nodes {
				s.t.Logf("voter %d: index %d, %+v", n.id, n.index, n.log.Status())
			}
			s.failf("the voters do not agree within a minute of peace")
		}
	}
	for _, n := range s.nodes {
		have := map[string]bool{}
		for _, d := range n.seen {
			if have[d] {
				s.failf("voter %d has %s twice", n.id, d)
			}
			have[d] = true
		}
		for d := range s.acked {
			if !have[d] {
				s.failf("voter %d does not have %s, which was acknowledged", n.id, d)
			}
		}
		n.crash()
	}
}

// trace sums up what has happened.
func (s *sim) trace() string {
	h := fnv.New64()
	for i := uint64(1); s.chosen[i] != ""; i++ {
		fmt.Fprintln(h, i, s.chosen[i])
	}
	return fmt.Sprintf("%d entries, %d elections, %d crashes, ended at %v, sum %x", len(s.chosen), s.elected, s.crashes, time.Duration(s.now), h.Sum64())
}

// TestSimulationRepeats: a seed does the same every time, or it would be no use.
func TestSimulationRepeats(t *testing.T) {
	defer func(r io.Reader) { cryptorand.Reader = r }(cryptorand.Reader)
	var traces []string
	for range 2 {
		s := newSim(t, 4711)
		for range 5000 {
			s.step()
		}
		s.finish()
		traces = append(traces, s.trace())
	}
	if traces[0] != traces[1] {
		t.Fatalf("the same seed: %s, then %s", traces[0], traces[1])
	}
}

// TestSimulation runs seeds: VARVE_SEEDS of them, from VARVE_SEED on.
func TestSimulation(t *testing.T) {
	seeds, first := 12, uint64(time.Now().UnixNano())
	if n, err := strconv.Atoi(os.Getenv("VARVE_SEEDS")); err == nil {
		seeds = n
	}
	if n, err := strconv.ParseUint(os.Getenv("VARVE_SEED"), 10, 64); err == nil {
		first = n
	}
	defer func(r io.Reader) { cryptorand.Reader = r }(cryptorand.Reader)
	elected, crashes, acked := 0, 0, 0
	for i := range uint64(seeds) {
		s := newSim(t, first+i)
		for range 15_000 {
			s.step()
		}
		s.finish()
		elected, crashes, acked = elected+s.elected, crashes+s.crashes, acked+len(s.acked)
	}
	t.Logf("seeds %d..%d: %d elections, %d crashes, %d proposals acknowledged", first, first+uint64(seeds)-1, elected, crashes, acked)
}
