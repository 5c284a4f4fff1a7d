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
// seeks none until a leader has brought it to where that leader's commit index
// was. If that has happened to all voters at once there is nobody who knows more:
// when each has heard from all others, they go on from the longest log.

// bootName is the file that says on which boot of the kernel the log was written.
const bootName = "boot"

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
	if l.amnesia {
		l.cfg.Log.Error("journal: the host has restarted and the log was not closed: acknowledged changes may be missing here; no vote until a leader has brought them")
	}
	return l.saveBoot(false)
}

// saveBoot writes the file; a voter that still has amnesia stays so over restarts.
func (l *Log) saveBoot(clean bool) error {
	now := boot{ID: l.cfg.Boot(), Clean: clean}
	if l.amnesia {
		now = boot{ID: "lost"}
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
	case raftpb.MsgVote, raftpb.MsgPreVote, raftpb.MsgTimeoutNow:
		return true
	case raftpb.MsgApp:
		if m.GetTo() == l.cfg.ID && l.recall == 0 && m.GetTerm() >= l.term() {
			l.recall = max(m.GetCommit(), 1) // what was ever acknowledged is at or below it
		}
	}
	return false
}

// remember ends the amnesia when the leader's commit index is reached. It is
// called when the commit index has moved: all below it is written here.
func (l *Log) remember() error {
	if !l.amnesia || l.recall == 0 || l.view.Commit < l.recall || l.st.lastIndex() < l.recall {
		return nil
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

// Recall tells a voter with amnesia the commit index of leader, as that leader
// says itself. It counts only in the term of this voter, which is never forgotten.
func (l *Log) Recall(leader, term, commit uint64) {
	l.order(func() {
		if l.amnesia && l.recall == 0 && term == l.term() && leader == l.soft.Lead {
			l.recall = max(commit, 1)
			if err := l.remember(); err != nil {
				l.fail(err)
			}
		}
	})
}

// AllForgot says that every voter has amnesia, and that this one has heard so
// from all others: together they have all there is. It votes again.
func (l *Log) AllForgot() {
	l.order(func() {
		if !l.amnesia {
			return
		}
		l.cfg.Log.Error("journal: all voters have lost power; going on from the longest log. Changes acknowledged within the last moments may be lost")
		if err := l.recovered("all voters have heard from each other"); err != nil {
			l.fail(err)
		}
	})
}

// Resign gives up leadership, when a voter has lost entries that this leader
// believes it to have: only a new term asks anew what each voter has.
func (l *Log) Resign() { l.order(l.resign) }
