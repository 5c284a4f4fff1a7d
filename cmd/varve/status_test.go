package main

import (
	"strings"
	"testing"

	"github.com/varvefs/varve/wire"
)

// Columns stand below their heads, whatever the rows between hold.
func TestStatusColumns(t *testing.T) {
	none, far := uint64(0), uint64(12345)
	disk := wire.DiskStatus{Path: "/var/lib/varve/chunks", State: "ok", Backend: "uring"}
	odd := wire.DiskStatus{Path: "/d", State: "failed", Error: "input/output error", Backend: "posix", Chunks: 123456789}
	st := &wire.Status{
		Cluster: "c",
		Masters: []wire.MasterStatus{
			{ID: 1, Name: "master1", Role: "leader", Addr: "10.77.0.11:9421", Pid: 4711, Epoch: 7, Applied: 100, Commit: 101, Lease: "held", LeaseLeft: 0.412, HoldsVIP: true, Lag: &none, Version: "v1.2"},
			{ID: 2, Name: "a-much-longer-name", Role: "standby", Addr: "10.77.0.12:9421", Lag: &far, Version: "v1.1-7"},
			{ID: 3, Role: "metalogger", Raft: "10.77.0.13:9419", Down: true},
		},
		Servers:  []wire.ServerStatus{{ID: "1", Addr: "10.77.0.21:9422", State: "up", Disks: []wire.DiskStatus{disk, odd}}, {ID: "7a31d30507e3ed9e", Addr: "c2:9422", State: "down", Disks: []wire.DiskStatus{odd}}},
		Mounts:   []wire.MountStatus{{Mount: "/mnt", Host: "client", Path: "/", State: "connected", Version: "v1.0"}},
		Failover: &wire.FailoverStatus{Epoch: 7, From: 2, To: 1, ToName: "master1", Cause: "voter 2 died", Votes: 0.012, Ready: 0.003},
	}
	var b strings.Builder
	printStatus(&b, st)
	out := b.String()
	for _, want := range []string{"412 ms", "here", "last failover", "to master1 in epoch 7: voter 2 died; votes took 12 ms, then 3 ms to serve", "metalogger (down)", "failed: input/output error", " 12345 ", " v1.2\n", " v1.1-7\n", " v1.0\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing:\n%s", want, out)
		}
	}
	for head, tables := range map[string][]string{"MASTER": {"ROLE", "LAG", "LEASE", "VIP", "BUSY", "VERSION"}, "SERVER": {"STATE", "ERRORS", "VERSION"}, "MOUNT": {"HOST", "VERSION"}, "DISK": {"OF", "STATE", "SCRUB"}} {
		lines := strings.Split(out[strings.Index(out, "\n"+head)+1:], "\n")
		for _, column := range tables {
			at := strings.Index(lines[0], column)
			for _, row := range lines[1:] {
				if row == "" || strings.HasPrefix(row, "last failover") {
					break
				}
				if at >= len(row) || row[at] == ' ' || row[at-1] != ' ' {
					t.Errorf("column %s of table %s: no cell begins at %d of %q\n%s", column, head, at, row, out)
				}
			}
		}
	}
}
