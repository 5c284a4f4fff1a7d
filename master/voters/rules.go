package voters

import (
	"slices"
	"time"

	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/wire"
)

// The rules about who is a voter, without connections and without a clock. A
// simulated cluster goes by them too.

// Verdict is what a voter thinks of another one.
type Verdict uint8

// Verdicts.
const (
	Stranger Verdict = iota // not a member as far as is known
	Lost                    // a member's number, but not its log
	Member                  // its messages are raft's business
)

// Judge looks at the beat of another voter. self and founder are this one, mine
// the membership that it knows.
func Judge(self, founder uint64, mine journal.Members, b *wire.VoterBeat) Verdict {
	if len(mine.List) == 0 || b.Founder == 0 {
		return Stranger
	}
	if k, ok := mine.Find(b.ID); ok {
		if k.Founder == 0 || k.Founder == b.Founder {
			return Member
		}
		return Lost
	}
	// A newer membership, which this voter has not been told yet, may have it.
	theirs, err := journal.DecodeMembers(b.Members)
	if err == nil && theirs.Index > mine.Index && theirs.Has(self, founder) && theirs.Has(b.ID, b.Founder) {
		return Member
	}
	return Stranger
}

// Founding tells what an empty log, that of own, becomes part of, by what its
// configured peers (with their addresses) last said: a cluster that has it as a
// member, or, when all of them are empty too, a new one. excluded are peers that
// have a cluster without it.
func Founding(own journal.Member, peers map[uint64]string, beats map[uint64]Beat) (members journal.Members, ok bool, excluded []uint64) {
	founders := journal.Members{List: []journal.Member{own}}
	complete := true
	for id, addr := range peers {
		if id == own.ID {
			continue
		}
		b, heard := beats[id]
		theirs, err := journal.DecodeMembers(b.Members)
		switch {
		case !heard || b.Founder == 0 || err != nil:
			complete = false
		case theirs.Has(own.ID, own.Founder) && named(theirs, own.ID):
			return theirs, true, nil
		case len(theirs.List) > 0:
			complete = false
			excluded = append(excluded, id)
		default:
			founders.List = append(founders.List, journal.Member{ID: id, Addr: addr, Founder: b.Founder})
		}
	}
	slices.Sort(excluded)
	slices.SortFunc(founders.List, func(a, b journal.Member) int { return int(a.ID) - int(b.ID) })
	return founders, complete, excluded
}

// named tells whether a membership knows the log of voter id: the word of one
// that does not would make any empty directory the voter.
func named(m journal.Members, id uint64) bool {
	k, _ := m.Find(id)
	return k.Founder != 0
}

// beatLife is how long the word of a voter counts in Heir.
const beatLife = 3 * beatEvery

// Heir tells a voter with amnesia, whose status is s, which voter of m has the
// longest log, by what they last said, and whether so many have amnesia that no
// majority is without: see journal.Log.Heir. ok is false when
// one is not heard, follows somebody, or may still acknowledge what this one has
// forgotten. Of several such logs, which are the same, it is the first voter's.
func Heir(s *journal.Status, m journal.Members, beats map[uint64]Beat, now time.Time) (heir uint64, many, ok bool) {
	if s.Leader != 0 {
		return 0, false, false
	}
	var term, last uint64
	whole, all := 0, 0
	for _, k := range m.List {
		b, heard := beats[k.ID]
		at, of := b.Last, b.LastOf
		switch {
		case k.Learner:
			continue
		case k.ID == s.ID:
			at, of = s.Last, s.LastTerm
		case !heard || now.Sub(b.At) > beatLife || b.Leader != 0 || b.Term < s.Since || k.Founder != 0 && k.Founder != b.Founder:
			return 0, false, false
		}
		all++
		if k.ID != s.ID && !b.Amnesia {
			whole++
		}
		if heir == 0 || of > term || of == term && at > last {
			heir, term, last = k.ID, of, at
		}
	}
	return heir, whole <= all/2, heir != 0
}
