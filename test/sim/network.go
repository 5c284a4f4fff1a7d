package sim

// network joins the hosts. Host numbers from 0 on are those of masters and
// metaloggers; clients are reached whatever happens to the links between those.
type network struct {
	w   *world
	cut map[[2]int]bool // from, to
}

// send delivers something after a while, once, twice or never. A message to a
// host whose power is off is lost.
func (n *network) send(from, to int, do func()) {
	w := n.w
	copies := 1
	if !w.calm && from != to {
		if n.cut[[2]int{from, to}] || w.one(w.plan.loss) {
			return
		}
		if w.one(4 * w.plan.loss) {
			copies = 2
		}
	}
	for range copies {
		d := w.between(30*us, 400*us)
		if !w.calm && w.one(50) {
			d += w.between(0, []nanos{5 * ms, 50 * ms, 600 * ms}[w.rng.IntN(3)])
		}
		w.after(d, func() {
			if !n.cut[[2]int{from, to}] {
				do()
			}
		})
	}
}

// isolate cuts a host off from all others, in both directions.
func (n *network) isolate(h int) {
	for i := range n.w.hosts {
		n.cut[[2]int{h, i}], n.cut[[2]int{i, h}] = true, true
	}
}
