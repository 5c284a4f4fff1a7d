package journal

import (
	"errors"
	"testing"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/test/sim/disk"
	"go.etcd.io/raft/v3/raftpb"
)

// nowhere is a transport to nobody.
type nowhere struct{}

func (nowhere) Send([]*raftpb.Message) {}

// alone opens a log of one voter on a simulated disk and drives it until it leads.
func alone(t *testing.T, d *disk.Disk, mode, boot string) *Manual {
	t.Helper()
	l := idle(t, d, mode, boot)
	for !l.isLeader() {
		turn(t, l)
	}
	return l
}

// idle opens it only.
func idle(t *testing.T, d *disk.Disk, mode, boot string) *Manual {
	t.Helper()
	cfg := config("")
	cfg.ID, cfg.Peers, cfg.Transport, cfg.Files, cfg.SyncMode = 1, []uint64{1}, nowhere{}, d, mode
	cfg.FileSize = 64 * page
	cfg.Boot = func() string { return boot }
	l, err := OpenManual(cfg)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return l
}

// turn lets everything happen that is to happen, and returns what was committed.
func turn(t *testing.T, l *Manual) (got []string) {
	t.Helper()
	for {
		err := l.Turn()
		if err == nil && l.Writing() {
			err = l.Write()
		}
		if err == nil && l.Waiting() > 0 {
			var list []Committed
			list, err = l.Take()
			for i := range list {
				if list[i].Data != nil {
					got = append(got, string(list[i].Data))
				}
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if !l.Writing() && len(l.inbox) == 0 {
			return got
		}
	}
}

func propose(t *testing.T, l *Manual, what string) {
	t.Helper()
	if err := l.Propose([]byte(what), what); err != nil {
		t.Fatal(err)
	}
}

// A write that failed may have left a frame in a cache: the next life of the
// process reads it and goes on behind it. It must be durable by then, or a power
// cut would tear a hole into the log.
func TestWriteErrorThenPowerCut(t *testing.T) {
	seen := false
	for seed := range uint64(20) {
		d := disk.New(seed)
		l := alone(t, d, SyncFsync, "boot")
		before := l.Status().Last
		d.Fate = func(engine.Kind) disk.Fate { return disk.Error }
		propose(t, l, "doubtful")
		if err := errors.Join(l.Turn(), l.Write()); !errors.Is(err, disk.ErrIO) {
			t.Fatalf("write on a broken disk: %v", err)
		}
		l.Kill()
		d.Die()
		d.Fate = nil
		l = alone(t, d, SyncFsync, "boot")
		doubtful := l.Status().Last
		propose(t, l, "sure")
		got := turn(t, l)
		if got[len(got)-1] != "sure" {
			t.Fatalf("committed %q", got)
		}
		d = d.PowerCut(seed, func(n int) int { return n - 1 })
		l = alone(t, d, SyncFsync, "again")
		if last := l.Status().Last; last < doubtful+1 {
			t.Fatalf("seed %d: the log ends with entry %d, %d was acknowledged", seed, last, doubtful+1)
		}
		seen = seen || doubtful > before+1 // not only the first entry of the new term
	}
	if !seen {
		t.Error("the doubtful entry has never come back; this tests nothing")
	}
}

// What a killed process has left in the page cache is not durable because the
// next one reads it: if that one is closed cleanly, all must be on the disk.
func TestKillCloseThenPowerCut(t *testing.T) {
	for seed := range uint64(20) {
		d := disk.New(seed)
		l := alone(t, d, SyncQuorum, "boot")
		propose(t, l, "acknowledged")
		if got := turn(t, l); len(got) != 1 {
			t.Fatalf("committed %q", got)
		}
		last := l.Status().Last
		l.Kill()
		d.Die()
		l = idle(t, d, SyncQuorum, "boot")
		if err := l.End(); err != nil {
			t.Fatal(err)
		}
		d.Die()
		d = d.PowerCut(seed, func(n int) int { return n - 1 })
		l = idle(t, d, SyncQuorum, "again")
		if s := l.Status(); s.Last < last || s.Amnesia {
			t.Fatalf("seed %d: the log ends with entry %d, and has forgotten: %v; entry %d was acknowledged and the log closed", seed, s.Last, s.Amnesia, last)
		}
	}
}
