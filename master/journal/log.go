package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/varvefs/varve/master/journal/files"
	"github.com/varvefs/varve/status"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// The queue of proposals that wait for the driver.
const (
	maxQueue      = 4096
	maxQueueBytes = 64 << 20
)

// Log is an open changelog.
type Log struct {
	cfg    Config
	dir    files.Dir
	lock   io.Closer
	single bool // the only voter
	st     *store
	m      *meters

	wake      chan struct{} // to the driver: queue or inbox has something
	writeWake chan struct{} // to the writer goroutine: jobs has something
	stop      chan struct{} // closed by halt
	done      chan struct{} // closed when the driver has ended
	committed chan []Committed
	leading   chan Leadership

	once       sync.Once // halt
	closing    sync.Once // Close
	closeErr   error
	background sync.WaitGroup // all goroutines but the driver

	mu         sync.Mutex // guards what follows
	room       sync.Cond  // queue has been emptied, or err is set
	queue      []proposal
	queueBytes int
	inbox      []input  // for the driver
	jobs       []job    // for the writer goroutine
	identity   identity // written by the driver
	amnesia    bool     // written by the driver
	err        error    // why the log no longer works
	view       Status   // First, Last, Applied and Bytes are unused
	leads      bool
	applied    uint64 // last index taken from Committed

	// Owned by the writer goroutine, or by the driver with a single voter.
	w *writer

	lease    lease // see lease.go for who owns what
	takeover atomic.Pointer[Takeover]
	trouble  atomic.Pointer[string] // Status.Trouble; nil: none

	// Owned by the driver.
	rn       *raft.RawNode
	hearing  hearing
	why      string                     // of the handover under way
	ticks    uint64                     // since Open
	since    uint64                     // term from which on entries end the amnesia
	heir     uint64                     // with amnesia: for whom it may vote; 0: nobody
	changing uint64                     // tick when a change of the membership was proposed that is not carried out yet, 0: none
	snaps    map[uint64]uint64          // followers that were told that they need an image, and when
	held     map[uint64]*raftpb.Message // by voter; see holdBack
	unplaced []proposal                 // given to raft, which has not yet said where they are
	tags     []tagged                   // own proposals in the log, ascending, not yet committed
	out      []Committed
	outResp  []*raftpb.Message // to be stepped when out has been taken
	soft     raft.SoftState
}

type proposal struct {
	data []byte
	tag  any
}

// tagged is an own proposal that raft has put at a place in the log.
type tagged struct {
	at  position
	tag any
}

// Propose queues data to become the next entry. What happens to it is said on
// Committed, with tag; proposals keep their order. It blocks only while the
// queue is full, which the driver empties whether or not Committed is read.
// data must not be empty nor be changed any more. Errors: status.NotLeader,
// status.TooBig, status.Closed, or why the log failed.
func (l *Log) Propose(data []byte, tag any) error {
	if len(data) == 0 {
		panic("BUG: an empty proposal")
	}
	if n := l.maxData(); len(data) > n {
		return status.Errorf(status.TooBig, "a log entry of %d bytes, at most %d are possible", len(data), n)
	}
	l.mu.Lock()
	for l.err == nil && (len(l.queue) >= maxQueue || l.queueBytes >= maxQueueBytes) {
		l.room.Wait()
	}
	if l.err != nil || !l.leads {
		err := l.err
		l.mu.Unlock()
		if err == nil {
			err = status.NotLeader
		}
		return err
	}
	l.queue = append(l.queue, proposal{data: data, tag: tag})
	l.queueBytes += len(data)
	l.mu.Unlock()
	poke(l.wake)
	return nil
}

// maxData is the size of the largest entry: it must fit in a file.
func (l *Log) maxData() int {
	return int(min(maxEntry, l.cfg.FileSize-page-frameHead-recordHead))
}

// poke wakes the reader of c, or does nothing if that is about to happen.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Committed delivers entries in order, first all of the log behind
// Config.Applied, then what is proposed. It is closed when the log ends: by
// Close, or because of Err. It should be read promptly: entries that wait here
// are held in memory up to a few MiB, beyond that in the files.
func (l *Log) Committed() <-chan []Committed { return l.committed }

// Leading delivers changes of leadership; only the newest is kept. A single
// voter leads before Open returns.
func (l *Log) Leading() <-chan Leadership { return l.leading }

// Status is for people and metrics.
func (l *Log) Status() Status {
	l.mu.Lock()
	s := l.view
	s.Applied, s.Amnesia, s.Since = l.applied, l.amnesia, l.since
	l.mu.Unlock()
	s.Writing = l.w.busySince()
	if text := l.trouble.Load(); text != nil {
		s.Trouble = *text
	}
	first, last := l.st.bounds()
	s.First, s.Last, s.LastTerm, s.Bytes = first, last.Index, last.Term, l.st.unsaved()
	return s
}

func (l *Log) isLeader() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leads
}

func (l *Log) queued() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)
}

// Step hands over a message that another voter's Transport has sent.
func (l *Log) Step(m *raftpb.Message) error {
	if raft.IsLocalMsg(m.GetType()) || m.GetTo() != l.cfg.ID {
		return status.Errorf(status.BadMessage, "raft message %v for voter %d", m.GetType(), m.GetTo())
	}
	l.mu.Lock()
	err := l.err
	if err == nil {
		l.inbox = append(l.inbox, input{msg: m})
	}
	l.mu.Unlock()
	poke(l.wake)
	return err
}

// Compact says that an image holds all entries up to index. Files that hold
// nothing newer are removed, but for the newest Config.BackLogs of them.
func (l *Log) Compact(index uint64) error { return l.CompactOld(index, 0) }

// Oldest is when the oldest file that is kept was begun.
func (l *Log) Oldest() time.Time { return time.Unix(0, l.st.oldest()) }

// CompactOld is Compact, but a file stays until the next one was begun so long ago.
func (l *Log) CompactOld(index uint64, keep time.Duration) error {
	l.mu.Lock()
	applied := l.applied
	l.mu.Unlock()
	if index > applied {
		return fmt.Errorf("journal: compact at entry %d, but only %d were delivered", index, applied)
	}
	if err := l.st.advance(index); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	for _, f := range l.st.release(l.cfg.BackLogs, time.Now().Add(-keep).UnixNano()) {
		if err := l.discard(&f); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	return nil
}

// discard removes an old file, or keeps it as the spare that saves writing zeros.
func (l *Log) discard(f *logFile) error {
	name := fileName(f.number)
	if _, err := l.dir.Size(spareName); errors.Is(err, fs.ErrNotExist) && f.size == l.cfg.FileSize {
		return l.dir.Rename(name, spareName)
	}
	return l.dir.Remove(name)
}

// Err is why the log no longer works: status.Closed after Close.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Close ends the log: what is on its way to the disk arrives there, what is
// queued does not.
func (l *Log) Close() error {
	l.closing.Do(func() {
		l.fail(status.Closed)
		<-l.done
		l.background.Wait()
		err := l.Err()
		clean := errors.Is(err, status.Closed)
		if clean {
			err = nil
		}
		l.closeErr = errors.Join(err, l.end(clean))
	})
	return l.closeErr
}

// end closes the files when nobody drives the log any more.
func (l *Log) end(clean bool) error {
	err := l.w.finish(clean)
	if clean && err == nil && l.w.lazy {
		err = l.saveBoot(true)
	}
	return errors.Join(err, l.lock.Close())
}

// fail stops the log; the first reason is kept.
func (l *Log) fail(err error) {
	l.mu.Lock()
	first := l.err == nil
	if first {
		l.err = err
	}
	l.mu.Unlock()
	l.room.Broadcast()
	l.halt()
	if first && !errors.Is(err, status.Closed) {
		l.cfg.Log.Error("journal: stopped", "err", err)
	}
}

// term is raft's present term.
func (l *Log) term() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.view.Term
}
