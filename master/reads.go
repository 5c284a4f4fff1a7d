package master

import (
	"time"

	"github.com/varvefs/varve/status"
)

// leaseRetry is how soon the lease is looked at again while replies wait for it.
const leaseRetry = 2 * time.Millisecond

// send lets a reply go, or withholds it while there is no lease; recalls wait too.
func (l *loop) send(reply func()) {
	if l.helm.Send(reply) {
		l.met.withheld.Inc()
		l.lookAgain()
	}
}

// lookAgain makes the loop turn soon, so that replies that wait may go.
func (l *loop) lookAgain() {
	in := l.in
	time.AfterFunc(leaseRetry, func() {
		in.post(func(l *loop) {
			if l.helm.Stuck() {
				l.lookAgain()
			}
		})
	})
}

// notLeading is the answer of a master that does not serve.
var notLeading = status.Errorf(status.NotLeader, "this master does not lead; ask the others")
