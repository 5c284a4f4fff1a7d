package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
)

// Amnesia. In quorum mode a power cut may take entries from a voter that it has
// acknowledged. If it then voted as if nothing had happened, two such voters
// could elect one of them and lose what the third still has. So a voter that
// finds its host restarted, and its log not closed cleanly, gives no vote and
// seeks none until it knows again all that it may have forgotten.
//
// A leader that counts on what was forgotten must not go on: it could take an
// entry for committed that only it has. So the voter begins with a new term, which
// ends the leader's. Whoever leads that term or a later one was elected without
// this voter, by a majority that has all that it ever helped to commit; and raft counts for
// nobody what was acknowledged in an older term. When an entry of such a term is
// committed, and here, all that was forgotten is here too.
//
// With a third voter away, the leader of the last term before and this voter must
// be able to elect that leader again. They are: it has had all that was committed when its term
// began and made all that came since, so that a voter with amnesia may vote for it.
//
// If it has happened to so many that no majority is left to elect, somebody who has
// forgotten must vote. When such a voter has heard from all others what their logs
// hold, after they too have left the term in which it forgot, the longest of the logs has all that
// there is, and it votes for that voter only.

// bootName is the file that says on which boot of the kernel the log was written.
const bootName = "boot"

// lostBoot stands for the boot when a voter has amnesia: another one than any present.
const lostBoot = "lost"

// boot is its content. There is one only while the log is, or was, in quorum mode.
type boot struct {
	ID    string `json:"boot"`  // /proc/sys/kernel/random/boot_id
	Clean bool   `json:"clean"` // closed with all on disk
}

// kernelBoot names the present boot of the kernel.
func kernelBoot() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// wakeUp looks whether this voter may have forgotten something, and notes that it
// is at work.
func (l *Log) wakeUp() error {
	var was boot
	b, err := l.dir.Read(bootName)
	if err == nil {
		err = json.Unmarshal(b, &was)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if !l.w.lazy {
			return nil
		}
		was = boot{ID: l.cfg.Boot(), Clean: true}
	} else if err != nil {
		return fmt.Errorf("%s: %w", l.dir.Path(bootName), err)
	}
	l.amnesia = !was.Clean && was.ID != l.cfg.Boot() && !l.single
	switch {
	case l.amnesia && was.ID == lostBoot:
		l.cfg.Log.Error("journal: acknowledged changes were missing here before this start; no vote until a leader has brought them")
	case l.amnesia:
		l.cfg.Log.Error("journal: the host has restarted and the log was not closed: acknowledged changes may be missing here; no vote until a leader has brought them")
	}
	if err := l.saveBoot(false); err != nil || !l.amnesia {
		return err
	}
	return l.newTerm()
}

// newTerm leaves the term in which entries were forgotten, before anything else happens.
func (l *Log) newTerm() error {
	l.w.hard.Term++
	l.w.hard.Vote = 0
	l.st.setHard(l.w.hard)
	l.since = l.w.hard.Term // Status may read it from now on: nobody else has the log yet
	if err := l.w.flush(l.w.start(), 0, l.w.last()); err != nil {
		return err
	}
	return l.w.sync()
}

// saveBoot writes the file; a voter that still has amnesia stays so over restarts.
func (l *Log) saveBoot(clean bool) error {
	now := boot{ID: l.cfg.Boot(), Clean: clean}
	if l.amnesia {
		now = boot{ID: lostBoot}
	}
	if !l.w.lazy && !l.amnesia { // all that is here is durable
		err := l.dir.Remove(bootName)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, l.dir.Sync())
	}
	b, err := json.Marshal(now)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return l.dir.Replace(bootName, append(b, '\n'))
}

// barred tells whether amnesia forbids a message, in or out.
func (l *Log) barred(m *raftpb.Message) bool {
	if !l.amnesia {
		return false
	}
	switch m.GetType() {
	case raftpb.MsgVote, raftpb.MsgPreVote:
		return l.heir == 0 || m.GetFrom() != l.heir
	case raftpb.MsgTimeoutNow:
		return true
	}
	return false
}

// recognise looks at a message of an older term: only the leader of the last term in
// which this voter has forgotten anything can have sent it.
func (l *Log) recognise(m *raftpb.Message) {
	if !l.amnesia || l.heir != 0 || m.GetTerm()+1 != l.since {
		return
	}
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap:
		l.heir = m.GetFrom()
		l.cfg.Log.Warn("journal: this voter may vote for the last leader, which has what is missing here", "voter", l.heir)
	}
}

// holed looks at a heartbeat: a leader never tells a voter that more is committed
// than that voter has acknowledged. If it does, entries that were on this disk are
// not there any more: the disk did not keep them, or somebody put an old copy of
// the files back. That is amnesia too; the log stops, and when it is opened again it
// begins as after a power cut.
func (l *Log) holed(m *raftpb.Message) bool {
	last := l.st.lastIndex()
	if m.GetCommit() <= last || m.GetTerm() < l.term() {
		return false
	}
	l.mu.Lock()
	l.amnesia = true
	l.mu.Unlock()
	err := fmt.Errorf("%s: entries up to %d, which this voter had acknowledged, are gone: the log ends with %d. It gives no vote until a leader has brought them. Check the disk",
		l.dir.Path(""), m.GetCommit(), last)
	l.fail(errors.Join(err, l.saveBoot(false)))
	return true
}

// remember ends the amnesia when an entry of the term that this voter began with,
// or of a later one, is committed and here. It is called when the commit index has moved.
// What holed has noticed this life of the voter cannot end: it has begun no term for it.
func (l *Log) remember() error {
	if !l.amnesia || l.since == 0 || l.view.Commit > l.st.lastIndex() {
		return nil
	}
	if term, err := l.st.Term(l.view.Commit); err != nil || term < l.since {
		return nil // ErrCompacted: at the start of the log
	}
	return l.recovered("a leader has brought it up to date")
}

func (l *Log) recovered(how string) error {
	if err := l.w.sync(); err != nil {
		return err
	}
	l.mu.Lock()
	l.amnesia = false
	l.mu.Unlock()
	l.cfg.Log.Warn("journal: this voter votes again", "why", how, "commit", l.view.Commit)
	return l.saveBoot(false)
}

// Heir says that, of the logs of all voters, heir's is the longest, that all have
// left the terms before Status.Since, and that nobody leads: this voter may vote for
// heir although it has amnesia. many says that so many have it that no majority is
// without: only then can something be lost. It may be said again.
func (l *Log) Heir(heir uint64, many bool) {
	l.order(func() {
		if !l.amnesia || l.heir == heir {
			return
		}
		l.heir = heir
		if many {
			l.cfg.Log.Error("journal: too many voters have lost what they had acknowledged; going on from the longest log. Changes acknowledged within the last moments may be lost", "of", heir)
			return
		}
		l.cfg.Log.Info("journal: this voter may vote for the longest log of all; nothing is lost, since a majority has kept all that it acknowledged", "of", heir)
	})
}

// Leave makes this voter leave all terms before term, which voter from has told of.
func (l *Log) Leave(from, term uint64) {
	l.order(func() {
		if term > l.term() && from != l.cfg.ID {
			l.step(&raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), To: &l.cfg.ID, From: &from, Term: &term})
		}
	})
}
