package voters

import (
	"testing"
	"time"

	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/wire"
)

// trio are three voters, each with the log that was made for it.
var trio = journal.Members{Index: 9, List: []journal.Member{{ID: 1, Founder: 11}, {ID: 2, Founder: 22}, {ID: 3, Founder: 33}}}

func TestJudge(t *testing.T) {
	newer := trio
	newer.Index, newer.List = 12, append(newer.List[:2:2], journal.Member{ID: 4, Founder: 44})
	for what, c := range map[string]struct {
		mine journal.Members
		beat wire.VoterBeat
		want Verdict
	}{
		"a member":                       {trio, wire.VoterBeat{ID: 2, Founder: 22}, Member},
		"a member with an empty log":     {trio, wire.VoterBeat{ID: 2, Founder: 23}, Lost},
		"a stranger":                     {trio, wire.VoterBeat{ID: 4, Founder: 44}, Stranger},
		"a member of a later membership": {trio, wire.VoterBeat{ID: 4, Founder: 44, Members: newer.Encode()}, Member},
		"who calls itself that":          {trio, wire.VoterBeat{ID: 4, Founder: 45, Members: newer.Encode()}, Stranger},
		"one of an older membership":     {newer, wire.VoterBeat{ID: 3, Founder: 33, Members: trio.Encode()}, Stranger},
		"anybody, before the founding":   {journal.Members{}, wire.VoterBeat{ID: 2, Founder: 22}, Stranger},
	} {
		if got := Judge(1, 11, c.mine, &c.beat); got != c.want {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
}

func TestFounding(t *testing.T) {
	own := journal.Member{ID: 1, Addr: "one", Founder: 11}
	peers := map[uint64]string{1: "one", 2: "two", 3: "three"}
	beat := func(id, founder uint64, m journal.Members) Beat {
		return Beat{VoterBeat: wire.VoterBeat{ID: id, Founder: founder, Members: m.Encode()}}
	}
	empty := journal.Members{}
	if m, ok, _ := Founding(own, peers, map[uint64]Beat{2: beat(2, 22, empty), 3: beat(3, 33, empty)}); !ok || len(m.List) != 3 || m.List[2].Founder != 33 {
		t.Errorf("all are new: %v %v", m, ok)
	}
	if _, ok, _ := Founding(own, peers, map[uint64]Beat{2: beat(2, 22, empty)}); ok {
		t.Error("founded without having heard of all")
	}
	if m, ok, _ := Founding(own, peers, map[uint64]Beat{2: beat(2, 22, trio)}); !ok || m.Index != trio.Index {
		t.Errorf("the others count it in: %v %v", m, ok)
	}
	own.Founder = 12 // the directory was emptied
	if _, ok, excluded := Founding(own, peers, map[uint64]Beat{2: beat(2, 22, trio), 3: beat(3, 33, trio)}); ok || len(excluded) != 2 {
		t.Errorf("an empty directory passes for voter 1: %v %v", ok, excluded)
	}
}

// A voter with amnesia votes only when it knows what all others have, and that
// they can no longer acknowledge what it has forgotten.
func TestHeir(t *testing.T) {
	now := time.Unix(1000, 0)
	me := journal.Status{ID: 1, Term: 6, Since: 6, Amnesia: true, Last: 90, LastTerm: 5}
	good := func() map[uint64]Beat {
		return map[uint64]Beat{
			2: {VoterBeat: wire.VoterBeat{ID: 2, Founder: 22, Term: 6, Last: 95, LastOf: 5}, At: now},
			3: {VoterBeat: wire.VoterBeat{ID: 3, Founder: 33, Term: 7, Last: 99, LastOf: 4}, At: now},
		}
	}
	if heir, many, ok := Heir(&me, trio, good(), now); !ok || heir != 2 || many {
		t.Errorf("the longest log is said to be that of %d (%v), something to be lost: %v", heir, ok, many)
	}
	worse := good()
	two := worse[2]
	two.Amnesia = true
	worse[2] = two
	if _, many, ok := Heir(&me, trio, worse, now); !ok || !many {
		t.Errorf("two of three have lost power: nothing is said to be lost (%v)", ok)
	}
	for what, change := range map[string]func(*Beat){
		"not heard":                         func(b *Beat) { *b = Beat{} },
		"not heard for long":                func(b *Beat) { b.At = now.Add(-time.Minute) },
		"in a term that this one forgot in": func(b *Beat) { b.Term = 5 },
		"following somebody":                func(b *Beat) { b.Leader = 3 },
		"another log":                       func(b *Beat) { b.Founder = 23 },
	} {
		beats := good()
		b := beats[2]
		change(&b)
		if beats[2] = b; b.ID == 0 {
			delete(beats, 2)
		}
		if heir, _, ok := Heir(&me, trio, beats, now); ok {
			t.Errorf("voter 2 is %s, and %d may lead", what, heir)
		}
	}
}

// Who keeps up has applied what was committed a second before its beat, also when
// it is heard twice at once; of one that began anew all that is committed is due.
func TestDue(t *testing.T) {
	begun := time.Now()
	last := Beat{}
	for i, c := range []struct {
		after     time.Duration
		pid       uint32
		committed uint64
		want      uint64
	}{
		{0, 7, 0, 0},
		{beatEvery, 7, 50, 0},
		{2 * beatEvery, 7, 100, 50},
		{2*beatEvery + time.Millisecond, 7, 101, 50},
		{3 * beatEvery, 7, 200, 100},
		{3*beatEvery + time.Millisecond, 7, 201, 100},
		{4 * beatEvery, 8, 300, 300},
		{5 * beatEvery, 8, 400, 300},
	} {
		b := Beat{VoterBeat: wire.VoterBeat{ID: 2, Pid: c.pid, Uptime: uint64(c.after)}, At: begun.Add(c.after)}
		b.owe(&last, c.committed)
		if b.Due != c.want {
			t.Errorf("beat %d: %d is due, want %d", i, b.Due, c.want)
		}
		last = b
	}
}
