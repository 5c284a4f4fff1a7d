package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/varvefs/varve/master/journal/files"
	"github.com/varvefs/varve/owner"
)

// epochGap is what Survive adds to the term: whoever has seen a later term of the
// lost majority, such as a chunkserver, must see one that is higher still.
const epochGap = 1000

// Survivor says what a log holds, and what Survive makes of it.
type Survivor struct {
	Number    uint64  // of the voter whose log it is; 0: not known
	ID        uint64  // that it will have
	Members   Members // as they are
	Last      uint64  // last entry of this log, which is the last that is kept
	LastTerm  uint64
	Committed uint64 // last entry that this voter knows to be committed
	Term      uint64 // that it is in
	NewTerm   uint64 // that it will lead
}

// Survey says what Survive would do to the log in cfg.Dir, and changes nothing.
func Survey(cfg Config, term uint64) (*Survivor, error) {
	s, _, err := survey(files.Host(cfg.Dir), cfg, term)
	return s, err
}

// Survive makes the log in cfg.Dir that of a single voter after the others are lost
// for good. It has the number cfg.ID, 0: the one that it had, and will lead in a term above term
// (0: no matter) and far above the one that it is in. It is for an operator to decide
// and for a log that nobody has open: changes that the others acknowledged without
// this voter are lost, and those others must never run again.
//
// It happens in one step, when everything has been read and found whole: the file
// members is replaced. Before, the log is the old voter's as it was; behind it, that
// of a single voter, with nothing left to do but to begin its first term. Survive does
// that too, to see that it works; if it is interrupted, the next Open does it.
func Survive(cfg Config, term uint64) (*Survivor, error) {
	cfg.Transport, cfg.Await, cfg.Peers = nil, false, nil
	dir := cfg.Files
	if dir == nil {
		if err := owner.MkdirAll(cfg.Dir, 0o750); err != nil { // an image may be all that is left
			return nil, err
		}
		dir = files.Host(cfg.Dir)
	}
	s, err := decide(dir, cfg, term)
	if err != nil {
		return nil, err
	}
	cfg.ID = s.ID
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
	s.NewTerm = l.Status().Term
	if e := l.Close(); err == nil {
		err = e
	}
	return s, err
}

// decide makes the voter the only one and leaves the old terms behind.
func decide(dir files.Dir, cfg Config, term uint64) (*Survivor, error) {
	lock, err := dir.Lock()
	if err != nil {
		return nil, err
	}
	s, id, err := survey(dir, cfg, term)
	if err == nil {
		id.Members = Members{Index: s.Last, List: []Member{{ID: s.ID, Founder: id.Self}}}
		id.Term = s.NewTerm - 1
		err = id.save(dir)
	}
	return s, errors.Join(err, lock.Close())
}

// survey reads all that Open would read.
func survey(dir files.Dir, cfg Config, term uint64) (*Survivor, *identity, error) {
	id, found, err := loadIdentity(dir)
	if err != nil {
		return nil, nil, err
	}
	applied := position{Index: cfg.Applied, Term: cfg.AppliedTerm}
	r, err := recoverDir(dir, applied, true, cfg.Log)
	if err != nil {
		return nil, nil, err
	}
	s := &Survivor{Number: id.number(), Members: id.Members}
	if !found {
		if id.Self, err = newFounder(); err != nil {
			return nil, nil, err
		}
		if r.tail != nil {
			for _, v := range r.tail.head.Voters {
				s.Members.List = append(s.Members.List, Member{ID: v})
			}
		}
	}
	if s.Number == 0 && r.tail != nil {
		s.Number = r.tail.head.Node
	}
	if s.ID = cfg.ID; s.ID == 0 {
		s.ID = max(s.Number, 1)
	}
	_, last := r.store.bounds()
	s.Last, s.LastTerm = last.Index, last.Term
	s.Committed, s.Term = max(r.store.hard.Commit, applied.Index), max(r.store.hard.Term, last.Term, id.Term)
	s.NewTerm = max(s.Term+epochGap, term) + 1
	return s, &id, nil
}

// Survived is the term in which this log began anew, a single voter's, when Survive had
// given up what others may have had; 0: it never did.
func (l *Log) Survived() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.identity.Term == 0 {
		return 0
	}
	return l.identity.Term + 1
}

// Number is the number of the voter whose log is in dir, 0 when there is none. It
// may be asked while the log is open.
func Number(dir string) (uint64, error) {
	home := files.Host(dir)
	id, found, err := loadIdentity(home)
	if n := id.number(); err != nil || n != 0 {
		return n, err
	}
	numbers, err := listFiles(home)
	if errors.Is(err, fs.ErrNotExist) && !found {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for i := len(numbers) - 1; i >= 0; i-- { // those that were made ready have no header yet
		h, err := (&recovery{dir: home}).readHeader(numbers[i])
		if err == nil || !errors.Is(err, errBlank) {
			return h.Node, err
		}
	}
	return 0, nil
}
