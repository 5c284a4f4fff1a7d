package master

import (
	"fmt"

	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/status"
)

const (
	// maxBatch bounds the bytes of one log entry.
	maxBatch = 1 << 20
	// maxInFlight bounds the log entries that are proposed and not yet
	// committed. The journal writes all that wait with one sync; a second entry
	// is under way while the first is synced so that the disk never waits for
	// the loop, and what comes meanwhile gathers in the next batch.
	maxInFlight = 2
)

// batch is what becomes one entry of the log.
type batch struct {
	entries []state.Entry
	changes []*change // in the order of entries
	data    []byte
	life    uint64 // of the helm, when it was begun
}

// append puts a change's operation into the batch that is being built.
func (l *loop) append(c *change, op state.Op) {
	e := state.Entry{Time: l.entryTime(), Op: op}
	if c.s != nil {
		e.Session, e.Seq, e.Done = c.s.id, c.once.Seq, c.once.Done
	}
	if l.batch == nil {
		l.batch = &batch{life: l.helm.Life()}
	}
	b := l.batch
	b.entries = append(b.entries, e)
	b.changes = append(b.changes, c)
	b.data = state.AppendEntry(b.data, &e)
	if len(b.data) >= maxBatch {
		l.propose()
	}
}

// entryTime is now, but never before an earlier entry.
func (l *loop) entryTime() int64 {
	l.lastTime = max(l.lastTime, l.now.UnixNano(), l.st.Time())
	return l.lastTime
}

// log1 logs an operation of the master itself, which touches nothing that
// anybody may hold rights on. done may be nil.
func (l *loop) log1(op state.Op, done func(state.Result, error)) { l.logFor(nil, op, done) }

// logFor is log1 in the name of a session.
func (l *loop) logFor(s *session, op state.Op, done func(state.Result, error)) {
	if done == nil {
		done = func(state.Result, error) {}
	}
	l.append(&change{
		s:    s,
		done: func(r state.Result) { done(r, nil) },
		fail: func(err error) { done(state.Result{}, err) },
	}, op)
}

// propose hands the batch to the journal.
func (l *loop) propose() {
	b := l.batch
	l.batch = nil
	if err := l.log.Propose(b.data, b); err != nil {
		l.fail(b, err)
		return
	}
	l.inFlight++
	l.batches++
	l.met.batches.Inc()
	l.met.batchEntries.Update(float64(len(b.entries)))
}

// fail ends all changes of a batch that did not make it into the log.
func (l *loop) fail(b *batch, err error) {
	for _, c := range b.changes {
		l.drop(c, status.Errorf(status.NotLeader, "%v", err))
	}
}

// committed applies what the log has committed.
func (l *loop) committed(list []journal.Committed) {
	defer func() { l.reached.Store(l.index) }()
	l.hurry = len(list) > 1
	for i := range list {
		c := &list[i]
		b, own := c.Tag.(*batch)
		own = own && b.life == l.helm.Life() // else this master was deposed after it proposed b
		if own {
			l.inFlight--
		}
		switch {
		case c.Err != nil:
			if own {
				l.fail(b, c.Err)
			}
			continue
		case c.Image:
			if err := l.reload(c.Index); err != nil {
				l.die(err)
				return
			}
			continue
		case own:
			l.applyOwn(b)
		case len(c.Data) > 0:
			if err := l.applyOther(c); err != nil {
				l.die(err)
				return
			}
		}
		l.index, l.term = c.Index, c.Term
		l.images.bytes += uint64(len(c.Data))
		if c.Data == nil {
			l.helm.CaughtUp(c.Term)
			l.lead()
		}
	}
}

// applyOwn applies a batch that this master proposed and answers the requests.
func (l *loop) applyOwn(b *batch) {
	l.hurry = l.hurry || len(b.entries) > 1
	for i := range b.entries {
		res := l.st.Apply(&b.entries[i])
		l.effects(&res.Effects)
		l.applied(b.changes[i], res)
	}
	l.met.changes.Add(len(b.entries))
	l.changes += uint64(len(b.entries))
}

// applyOther applies an entry of before the start, or of another master.
func (l *loop) applyOther(c *journal.Committed) error {
	entries, err := state.DecodeBatch(c.Data)
	if err != nil {
		return fmt.Errorf("log entry %d: %w", c.Index, err)
	}
	for i := range entries {
		res := l.st.Apply(&entries[i])
		if l.helm.Ready() {
			l.effects(&res.Effects)
		}
	}
	l.changes += uint64(len(entries))
	return nil
}
