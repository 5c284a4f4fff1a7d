package helm

import (
	"slices"
	"testing"

	"github.com/varvefs/varve/master/journal"
)

// desk is a helm whose lease the test holds.
type desk struct {
	*Helm
	leased uint64 // term of the lease; 0: none
	said   []string
}

func newDesk() *desk {
	d := &desk{}
	d.Helm = New(func(term uint64) bool { return term != 0 && term == d.leased })
	return d
}

func (d *desk) say(what string) bool { return d.Send(func() { d.said = append(d.said, what) }) }

// lead makes it serve a term.
func (d *desk) lead(term uint64) {
	d.Leadership(journal.Leadership{Term: term, Leader: true})
	d.CaughtUp(term)
	if d.MayServe() {
		d.Serve()
	}
	d.leased = term
}

func (d *desk) expect(t *testing.T, said ...string) {
	t.Helper()
	if !slices.Equal(d.said, said) {
		t.Errorf("it said %q, not %q", d.said, said)
	}
}

// A reply leaves only while the lease holds, though it was made before, and in order.
func TestRepliesWaitForTheLease(t *testing.T) {
	d := newDesk()
	d.lead(5)
	d.say("one")
	d.leased = 0
	if !d.say("two") {
		t.Error("the first reply that waits is not reported")
	}
	if d.say("three") {
		t.Error("another reply counts as the first that waits")
	}
	d.expect(t, "one")
	if d.LetGo() || !d.Stuck() {
		t.Error("replies go without a lease")
	}
	d.expect(t, "one")
	d.leased = 5
	d.say("four") // not before those that wait
	d.expect(t, "one")
	if !d.LetGo() {
		t.Error("replies wait though there is a lease")
	}
	d.expect(t, "one", "two", "three", "four")
}

// What was withheld when another master begins to lead is never said.
func TestDeposed(t *testing.T) {
	d := newDesk()
	d.lead(5)
	d.leased = 0
	d.say("stale")
	life := d.Life()
	if !d.Leadership(journal.Leadership{Term: 6}) || d.Ready() || d.Leading() || d.Life() == life {
		t.Error("it was not deposed")
	}
	d.lead(7)
	d.LetGo()
	d.expect(t)
}

// Nobody serves before all of the terms before is applied.
func TestCatchesUpFirst(t *testing.T) {
	d := newDesk()
	d.CaughtUp(5)
	d.Leadership(journal.Leadership{Term: 7, Leader: true})
	if d.MayServe() {
		t.Error("it serves term 7 with what term 5 had")
	}
	d.CaughtUp(7)
	if !d.MayServe() {
		t.Error("it does not serve")
	}
}

// A master that was deposed and elected again, and hears only of the latter, has
// another master's changes to apply first: it is deposed as any other.
func TestElectedAgainUnseen(t *testing.T) {
	d := newDesk()
	d.lead(5)
	if !d.Leadership(journal.Leadership{Term: 7, Leader: true}) {
		t.Error("the end of term 5 went unnoticed")
	}
	if d.Ready() || !d.Leading() || d.Epoch() != 7 || d.MayServe() {
		t.Error("it serves term 7 before it has applied what came before")
	}
}

// The log may lead a new term, and have a lease, before the master has heard that
// the old one is over: what it says from the old tree waits.
func TestLeaseOfALaterTerm(t *testing.T) {
	d := newDesk()
	d.lead(5)
	d.leased = 7
	d.say("stale")
	d.expect(t)
}
