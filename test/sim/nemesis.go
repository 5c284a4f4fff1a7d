package sim

import (
	"github.com/varvefs/varve/master/journal"
)

// fault does something bad, and comes back.
func (w *world) fault() {
	if w.calm {
		return
	}
	w.after(w.between(0, 2*w.plan.pause), w.fault)
	h := w.hosts[w.rng.IntN(len(w.hosts))]
	if w.one(2) { // most is to be seen where the leader is
		for _, o := range w.hosts {
			if o.proc != nil && o.proc.helm.Leading() {
				h = o
			}
		}
	}
	total := 0
	for _, f := range faults {
		total += f.weight
	}
	k := w.rng.IntN(total)
	for _, f := range faults {
		if k -= f.weight; k < 0 {
			f.do(w, h)
			return
		}
	}
}

// faults are what a nemesis can do to a host, with the odds.
var faults = []struct {
	weight int
	do     func(*world, *host)
}{
	{6, (*world).kill},
	{3, (*world).killBoth},
	{4, (*world).cutPower},
	{1, (*world).blackout},
	{6, (*world).stopMaster},
	{3, (*world).stopBoth},
	{2, (*world).stopSupervisor},
	{4, (*world).stall},
	{6, (*world).cutOneWay},
	{5, (*world).cutOff},
	{9, (*world).mend},
	{2, (*world).setWallClock},
	{3, (*world).slowDisk},
	{5, (*world).order},
	{3, (*world).leave},
	{2, (*world).campaign},
	{2, (*world).wipe},
}

func (w *world) kill(h *host) {
	w.stats.Kills++
	h.endProcess()
}

// killBoth ends supervisor and master at once; the init system starts them again.
func (w *world) killBoth(h *host) {
	w.stats.Kills++
	w.notef("%v: supervisor and master are killed", h)
	h.endSupervisor()
	h.endProcess()
	w.after(w.between(50*ms, 1500*ms), h.supervise)
}

func (w *world) cutPower(h *host) {
	if h.power && h.mayForget() {
		h.powerCut()
		h.bootLater()
	}
}

func (h *host) bootLater() {
	h.w.after(h.w.between(50*ms, 3000*ms), func() {
		if !h.power {
			h.boot()
		}
	})
}

// blackout takes the power from all.
func (w *world) blackout(*host) {
	if w.mode != journal.SyncFsync {
		return
	}
	w.notef("blackout")
	for _, h := range w.hosts {
		w.cutPower(h)
	}
}

// lightsOut takes the power from all in quorum mode, which may lose what was
// acknowledged last: the world forgets with them what was said so far, but not who
// has led which term. They must agree again on what is left.
func (w *world) lightsOut() {
	w.notef("the lights go out")
	for _, h := range w.hosts {
		if h.power {
			h.powerCut()
			h.bootLater()
		}
	}
	leaders, served := w.ledger.leaders, w.ledger.served
	w.ledger = ledger{w: w, leaders: leaders, served: served}
	w.ledger.begin()
	for i, c := range w.client {
		c.stop, c.gone = true, true
		c.open = nil
		w.client[i] = newClient(w, i+10*len(w.client))
		w.after(w.between(0, 500*ms), w.client[i].begin)
	}
}

func (w *world) span() nanos {
	return w.between(1*ms, []nanos{20 * ms, 300 * ms, 700 * ms, 3000 * ms}[w.rng.IntN(4)])
}

func (w *world) stopMaster(h *host) {
	if p := h.proc; p != nil {
		d := w.span()
		w.stats.Pauses++
		w.notef("%v: the master is stopped for %v", h, d)
		p.stopped = max(p.stopped, w.now+d)
	}
}

func (w *world) stopSupervisor(h *host) {
	if h.sup != nil {
		d := w.span()
		w.notef("%v: the supervisor is stopped for %v", h, d)
		h.sup.stopped = max(h.sup.stopped, w.now+d)
	}
}

func (w *world) stopBoth(h *host) {
	w.stopMaster(h)
	w.stopSupervisor(h)
}

// stall keeps one goroutine of a master from running.
func (w *world) stall(h *host) {
	if p := h.proc; p != nil {
		d := w.span()
		k := w.rng.IntN(4)
		w.notef("%v: the %s is held up for %v", h, []string{"driver", "writer", "loop", "runner"}[k], d)
		[]*actor{p.driver, p.writer, p.loop, p.runner}[k].delay(d)
	}
}

func (w *world) cutOneWay(h *host) {
	o := w.hosts[w.rng.IntN(len(w.hosts))]
	if o != h {
		w.stats.Cuts++
		w.notef("nothing gets from %v to %v", h, o)
		w.net.cut[[2]int{h.n, o.n}] = true
	}
}

func (w *world) cutOff(h *host) {
	w.stats.Cuts++
	w.notef("%v is cut off", h)
	w.net.isolate(h.n)
}

func (w *world) mend(*host) {
	if len(w.net.cut) > 0 {
		w.notef("the network is mended")
		clear(w.net.cut)
	}
}

func (w *world) setWallClock(h *host) {
	h.wall = w.between(-3600_000*ms, 3600_000*ms)
	w.notef("%v: the wall clock is set, %v off", h, h.wall)
}

func (w *world) slowDisk(h *host) {
	h.slow = w.between(0, []nanos{1 * ms, 20 * ms, 300 * ms}[w.rng.IntN(3)])
	w.notef("%v: the disk takes %v longer", h, h.slow)
	w.after(w.between(100*ms, 2000*ms), func() { h.slow = 0 })
}

// order is an operator's hand-over.
func (w *world) order(*host) {
	for _, h := range w.hosts {
		p := h.proc
		if p == nil || p.stopped > w.now || !p.helm.Ready() {
			continue
		}
		for _, k := range p.log.Status().Peers {
			if o := w.voter(k.ID); o != nil && o.master && k.Active && !k.Learner {
				w.stats.Handovers++
				w.notef("an operator has %v hand over to %v", h, o)
				p.log.Transfer(k.ID)
				p.wakeDriver()
				return
			}
		}
	}
}

// leave stops a master by SIGTERM: it hands over first if it leads.
func (w *world) leave(h *host) {
	p := h.proc
	if p == nil || p.leaving {
		return
	}
	w.notef("%v: the master is told to end", h)
	p.leaving = true
	p.runner.post(func() {
		p.mach.Stop()
		p.hurry()
		p.stepRunner()
	})
	end := w.now + 3000*ms
	var look func()
	look = func() {
		if p.dead {
			return
		}
		s := p.log.Status()
		if p.stopped <= w.now && (s.Leader != p.id && !(p.mach.Leaving() && s.Leader != 0) || w.now > end) {
			p.dead = true
			w.notef("%v: the master ends", h)
			if err := p.log.End(); err != nil {
				p.log.Kill()
				h.disk.Die()
				p.buried()
				p.diskFailed(err)
				return
			}
			p.buried()
			return
		}
		w.after(5*ms, look)
	}
	w.after(5*ms, look)
}

func (w *world) campaign(h *host) {
	if p := h.proc; p != nil && p.stopped <= w.now {
		p.log.Campaign()
		p.wakeDriver()
	}
}

// wipe loses a host's disk. It comes back with an empty directory under its old
// number, which must harm nobody, and then an operator replaces it by a new voter.
func (w *world) wipe(h *host) {
	if w.mode != journal.SyncFsync || h.proc == nil {
		return
	}
	for _, o := range w.hosts {
		if o.wiped || o.proc == nil || o != h && len(o.proc.log.Members().List) != 3 || o.proc.log.Status().Leader == 0 {
			return
		}
		for _, k := range o.proc.log.Members().List {
			if k.Learner || w.voter(k.ID) == nil {
				return
			}
		}
	}
	w.stats.Wiped++
	w.notef("%v: the disk is replaced by an empty one", h)
	h.wiped = true
	h.powerCut()
	h.newDisk()
	w.after(w.between(50*ms, 500*ms), func() {
		if !h.power {
			h.boot()
		}
	})
	w.after(w.between(300*ms, 1500*ms), func() { w.replace(h, h.id) })
}

// replace is the operator's: remove the old voter, start a new one, add it.
func (w *world) replace(h *host, old uint64) {
	again := func() { w.after(60*ms, func() { w.replace(h, old) }) }
	var p *process // who leads
	for _, o := range w.hosts {
		if o.proc != nil && o.proc.helm.Ready() && o.proc.stopped <= w.now {
			p = o.proc
		}
	}
	if p == nil {
		again()
		return
	}
	m := p.log.Members()
	if k, ok := m.Find(old); ok {
		p.log.Change(journal.Member{ID: k.ID}, true, nil)
		p.wakeDriver()
		again()
		return
	}
	if h.id == old {
		w.newID++
		w.notef("%v is replaced by voter %d", h, w.newID)
		h.powerCut()
		h.id = w.newID
		h.newDisk()
		h.bootLater()
		again()
		return
	}
	k, ok := m.Find(h.id)
	switch b := p.beats[h.id]; {
	case ok && !k.Learner:
		if h.proc != nil && len(h.proc.log.Members().List) == 3 {
			w.notef("%v votes", h)
			h.wiped = false
			return
		}
	case !ok && h.proc != nil && b.Founder != 0 && b.Founder == h.proc.log.Self():
		p.log.Change(journal.Member{ID: h.id, Addr: "anew", Learner: true, Founder: b.Founder}, false, nil)
		p.wakeDriver()
	}
	again()
}
