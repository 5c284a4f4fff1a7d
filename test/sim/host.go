package sim

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/test/sim/disk"
)

// host is a machine with a disk, a clock, a kernel, and a supervisor that keeps a
// master or metalogger running.
type host struct {
	w      *world
	n      int    // number of the machine
	id     uint64 // of the voter on it
	master bool   // it can serve

	disk  *disk.Disk
	power bool
	boots int
	wiped bool // its voter is not counted in yet
	lost  bool // it has lost power, and may not have what it acknowledged
	slow  nanos

	// The clock counts from the start of the kernel, fast or slow by ppm.
	started nanos
	ppm     int64
	wall    nanos // how far the wall clock is off

	vipUntil nanos // the kernel takes the virtual address away then; 0: it has none

	sup  *supervisor
	proc *process
}

// drift is how many millionths clocks may be off: two that differ by twice as much
// are still within the margin of the lease.
const drift = 20_000

func newHost(w *world, n int, master bool) *host {
	h := &host{w: w, n: n, id: uint64(n + 1), master: master, ppm: w.rng.Int64N(2*drift+1) - drift}
	h.newDisk()
	return h
}

func (h *host) newDisk() {
	h.disk = disk.New(h.w.rng.Uint64())
	h.disk.Fate = h.fate
}

func (h *host) String() string { return fmt.Sprintf("host %d (voter %d)", h.n, h.id) }

// clock is CLOCK_BOOTTIME.
func (h *host) clock() nanos {
	up := h.w.now - h.started
	return up + up*nanos(h.ppm)/1e6 + 1
}

// real is how long a span of this host's clock takes.
func (h *host) real(d nanos) nanos { return d - d*nanos(h.ppm)/(1e6+nanos(h.ppm)) + 1 }

// wallClock is CLOCK_REALTIME.
func (h *host) wallClock() int64 { return int64(1_700_000_000*1000*ms + h.w.now + h.wall) }

// boot starts the machine.
func (h *host) boot() {
	h.power, h.started, h.vipUntil = true, h.w.now, 0
	h.boots++
	h.w.notef("%v boots", h)
	h.supervise()
}

// powerCut ends everything on the machine, and whatever was not synced may be gone.
func (h *host) powerCut() {
	if !h.power {
		return
	}
	h.w.stats.PowerCuts++
	h.w.notef("%v loses power", h)
	h.power, h.vipUntil, h.lost = false, 0, true
	h.endSupervisor()
	h.endProcess()
	h.disk = h.disk.PowerCut(h.w.rng.Uint64(), h.w.rng.IntN)
	h.disk.Fate = h.fate
}

// fate decides about one write.
func (h *host) fate(engine.Kind) disk.Fate {
	w := h.w
	switch {
	case w.calm:
	case w.one(20_000):
		return disk.Error
	case w.one(4000) && h.mayForget():
		return disk.Cut
	}
	return disk.Done
}

// mayForget tells whether a power cut is allowed: in quorum mode only when no other
// host may lack what it has acknowledged.
func (h *host) mayForget() bool {
	if h.w.mode == journal.SyncFsync {
		return true
	}
	for _, o := range h.w.hosts {
		if o.proc != nil && !o.proc.log.Glance().Amnesia {
			o.lost = false
		}
		if o != h && o.lost {
			return false
		}
	}
	return true
}

// supervise starts the supervisor, which first takes away what a former life of
// it has left.
func (h *host) supervise() {
	if !h.power || h.sup != nil {
		return
	}
	h.vipUntil = 0
	h.sup = newSupervisor(h)
	h.sup.startChild()
}

// endSupervisor is kill -9 of it; the kernel tells its child to end.
func (h *host) endSupervisor() {
	if h.sup != nil {
		h.sup.dead = true
		h.sup = nil
	}
}

// endProcess is kill -9 of the master.
func (h *host) endProcess() {
	if p := h.proc; p != nil {
		p.die("is killed")
	}
}

// heal ends all faults of the host.
func (h *host) heal() {
	h.slow, h.wall = 0, 0
	if h.proc != nil {
		h.proc.stopped = 0
		h.proc.resume()
	}
	if h.sup != nil {
		h.sup.stopped = 0
		h.sup.act.wake(0)
	}
	h.w.after(500*ms, func() {
		if !h.power {
			h.boot()
		} else if h.sup == nil {
			h.supervise()
		}
	})
}

// Add implements vip.Device: the kernel keeps the address for the lifetime.
func (h *host) Add(_ netip.Prefix, lifetime time.Duration) error {
	if h.vipUntil <= h.w.now {
		h.w.notef("%v gets the virtual address", h)
	}
	h.vipUntil = h.w.now + h.real(nanos(lifetime))
	return nil
}

// Remove implements vip.Device.
func (h *host) Remove(netip.Prefix) (bool, error) {
	had := h.hasVIP()
	if had {
		h.w.notef("%v gives the virtual address up", h)
	}
	h.vipUntil = 0
	return had, nil
}

// Probe implements vip.Device; nobody answers.
func (h *host) Probe(netip.Addr) error { return nil }

// Announce implements vip.Device. It has no effect: nobody here has a cache of addresses.
func (h *host) Announce(netip.Addr) error { return nil }

func (h *host) hasVIP() bool { return h.vipUntil > h.w.now }
