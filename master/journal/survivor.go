package journal

import (
	"fmt"
	"time"
)

// epochGap is what Survive adds to the term: whoever has seen a later term of the
// lost majority, such as a chunkserver, must see one that is higher still.
const epochGap = 1000

// Survivor says what Survive found.
type Survivor struct {
	Members   Members // as it was
	Last      uint64  // last entry of this log, which is the last that is kept
	LastTerm  uint64
	Committed uint64 // last entry that this voter knew to be committed
	Term      uint64 // before
	NewTerm   uint64
}

// Survive makes the log in cfg.Dir that of a single voter, cfg.ID, after the
// others are lost for good. It is for an operator to decide and for a log that
// nobody has open: changes that the others acknowledged without this voter are
// lost, and those others must never run again.
func Survive(cfg Config) (*Survivor, error) {
	cfg.Transport, cfg.Await, cfg.Peers = nil, false, nil
	cfg.survive = new(Survivor)
	l, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	limit := time.After(time.Minute)
	for done := false; !done && err == nil; {
		select {
		case list, open := <-l.Committed():
			if !open {
				err = l.Err()
			}
			for i := range list {
				done = done || list[i].Data == nil && list[i].Term == l.Status().Term
			}
		case <-limit:
			err = fmt.Errorf("%s: the log cannot be written", cfg.Dir)
		}
	}
	cfg.survive.NewTerm = l.Status().Term
	if e := l.Close(); err == nil {
		err = e
	}
	return cfg.survive, err
}

// takeOver makes this voter the only one and leaves the old terms behind.
func (l *Log) takeOver(id *identity) {
	s := l.cfg.survive
	_, last := l.st.bounds()
	s.Members, s.Last, s.LastTerm = id.Members, last.Index, last.Term
	s.Committed, s.Term = l.st.hard.Commit, l.st.hard.Term
	id.Members = Members{Index: last.Index, List: []Member{{ID: l.cfg.ID, Founder: id.Self}}}
	l.st.hard.Term += epochGap
	l.st.hard.Vote = 0
}
