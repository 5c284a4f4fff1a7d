package sim

import (
	"slices"
	"syscall"

	"github.com/varvefs/varve/engine"
)

// Effect is what a fault does to an operation.
type Effect uint8

// The effects. Those that make no sense for a kind of operation do not match it.
const (
	Fail      Effect = iota + 1 // the op fails; of a write, any grains may have arrived
	Lose                        // a write is reported done and never arrives
	Misdirect                   // a write arrives Shift bytes further on
	Flip                        // one bit is wrong: on the disk (writes) or in the buffer (reads)
	Lie                         // a Sync or WriteSync is reported done and is not durable
	Stall                       // the op does not end until the rule is lifted
)

func (e Effect) String() string {
	return [...]string{"", "fail", "lose", "misdirect", "flip", "lie", "stall"}[e]
}

// suits reports whether e can happen to an operation of that kind.
func (e Effect) suits(k engine.Kind) bool {
	switch e {
	case Lose, Misdirect:
		return k == engine.Write || k == engine.WriteSync
	case Flip:
		return k != engine.Sync
	case Lie:
		return k == engine.Sync || k == engine.WriteSync
	}
	return true
}

// Fault describes which operations an effect strikes. ReadAt counts as Read, the pieces
// of File.Zero as Write.
type Fault struct {
	Effect Effect
	Kinds  []engine.Kind // nil: every kind that the effect suits
	File   string        // "": every file
	Off    int64         // only ops that touch [Off, Off+Len); a Sync touches everything
	Len    int64         // 0: to the end
	Skip   int           // matching ops to let pass first
	Times  int           // matching ops to strike; 0: all
	Chance float64       // of a matching op to be struck; 0: certain
	Err    error         // of Fail; nil: syscall.EIO
	Shift  int64         // of Misdirect, bytes, a multiple of engine.Align
}

// Rule is a fault in force.
type Rule struct {
	disk   *Disk
	fault  Fault
	seen   int // matching ops
	hits   int
	lifted bool
}

// Inject puts a fault in force. When several match an op, the oldest strikes.
func (d *Disk) Inject(f Fault) *Rule {
	r := &Rule{disk: d, fault: f}
	d.mu.Lock()
	d.rules = append(d.rules, r)
	d.mu.Unlock()
	return r
}

// Hits is the number of operations struck so far.
func (r *Rule) Hits() int {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	return r.hits
}

// Lift ends the fault; operations it has stalled go on.
func (r *Rule) Lift() {
	d := r.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	r.lifted = true
	d.rules = slices.DeleteFunc(d.rules, func(o *Rule) bool { return o == r })
	d.changed.Broadcast()
	d.kick()
}

// stalls returns the rule that holds op back, or nil.
func (d *Disk) stalls(f *File, op *engine.Op) *Rule { return d.match(f, op, true) }

// strikes returns the rule that strikes op as it is carried out, or nil.
func (d *Disk) strikes(f *File, op *engine.Op) *Rule { return d.match(f, op, false) }

func (d *Disk) match(f *File, op *engine.Op, stall bool) *Rule {
	for _, r := range d.rules {
		if (r.fault.Effect == Stall) == stall && r.fault.touches(f.file, op) && r.draw() {
			r.hits++
			return r
		}
	}
	return nil
}

func (f *Fault) touches(c *file, op *engine.Op) bool {
	if !f.Effect.suits(op.Kind) || f.File != "" && f.File != c.name {
		return false
	}
	if f.Kinds != nil && !slices.Contains(f.Kinds, op.Kind) {
		return false
	}
	return op.Kind == engine.Sync ||
		op.Off+int64(len(op.Buf)) > f.Off && (f.Len == 0 || op.Off < f.Off+f.Len)
}

// draw counts a matching op and decides whether it is struck.
func (r *Rule) draw() bool {
	r.seen++
	if r.seen <= r.fault.Skip || r.fault.Times > 0 && r.hits >= r.fault.Times {
		return false
	}
	return r.fault.Chance == 0 || r.disk.rnd.Float64() < r.fault.Chance
}

// holds reports whether the rule, which may be nil, still holds an op back.
func (r *Rule) holds() bool { return r != nil && !r.lifted }

// is reports whether the rule, which may be nil, has that effect.
func (r *Rule) is(e Effect) bool { return r != nil && r.fault.Effect == e }

func (r *Rule) err() error {
	if r.fault.Err != nil {
		return r.fault.Err
	}
	return syscall.EIO
}

func (r *Rule) String() string {
	if r == nil {
		return ""
	}
	return " (" + r.fault.Effect.String() + ")"
}

// Peek returns n bytes at off of a file as a reader would see them; nil if there is no
// such file or range.
func (d *Disk) Peek(name string, off int64, n int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.files[name]
	if c == nil || off < 0 || n < 0 || off > c.size-int64(n) {
		return nil
	}
	lo := off / c.grain * c.grain
	hi := (off + int64(n) + c.grain - 1) / c.grain * c.grain
	buf := make([]byte, hi-lo)
	c.read(buf, lo)
	return buf[off-lo:][:n]
}

// Poke changes what is stored at off of a file, durably and unseen by anybody, as decay
// does. It reports false if there is no such file or range.
func (d *Disk) Poke(name string, off int64, data []byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.files[name]
	if c == nil || off < 0 || off > c.size-int64(len(data)) {
		return false
	}
	lo := off / c.grain * c.grain
	hi := (off + int64(len(data)) + c.grain - 1) / c.grain * c.grain
	buf := make([]byte, hi-lo)
	c.read(buf, lo)
	copy(buf[off-lo:], data)
	c.writeDurable(buf, lo)
	return true
}

// Flip inverts one bit (0 to 7) of the byte at off of a file; see Poke.
func (d *Disk) Flip(name string, off int64, bit uint) bool {
	b := d.Peek(name, off, 1)
	return b != nil && d.Poke(name, off, []byte{b[0] ^ 1<<(bit&7)})
}
