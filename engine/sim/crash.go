package sim

import (
	"fmt"
	"math/rand/v2"

	"github.com/varvefs/varve/engine"
)

// Chooser decides what a crash leaves behind. Choose returns a number from 0 to n-1; it is
// asked for the grains that have a choice, file by file in the order of names, from the
// first grain to the last. 0 is the durable contents, 1 the oldest unsynced write, n-1 the
// newest.
type Chooser interface {
	Choose(n int) int
}

// ChooseFunc makes a Chooser of a function.
type ChooseFunc func(n int) int

// Choose calls f.
func (f ChooseFunc) Choose(n int) int { return f(n) }

// The two extremes: a crash that loses everything unsynced, and one that loses nothing.
var (
	Oldest Chooser = ChooseFunc(func(int) int { return 0 })
	Newest Chooser = ChooseFunc(func(n int) int { return n - 1 })
)

// Random returns a chooser with a temper drawn from the seed: it loses everything, nothing,
// every grain with some probability, or runs of grains.
func Random(seed uint64) Chooser {
	rnd := rand.New(rand.NewPCG(seed, 0x6372617368))
	keep := []float64{0.01, 0.1, 0.5, 0.9, 0.99}[rnd.IntN(5)]
	runs := 1
	switch rnd.IntN(6) {
	case 0:
		return Oldest
	case 1:
		return Newest
	case 2, 3:
		runs = 1 << rnd.IntN(10)
	}
	kept, left := false, 0
	return ChooseFunc(func(n int) int {
		if left == 0 {
			kept, left = rnd.Float64() < keep, 1+rnd.IntN(runs)
		}
		left--
		switch {
		case !kept:
			return 0
		case rnd.IntN(4) > 0:
			return n - 1
		}
		return 1 + rnd.IntN(n-1)
	})
}

// Every goes through all combinations of choices:
//
//	for e := new(sim.Every); e.Next(); {
//		d := disk.CrashClone(e)
//		...
//	}
//
// Their number is the product of the choices: keep writes few, or the grain at 4096.
type Every struct {
	path  []choice
	at    int
	begun bool
}

type choice struct{ taken, of int }

// Next begins the next combination; false when all have been.
func (e *Every) Next() bool {
	if !e.begun {
		e.begun = true
		return true
	}
	if e.at < len(e.path) {
		panic("BUG: a combination was asked for fewer choices than before it: the crash is not the same")
	}
	e.at = 0
	for n := len(e.path); n > 0; n-- {
		if c := &e.path[n-1]; c.taken+1 < c.of {
			c.taken++
			e.path = e.path[:n]
			return true
		}
	}
	return false
}

// Choose makes the current combination's next choice.
func (e *Every) Choose(n int) int {
	if e.at == len(e.path) {
		e.path = append(e.path, choice{of: n})
	}
	c := e.path[e.at]
	if c.of != n {
		panic(fmt.Sprintf("BUG: choice %d is among %d, before it was among %d: the crash is not the same", e.at, n, c.of))
	}
	e.at++
	return c.taken
}

// CrashClone returns the disk as it would come back if the power failed now. This disk
// goes on; the clone has no faults, no pending operations and the same Config.
func (d *Disk) CrashClone(ch Chooser) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.clone(ch)
}

// Crash cuts the power: it returns the disk as it comes back, and on this one everything
// pending and everything later fails with ErrCrashed.
func (d *Disk) Crash(ch Chooser) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.clone(ch)
	d.dead = true
	d.changed.Broadcast()
	d.kick()
	for d.cfg.Mode == Manual && d.step() {
	}
	return n
}

func (d *Disk) clone(ch Chooser) *Disk {
	n := New(d.cfg)
	for _, name := range d.names() {
		c := d.files[name]
		var inflight []*pending
		for _, p := range d.pending {
			isWrite := p.op.Kind == engine.Write || p.op.Kind == engine.WriteSync
			if p.file.file == c && isWrite && p.op.Check(c.size) == nil {
				inflight = append(inflight, p)
			}
		}
		n.files[name] = c.survive(ch, inflight)
		n.used += c.size
	}
	return n
}

// Pending describes a submitted operation that has not ended.
type Pending struct {
	Kind    engine.Kind
	Name    string // of the file
	Off     int64
	Len     int
	Stalled bool
}

// Pending returns what has not ended, in the order of submission.
func (d *Disk) Pending() []Pending {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]Pending, len(d.pending))
	for i, p := range d.pending {
		list[i] = Pending{p.op.Kind, p.file.file.name, p.op.Off, len(p.op.Buf), p.stall.holds()}
	}
	return list
}

// Step ends one pending operation, drawn from the seed, and runs its Done before it
// returns. It reports false when there is none that may end.
func (d *Disk) Step() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.step()
}

// StepAt ends the pending operation at index i of Pending, stalled or not; false if there
// is no such.
func (d *Disk) StepAt(i int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i < 0 || i >= len(d.pending) {
		return false
	}
	d.finish(i)
	return true
}

// Drain steps until nothing more can end, including what is submitted meanwhile, and
// returns the number of steps.
func (d *Disk) Drain() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for d.step() {
		n++
	}
	return n
}
