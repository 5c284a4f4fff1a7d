package segment

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/raw"
	"github.com/varvefs/varve/engine/sim"
	"github.com/varvefs/varve/status"
)

// The model says what a chunk may be after a crash. Whatever is done to a chunk adds a
// state to its history; what is acknowledged is the oldest that may come back. A store
// keeps the order of the changes of a chunk, so what comes back is one of the states,
// never a mixture.

// tortureTime is how long the tests of crashes and faults are to go on, as asked for by
// VARVE_TORTURE; 0: the usual.
func tortureTime() time.Duration {
	d, err := time.ParseDuration(cmp.Or(os.Getenv("VARVE_TORTURE"), "0"))
	if err != nil {
		panic("VARVE_TORTURE: " + err.Error())
	}
	return d
}

const modelSize = 40 << 10 // bytes of a chunk that the model looks at

type state struct {
	exists  bool
	version chunk.Version
	writes  uint64
	data    []byte // modelSize bytes; nil: all zero
}

type history struct {
	states []state // oldest first; the first is acknowledged
	base   int     // number of the first
	acked  int     // number of the newest that is acknowledged

	keepAll bool // keep those that are older than it, too
}

func (h *history) last() *state { return &h.states[len(h.states)-1] }

// add appends a state and returns its number.
func (h *history) add(s state) int {
	h.states = append(h.states, s)
	return h.base + len(h.states) - 1
}

// ack drops what is older than state n.
func (h *history) ack(n int) {
	if h.acked = max(h.acked, n); n > h.base && !h.keepAll {
		h.states = h.states[n-h.base:]
		h.base = n
	}
}

// world is a store on a simulated disk, driven by one goroutine, and the model of it.
type world struct {
	t      testing.TB
	name   string // of the run, to replay it
	rnd    *rand.Rand
	disk   *sim.Disk
	device bool // the store is on a table of files (package raw) on one file of the disk
	s      *Store
	chunks map[chunk.ID]*history
	onStep func()       // before each operation of the disk ends
	checks int          // crash states that were looked at
	seed   uint64       // of the next fill
	met    *metrics.Set // of the stores that are only looked at

	explored moment // when explore was here last
	keepAll  bool   // histories keep what is older than what was acknowledged
	damaged  bool   // the disk is not honest: reads may fail
}

func newWorld(t testing.TB, name string, seed uint64, grain int) *world {
	return newWorldOn(t, name, seed, sim.New(sim.Config{Seed: seed, Mode: sim.Manual, Grain: grain}))
}

func newWorldOn(t testing.TB, name string, seed uint64, d *sim.Disk) *world {
	w := &world{t: t, name: name, rnd: rand.New(rand.NewPCG(seed, 99)), chunks: make(map[chunk.ID]*history), disk: d, met: metrics.NewSet()}
	w.open()
	return w
}

func newDeviceWorld(t testing.TB, name string, seed uint64) *world {
	d := sim.New(sim.Config{Seed: seed, Mode: sim.Manual, Grain: 512})
	if _, err := d.Create(deviceName, 24<<20); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, name: name, rnd: rand.New(rand.NewPCG(seed, 99)), chunks: make(map[chunk.ID]*history), disk: d, device: true, met: metrics.NewSet()}
	w.open()
	return w
}

const deviceName = "device"

// on is what the store stands on: the simulated disk, or files on its only one.
func (w *world) on(d *sim.Disk, step func() bool) engine.Disk {
	if !w.device {
		return d
	}
	f, err := d.Open(deviceName)
	if err != nil {
		w.fatal("%v", err)
	}
	r, err := raw.Open(raw.Config{Device: f, Backend: "sim", Do: func(f engine.File, kind engine.Kind, buf []byte, off int64) error {
		return do(f, kind, buf, off, step)
	}})
	if err != nil {
		w.fatal("open the device: %v", err)
	}
	return r
}

func (w *world) config(step func() bool) Config {
	return Config{SegmentSize: minSegment, ContainerSegments: 4, Limit: 20 * minSegment, Create: &testIdentity, Log: testLog, step: step}
}

func (w *world) open() {
	d := w.disk
	cfg := w.config(func() bool {
		if w.onStep != nil {
			w.onStep()
		}
		return d.Step()
	})
	cfg.Disk = w.on(d, cfg.step)
	s, err := Open(cfg)
	if err != nil {
		w.t.Fatalf("%s: %v", w.name, err)
	}
	w.s = s
}

func (w *world) history(id chunk.ID) *history {
	h := w.chunks[id]
	if h == nil {
		h = &history{states: []state{{}}, keepAll: w.keepAll}
		w.chunks[id] = h
	}
	return h
}

func (w *world) fatal(format string, args ...any) {
	w.t.Helper()
	text := fmt.Sprintf("%s: %s", w.name, fmt.Sprintf(format, args...))
	// In the middle of a step a deferred unlock may end the program before the test can
	// print anything.
	fmt.Fprintln(os.Stderr, text)
	w.t.Fatal(text)
}

// lend puts the data of a write into a room that is spoilt when it is given back.
func lend(w Write) Write {
	if w.What != WriteData {
		return w
	}
	room := engine.Alloc(HeadRoom + len(w.Data))[:HeadRoom+len(w.Data)]
	copy(room[HeadRoom:], w.Data)
	w.Room, w.Data = room, room[HeadRoom:]
	w.Done = func() {
		if room == nil {
			panic("BUG: a room is given back twice")
		}
		for i := range room {
			room[i] = 0xdb
		}
		room = nil
	}
	return w
}

// write does a Write and adds what it should come to, part by part.
func (w *world) write(wr Write) error {
	h := w.history(wr.Chunk)
	next := *h.last()
	if !next.exists {
		next = state{exists: true, version: wr.Version}
	} else if next.version != wr.Version {
		next.version, next.writes = wr.Version, 0
	}
	next.writes++
	off, n := wr.Off, wr.Len
	switch wr.What {
	case WriteData:
		n = uint32(len(wr.Data))
	case WriteTrim:
		n = chunk.Size - off
	}
	last := 0
	for done := uint32(0); done < n; {
		part := n - done
		if wr.What == WriteData {
			part = min(part, w.s.partMax-(off+done)%blockSize)
		}
		data := make([]byte, modelSize)
		copy(data, next.data)
		if from, to := min(off+done, modelSize), min(off+done+part, modelSize); from < to {
			clear(data[from:to])
			if wr.What == WriteData {
				copy(data[from:to], wr.Data[done:])
			}
		}
		next.data = data
		last = h.add(next)
		done += part
	}
	tk, err := w.s.Write(lend(wr))
	if err != nil { // none or a part of it may be done
		i := w.find(w.s, wr.Chunk, false)
		if i < 0 {
			w.fatal("a failed write left chunk %v in an impossible state", wr.Chunk)
		}
		h.states = h.states[:i-h.base+1]
		return err
	}
	tk.Then(func(err error) {
		if err == nil {
			h.ack(last)
		}
	})
	return nil
}

func (w *world) delete(id chunk.ID) {
	h := w.history(id)
	n := h.add(state{})
	w.s.mu.Lock()
	f, err := w.s.delete(id)
	w.s.unlock()
	if err != nil {
		w.fatal("delete: %v", err)
	}
	Ticket{f}.Then(func(err error) {
		if err == nil {
			h.ack(n)
		}
	})
}

func (w *world) setVersion(id chunk.ID, v chunk.Version) {
	next := *w.history(id).last()
	if !next.exists {
		return
	}
	if next.version != v {
		next.version, next.writes = v, 0
	}
	h := w.history(id)
	n := h.add(next)
	if err := w.s.SetVersion(id, v); err != nil {
		w.fatal("set version: %v", err)
	}
	h.ack(n)
}

func (w *world) replace(id chunk.ID, v chunk.Version, commit bool, parts ...Write) error {
	imp, err := w.s.Begin(id, v)
	if err != nil {
		return err
	}
	next := state{exists: true, version: v, data: make([]byte, modelSize)}
	for _, p := range parts {
		if err := imp.Write(p.Off, p.Data, nil); err != nil {
			imp.Abort()
			return err
		}
		if p.Off < modelSize {
			copy(next.data[p.Off:], p.Data)
		}
	}
	if !commit {
		if w.rnd.IntN(2) == 0 {
			imp.Abort()
		}
		return nil
	}
	h := w.history(id)
	n := h.add(next)
	tk, err := imp.commit()
	if err != nil {
		w.fatal("commit: %v", err)
	}
	tk.Then(func(err error) {
		if err == nil {
			h.ack(n)
		}
	})
	if w.rnd.IntN(2) == 0 {
		return tk.Wait()
	}
	return nil
}

func (w *world) fill(n int) []byte {
	w.seed++
	b := fill(n+8, w.seed)[:n]
	for i := range b {
		b[i] |= 1 // never zero: a hole is seen
	}
	return b
}

// find returns the number of the state that a store has of a chunk, -1 if none matches.
// exact: the newest only.
func (w *world) find(s *Store, id chunk.ID, exact bool) int {
	h := w.history(id)
	info, ok := s.Stat(id)
	var data []byte
	if ok {
		data = make([]byte, modelSize)
		sums, err := s.Read(id, 0, 1<<31, 0, data, nil)
		if w.damaged && errors.Is(err, status.Corrupt) {
			return h.base + len(h.states) - 1 // it is known
		}
		if err != nil {
			w.fatal("chunk %v: %v", id, err)
		}
		if chunk.Verify(sums, 0, data) >= 0 {
			w.fatal("chunk %v: sums of a read do not match its data", id)
		}
		if !w.damaged {
			checkPlaces(w.t, s, id, 0, data)
		}
	}
	for i := len(h.states) - 1; i >= 0; i-- {
		st := &h.states[i]
		if st.exists == ok && (!ok || st.version == info.Version && st.writes == info.Writes && same(st.data, data)) {
			return h.base + i
		}
		if exact {
			break
		}
	}
	return -1
}

func same(a, b []byte) bool {
	if a == nil {
		return blank(b)
	}
	return bytes.Equal(a, b)
}

// check compares a store with the model: the store of the world must be at the newest
// states (exact), one that comes from a crash at any state that is possible.
func (w *world) check(s *Store, exact bool) map[chunk.ID]int {
	found := make(map[chunk.ID]int)
	for id := range w.chunks {
		n := w.find(s, id, exact)
		if n < 0 {
			info, ok := s.Stat(id)
			h := w.history(id)
			w.fatal("chunk %v is in none of the %d possible states; it is %v %+v, the newest is %v %d/%d, the oldest %v %d/%d", id, len(h.states),
				ok, info, h.last().exists, h.last().version, h.last().writes, h.states[0].exists, h.states[0].version, h.states[0].writes)
		}
		found[id] = n
	}
	s.Chunks(func(id chunk.ID, _ Info) bool {
		if w.chunks[id] == nil {
			w.fatal("chunk %v was never made", id)
		}
		return true
	})
	select {
	case e := <-s.Events():
		w.fatal("event %+v on an honest disk", e)
	default:
	}
	checkBooks(w.t, w.name, s)
	return found
}

// crash opens what a power cut leaves and checks it. depth is how many more cuts may
// come during recovery.
func (w *world) crash(ch sim.Chooser, depth int) (*sim.Disk, map[chunk.ID]int) {
	d := w.disk.CrashClone(ch)
	return d, w.recoverFrom(d, depth)
}

func (w *world) recoverFrom(d *sim.Disk, depth int) map[chunk.ID]int {
	w.checks++
	steps := 0
	cfg := w.config(func() bool {
		steps++
		if depth > 0 && w.rnd.IntN(3) == 0 {
			w.recoverFrom(d.CrashClone(sim.Random(w.rnd.Uint64())), depth-1)
		}
		return d.Step()
	})
	cfg.Disk, cfg.Metrics = w.on(d, cfg.step), w.met
	s, err := Open(cfg)
	if err != nil {
		w.fatal("open after a crash: %v", err)
	}
	found := w.check(s, false)
	if depth > 0 && w.rnd.IntN(4) == 0 { // go on for a moment, and crash again
		id := chunk.ID(1000 + depth)
		if _, err := s.Write(Write{Chunk: id, Version: 1, Create: true, Data: []byte("after")}); err != nil {
			w.fatal("write after a crash: %v", err)
		}
		w.chunks[id] = &history{states: []state{{}, {exists: true, version: 1, writes: 1, data: append([]byte("after"), make([]byte, modelSize-5)...)}}}
		w.recoverFrom(d.CrashClone(sim.Random(w.rnd.Uint64())), depth-1)
		delete(w.chunks, id)
	}
	return found
}

// restart makes a crash come true: the world goes on with what is left.
func (w *world) restart(ch sim.Chooser) {
	d := w.disk.Crash(ch)
	w.disk = d
	w.open()
	for id, n := range w.check(w.s, false) {
		h := w.chunks[id]
		i := n - h.base
		h.states, h.base = h.states[i:i+1:i+1], n
	}
}

// checkBooks recomputes what a store keeps count of.
func checkBooks(t testing.TB, name string, s *Store) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	live := make([]int64, len(s.segs))
	refs := make(map[chunk.ID]uint32)
	total, count := int64(0), uint64(0)
	add := func(seg uint32, cost int64) {
		live[seg] += cost
		total += cost
	}
	extents := func(b *body) {
		end := uint32(0)
		for _, e := range s.index.unpacked(b) {
			if e.off < end || e.len == 0 {
				t.Fatalf("%s: extents overlap at %d", name, e.off)
			}
			end = e.end()
			add(e.seg, e.cost())
		}
	}
	for _, g := range s.segs {
		for id := range g.set {
			refs[id]++
		}
		for _, id := range g.chunks {
			refs[id]++
		}
	}
	for id := range s.index.table {
		r := s.index.find(id)
		extents(&r.body)
		for _, seg := range []uint32{r.attest, r.state} {
			if seg != noSegment {
				add(seg, entryCost)
			}
		}
		if r.refs != refs[id] {
			t.Fatalf("%s: chunk %v is in %d segments, the record says %d", name, id, refs[id], r.refs)
		}
		if r.alive() {
			count++
			if r.attest == noSegment || r.length != s.index.length(&r.body) {
				t.Fatalf("%s: chunk %v: attest %d, length %d", name, id, r.attest, r.length)
			}
		}
	}
	for _, imp := range s.imports {
		extents(&imp.body)
	}
	for i, g := range s.segs {
		if g.live != live[i] {
			t.Fatalf("%s: segment %d has %d live bytes, the books say %d", name, i, live[i], g.live)
		}
	}
	if total != s.index.live || count != s.index.count {
		t.Fatalf("%s: %d live bytes of %d chunks, the books say %d of %d", name, total, count, s.index.live, s.index.count)
	}
}
