package master

import (
	"time"

	"github.com/varvefs/varve/status"
)

// leaseRetry is how soon the lease is looked at again while replies wait for it.
const leaseRetry = 2 * time.Millisecond

// send lets a reply go. What it says was read from the tree, and is true only if
// no other master has led meanwhile: so the lease is looked at now, after the
// reply was made. Without a lease it waits: if this master turns out to lead
// still, nobody else can have changed anything; if not, it is never sent. All
// that follows it waits too, recalls included, so that the order stays.
func (l *loop) send(reply func()) {
	if !l.ready || len(l.withheld) == 0 && l.log.Leased() {
		reply()
		return
	}
	if len(l.withheld) == 0 {
		l.met.withheld.Inc()
		l.lookAgain()
	}
	l.withheld = append(l.withheld, reply)
}

// letGo sends what was withheld if the lease is back; true: nothing waits.
func (l *loop) letGo() bool {
	if len(l.withheld) == 0 {
		return true
	}
	if !l.log.Leased() {
		return false
	}
	for _, reply := range l.withheld {
		reply()
	}
	l.withheld = nil
	return true
}

// lookAgain makes the loop turn soon, so that letGo is tried.
func (l *loop) lookAgain() {
	in := l.in
	time.AfterFunc(leaseRetry, func() {
		in.post(func(l *loop) {
			if len(l.withheld) > 0 && !l.log.Leased() {
				l.lookAgain()
			}
		})
	})
}

// notLeading is the answer of a master that does not serve.
var notLeading = status.Errorf(status.NotLeader, "this master does not lead; ask the others")
