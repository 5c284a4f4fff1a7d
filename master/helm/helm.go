// Package helm knows whether a master may serve, and holds its words back while
// it may not: which term it leads, whether it has applied all of the terms before,
// and whether its lease holds at the moment when a reply leaves. The master's loop
// owns a Helm; so does each master of a simulated cluster. It has no clock, no
// goroutine and no lock.
package helm

import "github.com/varvefs/varve/master/journal"

// Helm is the state of one master. Make it with New.
type Helm struct {
	leased func(term uint64) bool

	leading  bool
	epoch    uint64 // term that this master leads, or led last
	caughtUp uint64 // term whose first entry is applied, and so all of former leaders
	ready    bool   // leads, has caught up, and serves
	life     uint64 // grows when this master is deposed
	withheld []func()
}

// New makes the helm of a master that does not lead. leased tells whether it
// leads term now, with a lease: news of the end of a term may be late, and a lease
// that was won in a later one says nothing about a tree that is still as of the old.
func New(leased func(term uint64) bool) *Helm { return &Helm{leased: leased} }

// Leading tells whether this master leads, though it may not serve yet.
func (h *Helm) Leading() bool { return h.leading }

// Ready tells whether it serves.
func (h *Helm) Ready() bool { return h.ready }

// Epoch is the term that it leads, or led last.
func (h *Helm) Epoch() uint64 { return h.epoch }

// Life changes whenever this master was deposed: what it began before is void.
func (h *Helm) Life() uint64 { return h.life }

// Leadership takes news about who leads. When it returns true this master was
// deposed: nothing that was withheld will be said, and whatever its user holds
// for those whom it served is void. It may lead again already: only the newest
// news is sure to come.
func (h *Helm) Leadership(change journal.Leadership) (deposed bool) {
	deposed = h.leading && !(change.Leader && change.Term == h.epoch)
	if deposed {
		h.leading, h.ready, h.withheld = false, false, nil
		h.life++
	}
	if change.Leader {
		h.leading, h.epoch = true, change.Term
	}
	return deposed
}

// holds tells whether the lease holds for what this master serves.
func (h *Helm) holds() bool { return h.leased(h.epoch) }

// CaughtUp notes that the first entry of a term was applied.
func (h *Helm) CaughtUp(term uint64) { h.caughtUp = term }

// MayServe tells whether this master can begin to serve.
func (h *Helm) MayServe() bool { return h.leading && !h.ready && h.caughtUp == h.epoch }

// Serve begins to serve.
func (h *Helm) Serve() { h.ready = true }

// Send lets a reply go. What it says was read from the tree, and is true only if
// no other master has led meanwhile: so the lease is looked at now, after the
// reply was made. Without a lease it waits: if this master turns out to lead
// still, nobody else can have changed anything; if not, it is never sent. All
// that follows it waits too, so that the order stays. first is set when reply is
// the first that waits: LetGo should be called soon.
func (h *Helm) Send(reply func()) (first bool) {
	if !h.ready || len(h.withheld) == 0 && h.holds() {
		reply()
		return false
	}
	h.withheld = append(h.withheld, reply)
	return len(h.withheld) == 1
}

// LetGo sends what was withheld if the lease is back; true: nothing waits.
func (h *Helm) LetGo() bool {
	if len(h.withheld) == 0 {
		return true
	}
	if !h.holds() {
		return false
	}
	for _, reply := range h.withheld {
		reply()
	}
	h.withheld = nil
	return true
}

// Stuck tells whether replies wait that LetGo would not send now.
func (h *Helm) Stuck() bool { return len(h.withheld) > 0 && !h.holds() }
