package journal

import (
	"errors"
	"time"

	"github.com/varvefs/varve/status"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// witnessDelay is how long the log must be idle before the commit index is
// written by itself. Until then, damage to the last frames looks like a torn tail.
const witnessDelay = 50 * time.Millisecond

// job is what the writer goroutine is asked to do.
type job struct {
	msg     *raftpb.Message
	witness bool
}

// input is what the driver is given: a message for raft, or an order of Log's
// user. They keep their order.
type input struct {
	msg   *raftpb.Message
	order func()
}

// run is the driver: it owns the RawNode.
func (l *Log) run() {
	defer close(l.done)
	defer close(l.committed)
	if err := l.serve(); err != nil {
		l.fail(err)
	}
}

// rescue is deferred. Raft panics when its storage fails to read; that is the
// disk's fault and no bug.
func (l *Log) rescue(err *error) {
	if e := l.st.readError(); e != nil && recover() != nil {
		*err = e
	}
}

func (l *Log) serve() (err error) {
	defer l.rescue(&err)
	var ticks <-chan time.Time
	if !l.single {
		t := time.NewTicker(l.cfg.Tick)
		defer t.Stop()
		ticks = t.C
	}
	idle := time.NewTimer(witnessDelay)
	defer idle.Stop()
	for {
		var committed chan []Committed
		if len(l.out) > 0 {
			committed = l.committed
		}
		select {
		case <-l.stop:
			return nil
		case committed <- l.out:
			l.taken()
		case <-l.wake:
			if err := l.input(); err != nil {
				return err
			}
			idle.Reset(witnessDelay)
		case <-ticks:
			l.tick()
		case <-idle.C:
			if err := l.witness(); err != nil {
				return err
			}
		}
		if err := l.drain(); err != nil {
			return err
		}
	}
}

// taken tells raft that the reader of Committed has the entries in out.
func (l *Log) taken() {
	index := uint64(0)
	for i := range l.out {
		index = max(index, l.out[i].Index)
	}
	if index > 0 {
		l.mu.Lock()
		l.applied = max(l.applied, index)
		l.mu.Unlock()
	}
	l.out = nil
	for _, m := range l.outResp {
		l.step(m)
	}
	l.outResp = l.outResp[:0]
}

// input gives raft what was queued: messages first, then all proposals as one
// message, so that they share a frame.
func (l *Log) input() error {
	l.mu.Lock()
	inbox, queue := l.inbox, l.queue
	l.inbox, l.queue, l.queueBytes = nil, nil, 0
	l.mu.Unlock()
	l.room.Broadcast()
	for _, in := range inbox {
		if in.order != nil {
			in.order()
		} else if l.heard(in.msg) {
			l.step(in.msg)
		}
	}
	if len(queue) == 0 {
		return nil
	}
	if len(inbox) > 0 { // so that place finds nothing but these proposals
		if err := l.drain(); err != nil {
			return err
		}
	}
	ents := make([]*raftpb.Entry, len(queue))
	for i := range queue {
		ents[i] = &raftpb.Entry{Data: queue[i].data}
	}
	err := l.rn.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: &l.cfg.ID, Entries: ents})
	if err != nil {
		for i := range queue {
			l.lost(queue[i].tag)
		}
		return nil
	}
	l.unplaced = queue
	return nil
}

// place notes where in the log raft has put the proposals that input gave it.
func (l *Log) place(ents []*raftpb.Entry) {
	for _, e := range ents {
		if len(l.unplaced) == 0 {
			return
		}
		if len(e.GetData()) == 0 {
			continue // the first entry of the term
		}
		// Older proposals at or behind it were replaced while another master led.
		for n := len(l.tags); n > 0 && l.tags[n-1].at.Index >= e.GetIndex(); n-- {
			l.lost(l.tags[n-1].tag)
			l.tags = l.tags[:n-1]
		}
		at := position{Index: e.GetIndex(), Term: e.GetTerm()}
		l.tags = append(l.tags, tagged{at: at, tag: l.unplaced[0].tag})
		l.unplaced = l.unplaced[1:]
	}
}

// lost reports a proposal that will never be in the log.
func (l *Log) lost(tag any) {
	l.m.refused.Inc()
	l.out = append(l.out, Committed{Tag: tag, Err: status.NotLeader})
}

// step hands m to raft. Messages from peers that raft does not want are no error.
func (l *Log) step(m *raftpb.Message) {
	if err := l.rn.Step(m); err != nil && !errors.Is(err, raft.ErrProposalDropped) {
		l.cfg.Log.Debug("journal: raft refused a message", "type", m.GetType(), "from", m.GetFrom(), "err", err)
	}
}

// drain carries out all that raft wants done.
func (l *Log) drain() error {
	for l.rn.HasReady() {
		rd := l.rn.Ready()
		var peers []*raftpb.Message
		var writes []job
		for _, m := range rd.Messages {
			switch m.GetTo() {
			case raft.LocalAppendThread:
				l.place(m.GetEntries())
				writes = append(writes, job{msg: m})
			case raft.LocalApplyThread:
				if err := l.deliver(m); err != nil {
					return err
				}
			default:
				if l.leaving(m) && !l.holdBack(m) {
					peers = append(peers, m)
				}
			}
		}
		l.observe(&rd)
		if err := l.remember(); err != nil {
			return err
		}
		if len(peers) > 0 { // before the write: followers write at the same time
			l.cfg.Transport.Send(peers)
		}
		if err := l.write(writes); err != nil {
			return err
		}
	}
	return nil
}

// observe publishes what changed: term, leader, commit index.
func (l *Log) observe(rd *raft.Ready) {
	was := l.soft.RaftState
	l.publish(rd)
	l.role(was)
}

func (l *Log) publish(rd *raft.Ready) {
	l.mu.Lock()
	defer l.mu.Unlock()
	term := l.view.Term
	if !raft.IsEmptyHardState(rd.HardState) {
		l.view.Term, l.view.Commit = rd.HardState.GetTerm(), rd.HardState.GetCommit()
	}
	if rd.SoftState != nil {
		l.soft = *rd.SoftState
	}
	leads := l.soft.RaftState == raft.StateLeader
	l.view.Leader = l.soft.Lead
	if leads == l.leads && (!leads || term == l.view.Term) {
		return
	}
	l.leads = leads
	l.lease.led(leads)
	for { // only the newest counts
		select {
		case l.leading <- Leadership{Term: l.view.Term, Leader: leads}:
			return
		default:
		}
		select {
		case <-l.leading:
		default:
		}
	}
}

// deliver puts committed entries into out. They are durable here: raft takes
// them from the store, which has only what was written.
func (l *Log) deliver(m *raftpb.Message) error {
	for _, e := range m.GetEntries() {
		c := Committed{Index: e.GetIndex(), Term: e.GetTerm()}
		if e.GetType() != raftpb.EntryNormal {
			c.Members = true
			if err := l.changed(e); err != nil {
				return err
			}
		} else if len(e.GetData()) > 0 {
			c.Data = e.GetData()
		}
		for len(l.tags) > 0 && l.tags[0].at.Index <= c.Index {
			if l.tags[0].at == (position{Index: c.Index, Term: c.Term}) {
				c.Tag = l.tags[0].tag
			} else {
				l.lost(l.tags[0].tag)
			}
			l.tags[0].tag = nil
			l.tags = l.tags[1:]
		}
		l.out = append(l.out, c)
	}
	l.outResp = append(l.outResp, m.GetResponses()...)
	return nil
}

// write carries out the jobs, here or in the writer goroutine.
func (l *Log) write(jobs []job) error {
	if len(jobs) == 0 {
		return nil
	}
	if l.single {
		return l.perform(jobs)
	}
	for _, j := range jobs {
		if s := j.msg.GetSnapshot(); !raft.IsEmptySnap(s) {
			at := s.GetMetadata()
			l.out = append(l.out, Committed{Index: at.GetIndex(), Term: at.GetTerm(), Image: true})
			l.cfg.Log.Info("journal: going on behind an image", "index", at.GetIndex(), "term", at.GetTerm())
		}
	}
	l.mu.Lock()
	l.jobs = append(l.jobs, jobs...)
	l.mu.Unlock()
	poke(l.writeWake)
	return nil
}

// perform writes and then delivers raft's answers: to the driver itself, and to
// peers who were promised that it is on disk.
func (l *Log) perform(jobs []job) error {
	msgs := make([]*raftpb.Message, 0, len(jobs))
	witness := false
	for _, j := range jobs {
		if j.msg != nil {
			msgs = append(msgs, j.msg)
		}
		witness = witness || j.witness
	}
	l.w.writing.Store(l.cfg.Clock())
	defer l.w.writing.Store(0)
	if err := l.w.append(msgs); err != nil {
		return err
	}
	if witness {
		if err := l.w.witness(); err != nil {
			return err
		}
	}
	if l.single {
		for _, m := range msgs {
			for _, r := range m.GetResponses() {
				l.step(r)
			}
		}
		return nil
	}
	var peers []*raftpb.Message
	l.mu.Lock()
	for _, m := range msgs {
		for _, r := range m.GetResponses() {
			if r.GetTo() == l.cfg.ID {
				l.inbox = append(l.inbox, input{msg: r})
			} else {
				peers = append(peers, r)
			}
		}
	}
	l.mu.Unlock()
	poke(l.wake)
	if len(peers) > 0 {
		l.cfg.Transport.Send(peers)
	}
	return nil
}

// witness has the commit index written after the log was idle for a while.
func (l *Log) witness() error {
	if l.single {
		return l.w.witness()
	}
	l.mu.Lock()
	l.jobs = append(l.jobs, job{witness: true})
	l.mu.Unlock()
	poke(l.writeWake)
	return nil
}

// writeLoop is the writer goroutine: all jobs that came while it wrote are its
// next append.
func (l *Log) writeLoop() {
	for {
		select {
		case <-l.stop:
			return
		case <-l.writeWake:
		}
		l.mu.Lock()
		jobs := l.jobs
		l.jobs = nil
		l.mu.Unlock()
		if err := l.perform(jobs); err != nil {
			l.fail(err)
			return
		}
	}
}

// flush makes what was written durable in quorum mode.
func (l *Log) flush() error {
	l.w.flushing.Store(l.cfg.Clock())
	defer l.w.flushing.Store(0)
	return l.w.sync()
}

// syncLoop makes what was written durable in quorum mode.
func (l *Log) syncLoop() {
	t := time.NewTicker(l.cfg.SyncDelay)
	defer t.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-t.C:
		}
		if err := l.flush(); err != nil {
			l.fail(err)
			return
		}
	}
}
