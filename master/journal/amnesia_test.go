package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/varvefs/varve/test/sim/disk"
	"go.etcd.io/raft/v3/raftpb"
)

// A voter in quorum mode whose host has restarted votes again only when it has
// what a leader has; when all are in that state, when they are told so.
func TestAmnesia(t *testing.T) {
	w := &wires{logs: map[uint64]*Log{}, cut: map[uint64]bool{}}
	dirs := map[uint64]string{1: t.TempDir(), 2: t.TempDir(), 3: t.TempDir()}
	boots := map[uint64]string{1: "a", 2: "a", 3: "a"}
	open := func(id uint64) *voter {
		return w.startWith(t, id, dirs[id], func(c *Config) {
			c.SyncMode = SyncQuorum
			c.Boot = func() string { return boots[id] }
		})
	}
	// lose is a power cut of one host: the log was not closed.
	lose := func(v *voter) *voter {
		t.Helper()
		id := v.cfg.ID
		unclean, err := os.ReadFile(filepath.Join(dirs[id], bootName))
		if err != nil {
			t.Fatal(err)
		}
		mustClose(t, v.Log)
		if err := os.WriteFile(filepath.Join(dirs[id], bootName), unclean, 0o640); err != nil {
			t.Fatal(err)
		}
		boots[id] += "b"
		return open(id)
	}
	voters := []*voter{open(1), open(2), open(3)}
	lead := leaderOf(t, voters, nil)
	for i := range 50 {
		if err := lead.Propose([]byte(fmt.Sprint(i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range voters {
		eventually(t, "all have all", func() bool { return v.count() == 50 })
	}
	// A clean stop is no loss, a restart of the process alone neither.
	one := int(lead.cfg.ID) % 3
	mustClose(t, voters[one].Log)
	boots[voters[one].cfg.ID] = "z"
	voters[one] = open(voters[one].cfg.ID)
	if voters[one].Status().Amnesia {
		t.Fatal("amnesia after a clean stop")
	}
	// One host: the leader heals it.
	voters[one] = lose(voters[one])
	if !voters[one].Status().Amnesia {
		t.Fatal("no amnesia after a power cut")
	}
	eventually(t, "the leader has brought it up to date", func() bool {
		return !voters[one].Status().Amnesia
	})
	// One host while another is away: the two that are left go on.
	lead = leaderOf(t, voters, nil)
	one = int(lead.cfg.ID) % 3
	away := int(lead.cfg.ID+1) % 3
	mustClose(t, voters[away].Log)
	voters[one] = lose(voters[one])
	eventually(t, "two of three go on", func() bool {
		return !voters[one].Status().Amnesia && (lead.isLeader() || voters[one].isLeader())
	})
	voters[away] = open(uint64(away + 1))
	lead = leaderOf(t, voters, nil)
	eventually(t, "all have all", func() bool {
		return voters[away].Status().Last == lead.Status().Last && voters[one].Status().Last == lead.Status().Last
	})
	// All hosts: nobody leads until they have compared.
	for i, v := range voters {
		voters[i] = lose(v)
	}
	promised := time.Now().Add(voters[0].ElectionTimeout()) // up to then they would not vote in any case
	for time.Now().Before(promised.Add(voters[0].ElectionTimeout() / 2)) {
		time.Sleep(time.Millisecond)
		for _, v := range voters {
			v.Campaign()
			if !v.Status().Amnesia || v.isLeader() {
				t.Fatal("a voter that may have forgotten everything votes")
			}
		}
	}
	for _, v := range voters {
		v.Heir(2, true)
	}
	lead = leaderOf(t, voters, nil)
	for _, v := range voters {
		eventually(t, "all are well", func() bool { return !v.Status().Amnesia && v.Status().Leader == lead.cfg.ID })
		eventually(t, "nothing is lost", func() bool { return v.count() == 50 })
		mustClose(t, v.Log)
	}
}

// A voter whose disk has lost what it acknowledged is no panic of raft's: it
// stops, and comes back as one that has forgotten.
func TestLostTail(t *testing.T) {
	w, voters := trio(t)
	lead := leaderOf(t, voters, nil)
	id := lead.cfg.ID%3 + 1
	dir, save := voters[id-1].cfg.Dir, t.TempDir()
	mustClose(t, voters[id-1].Log)
	if err := os.CopyFS(save, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	voters[id-1] = w.start(t, id, dir)
	for i := range 50 {
		if err := lead.Propose([]byte(fmt.Sprint(i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range voters {
		eventually(t, "all have all", func() bool { return v.count() == 50 })
	}
	mustClose(t, voters[id-1].Log)
	hurt := w.start(t, id, save)
	eventually(t, "the loss is noticed", func() bool { return hurt.Err() != nil })
	if err := hurt.Err(); !strings.Contains(err.Error(), "had acknowledged, are gone") {
		t.Fatal(err)
	}
	_ = hurt.Close()
	var said strings.Builder
	hurt = w.startWith(t, id, save, func(c *Config) { c.Log = loud(&said) })
	voters[id-1] = hurt
	if !hurt.Status().Amnesia {
		t.Fatal("it votes")
	}
	hurt.Heir(lead.cfg.ID, false)
	eventually(t, "it is healed", func() bool { return !hurt.Status().Amnesia && hurt.count() == 50 })
	mustClose(t, hurt.Log)
	for _, wrong := range []string{"has restarted", "too many", "may be lost"} {
		if strings.Contains(said.String(), wrong) {
			t.Errorf("one voter of three has lost its tail, and it says %q:\n%s", wrong, said.String())
		}
	}
}

// What a voter has just noticed to be gone is still gone when an entry before it is
// committed at that moment: it comes back as one that has forgotten.
func TestLostTailStaysLost(t *testing.T) {
	d := disk.New(1)
	l, _ := voterOnDisk(t, d, SyncFsync)
	term, none, one, many, from := uint64(5), uint64(0), uint64(1), uint64(100), uint64(2)
	turn := func(m *raftpb.Message) error {
		t.Helper()
		m.From, m.To, m.Term = &from, &l.cfg.ID, &term
		if err := l.Step(m); err != nil {
			t.Fatal(err)
		}
		return l.Turn()
	}
	app := &raftpb.Message{Type: raftpb.MsgApp.Enum(), Index: &none, LogTerm: &none, Commit: &none, Entries: []*raftpb.Entry{{Term: &term, Index: &one, Data: []byte("x")}}}
	if err := errors.Join(turn(app), l.Write(), l.Turn(), turn(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Commit: &one})); err != nil {
		t.Fatal(err)
	}
	if err := turn(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Commit: &many}); err == nil {
		t.Fatal("99 entries are gone, and it goes on")
	}
	if err := l.remember(); err != nil { // as the driver does with what came together with that
		t.Fatal(err)
	}
	l.Kill()
	if l, _ = voterOnDisk(t, d, SyncFsync); !l.Status().Amnesia {
		t.Error("it votes")
	}
}
