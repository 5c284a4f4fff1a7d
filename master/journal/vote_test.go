package journal

import (
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/varvefs/varve/test/sim/disk"
	"go.etcd.io/raft/v3/raftpb"
)

// outbox is a transport that keeps what was sent.
type outbox struct{ sent []*raftpb.Message }

func (o *outbox) Send(msgs []*raftpb.Message) { o.sent = append(o.sent, msgs...) }

func (o *outbox) has(kind raftpb.MessageType) bool {
	for _, m := range o.sent {
		if m.GetType() == kind {
			return true
		}
	}
	return false
}

// voterOnDisk opens voter 1 of three on a disk.
func voterOnDisk(t *testing.T, d *disk.Disk, mode string) (*Manual, *outbox) {
	t.Helper()
	out := new(outbox)
	cfg := config("")
	cfg.ID, cfg.Peers, cfg.Transport, cfg.Files, cfg.SyncMode, cfg.FileSize = 1, []uint64{1, 2, 3}, out, d, mode, 64*page
	cfg.Boot = func() string { return "boot" }
	l, err := OpenManual(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l, out
}

// A vote is on the disk before the candidate hears of it, in both modes: a voter
// that loses power right after must not vote for another one in the same term.
func TestVoteIsDurable(t *testing.T) {
	for _, mode := range []string{SyncFsync, SyncQuorum} {
		d := disk.New(1)
		l, out := voterOnDisk(t, d, mode)
		term, none, from := uint64(5), uint64(0), uint64(2)
		ask := &raftpb.Message{Type: raftpb.MsgVote.Enum(), From: &from, To: &l.cfg.ID, Term: &term, Index: &none, LogTerm: &none}
		if err := l.Step(ask); err != nil {
			t.Fatal(err)
		}
		for !out.has(raftpb.MsgVoteResp) {
			if err := l.Turn(); err != nil {
				t.Fatal(err)
			}
			if out.has(raftpb.MsgVoteResp) {
				t.Fatalf("%s: the vote is sent before it is written", mode)
			}
			if !l.Writing() {
				t.Fatalf("%s: no vote", mode)
			}
			if err := l.Write(); err != nil {
				t.Fatal(err)
			}
		}
		d = d.PowerCut(0, func(int) int { return 0 })
		l, _ = voterOnDisk(t, d, mode)
		if h, _, _ := l.st.InitialState(); h.GetTerm() != 5 || h.GetVote() != 2 {
			t.Errorf("%s: after a power cut it has voted for %d in term %d", mode, h.GetVote(), h.GetTerm())
		}
	}
}

// An entry is acknowledged to the leader only when it is on the disk.
func TestAcknowledgedIsDurable(t *testing.T) {
	d := disk.New(1)
	l, out := voterOnDisk(t, d, SyncFsync)
	term, none, one, from := uint64(5), uint64(0), uint64(1), uint64(2)
	app := &raftpb.Message{Type: raftpb.MsgApp.Enum(), From: &from, To: &l.cfg.ID, Term: &term, Index: &none, LogTerm: &none,
		Commit: &none, Entries: []*raftpb.Entry{{Term: &term, Index: &one, Data: []byte("x")}}}
	if err := l.Step(app); err != nil {
		t.Fatal(err)
	}
	if err := l.Turn(); err != nil {
		t.Fatal(err)
	}
	if out.has(raftpb.MsgAppResp) || !l.Writing() {
		t.Fatal("the entry is acknowledged before it is written")
	}
	if err := l.Write(); err != nil {
		t.Fatal(err)
	}
	if !out.has(raftpb.MsgAppResp) {
		t.Fatal("the entry is not acknowledged")
	}
	d = d.PowerCut(0, func(int) int { return 0 })
	l, _ = voterOnDisk(t, d, SyncFsync)
	if last := l.Status().Last; last != 1 {
		t.Errorf("after a power cut the log ends with entry %d", last)
	}
}

// A voter that is none, on an emptied directory for example, does not ask for votes.
func TestNoVoterNoCandidate(t *testing.T) {
	var said strings.Builder
	w := &wires{logs: map[uint64]*Log{}, cut: map[uint64]bool{}}
	v := w.startWith(t, 2, t.TempDir(), func(c *Config) { c.Await, c.Log = true, loud(&said) })
	for range 100 {
		v.Campaign()
	}
	done := make(chan struct{})
	v.order(func() { close(done) })
	<-done
	mustClose(t, v.Log)
	if strings.Contains(said.String(), "unpromotable") {
		t.Error(said.String())
	}
	// And what raft says again and again is said once.
	said.Reset()
	r := &raftLogger{log: loud(&said)}
	for range 100 {
		r.Warningf("%x cannot campaign", 2)
	}
	r.Warning("something else")
	if n := strings.Count(said.String(), "\n"); n != 2 {
		t.Errorf("%d lines:\n%s", n, said.String())
	}
}

func loud(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
