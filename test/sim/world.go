package sim

import (
	"container/heap"
	"context"
	cryptorand "crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"runtime/debug"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/varvefs/varve/master/journal"
)

// nanos is a time of the world, which no host knows, or a span of it.
type nanos int64

const (
	us = nanos(time.Microsecond)
	ms = nanos(time.Millisecond)
)

func (t nanos) String() string { return fmt.Sprintf("%.6f", float64(t)/1e9) }

// Options say what to run.
type Options struct {
	Seed  uint64
	Trace io.Writer // nil: none
}

// Stats are what a run went through.
type Stats struct {
	Elections, Kills, PowerCuts, Pauses, Cuts, Wiped, Handovers, Images, Fetched int
	Acked, Reads, Resent, Withheld                                               int
	Overlap                                                                      time.Duration // longest with two holders of the address
	Gap                                                                          time.Duration // longest without any acknowledgement
	Virtual                                                                      time.Duration
	Trace                                                                        uint64 // sum over all that happened
}

// Failure is a broken invariant.
type Failure struct {
	Seed uint64
	At   time.Duration
	What string
}

func (f *Failure) Error() string {
	return fmt.Sprintf("seed %d at %v: %s\nreplay with: VARVE_SIM_FROM=%d VARVE_SIM_TO=%d VARVE_SIM_TRACE=1 go test ./test/sim -run 'TestSeeds$' -v",
		f.Seed, f.At, f.What, f.Seed, f.Seed)
}

// event is something that happens at a time.
type event struct {
	at  nanos
	seq uint64
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	old[len(old)-1].do = nil
	*e = old[:len(old)-1]
	return x
}

// world is one run.
type world struct {
	seed   uint64
	rng    *mathrand.Rand
	now    nanos
	queue  events
	seq    uint64
	calm   bool // no more faults
	mode   string
	plan   plan
	hosts  []*host
	net    network
	client []*client
	newID  uint64 // of the voter that was made last
	ledger ledger
	stats  Stats
	trace  io.Writer
	sum    uint64
	log    *slog.Logger
}

// plan is what a seed makes of a run.
type plan struct {
	length  nanos // of the time with faults
	pause   nanos // between two faults, on average
	think   nanos // of a client between two requests
	loss    int   // of so many messages one is lost
	masters int
}

// set is for all logs: a set of each of them would never be collected.
var set = metrics.NewSet()

// Run runs a seed. The error is a *Failure.
func Run(o Options) (stats Stats, err error) {
	defer func(r io.Reader) { cryptorand.Reader = r }(cryptorand.Reader)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], o.Seed)
	cryptorand.Reader = mathrand.NewChaCha8(key) // raft draws its timeouts from there, the journal its numbers

	w := &world{seed: o.Seed, rng: mathrand.New(mathrand.NewPCG(o.Seed, 7)), now: 1, trace: o.Trace}
	w.log = slog.New(&recorder{w: w})
	defer func() {
		stats = w.stats
		stats.Trace, stats.Virtual = w.sum, time.Duration(w.now)
		switch p := recover().(type) {
		case nil:
		case *Failure:
			err = p
		default:
			err = &Failure{w.seed, time.Duration(w.now), fmt.Sprintf("panic: %v\n%s", p, debug.Stack())}
		}
	}()
	w.build()
	w.run(w.plan.length)
	w.finish()
	return
}

// failf ends the run.
func (w *world) failf(format string, args ...any) {
	panic(&Failure{w.seed, time.Duration(w.now), fmt.Sprintf(format, args...)})
}

// notef writes a line of the trace.
func (w *world) notef(format string, args ...any) {
	if w.trace != nil {
		fmt.Fprintf(w.trace, "%s %s\n", w.now, fmt.Sprintf(format, args...))
	}
}

// mix takes something that happened into the sum, by which two runs are compared.
func (w *world) mix(n uint64) { w.sum = (w.sum ^ n) * 0x9e3779b97f4a7c15 }

// after has do happen later.
func (w *world) after(d nanos, do func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now + max(d, 0), w.seq, do})
}

// between draws a span.
func (w *world) between(lo, hi nanos) nanos { return lo + nanos(w.rng.Int64N(int64(hi-lo)+1)) }

// one draws one chance of n.
func (w *world) one(n int) bool { return w.rng.IntN(n) == 0 }

// rare spans are mostly short and sometimes not.
func (w *world) rare(typical nanos) nanos {
	switch {
	case w.calm || !w.one(60):
		return w.between(1, typical)
	case w.one(5):
		return w.between(typical, 3000*typical)
	}
	return w.between(typical, 200*typical)
}

// build makes the cluster that the seed asks for.
func (w *world) build() {
	r := w.rng
	w.plan = plan{
		length: w.between(4000*ms, 9000*ms), pause: w.between(60*ms, 900*ms), think: w.between(2*ms, 40*ms),
		loss: []int{20, 100, 1000, 100000}[r.IntN(4)], masters: 2,
	}
	w.mode = journal.SyncFsync
	switch r.IntN(10) {
	case 0, 1:
		w.mode = journal.SyncQuorum
	case 2:
		w.plan.masters = 3
	}
	w.newID = 3
	w.ledger.w = w
	w.ledger.begin()
	w.net.w = w
	w.net.cut = map[[2]int]bool{}
	for i := range 3 {
		w.hosts = append(w.hosts, newHost(w, i, i < w.plan.masters))
	}
	w.notef("%s mode, %d masters, %d metaloggers, faults every %v, one message of %d lost", w.mode, w.plan.masters, 3-w.plan.masters, w.plan.pause, w.plan.loss)
	for _, h := range w.hosts {
		w.after(w.between(0, 100*ms), h.boot)
	}
	for i := range 3 {
		c := newClient(w, i)
		w.client = append(w.client, c)
		w.after(w.between(0, 1500*ms), c.begin)
	}
	w.after(1500*ms, w.fault)
	if w.mode == journal.SyncQuorum && w.one(3) {
		w.after(w.between(2000*ms, w.plan.length-1000*ms), w.lightsOut)
	}
}

// run lets time pass.
func (w *world) run(d nanos) {
	for end := w.now + d; len(w.queue) > 0 && w.queue[0].at <= end; {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		w.mix(uint64(e.at))
		e.do()
		w.ledger.check()
	}
}

// finish heals everything and looks whether all come to the same end.
func (w *world) finish() {
	w.calm = true
	w.notef("peace")
	clear(w.net.cut)
	for _, h := range w.hosts {
		h.heal()
	}
	for _, c := range w.client {
		c.stop = true
	}
	end := w.now + 60_000*ms
	w.run(3000 * ms)
	for !w.level() {
		if w.now > end {
			w.failf("the voters and clients do not come to rest within a minute of peace:\n%s", w.describe())
		}
		w.run(200 * ms)
	}
	w.ledger.atEnd()
}

// level tells whether all is done and the same everywhere.
func (w *world) level() bool {
	for _, c := range w.client {
		if len(c.open) > 0 {
			return false
		}
	}
	first := w.hosts[0].proc
	for _, h := range w.hosts {
		p := h.proc
		if p == nil || h.wiped || p.index != first.index || p.log.Status().Last != p.index || p.log.Status().Leader == 0 || p.index == 0 {
			return false
		}
	}
	return true
}

func (w *world) describe() string {
	var b strings.Builder
	for _, h := range w.hosts {
		if h.proc == nil {
			fmt.Fprintf(&b, "host %d: down\n", h.n)
			continue
		}
		m := h.proc.log.Members()
		fmt.Fprintf(&b, "host %d: voter %d, index %d, life ready=%v, members %v, %+v\n", h.n, h.id, h.proc.index, h.proc.helm.Ready(), m.List, h.proc.log.Status())
	}
	for _, c := range w.client {
		fmt.Fprintf(&b, "client %d: %d open, asks host %d\n", c.n, len(c.open), c.at)
	}
	return b.String()
}

// recorder is a slog.Handler that writes into the trace.
type recorder struct {
	w    *world
	attr string
}

func (r *recorder) Enabled(_ context.Context, l slog.Level) bool {
	return r.w.trace != nil
}

func (r *recorder) Handle(_ context.Context, rec slog.Record) error {
	var b strings.Builder
	rec.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		return true
	})
	r.w.notef("%s%s%s", r.attr, rec.Message, b.String())
	return nil
}

func (r *recorder) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *r
	for _, a := range attrs {
		n.attr += a.Value.String() + ": "
	}
	return &n
}

func (r *recorder) WithGroup(string) slog.Handler { return r }

// hash is of bytes.
func hash(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b)
	return h.Sum64()
}
