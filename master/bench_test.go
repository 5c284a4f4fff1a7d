package master

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/wire"
)

// benchMaster is a master with two chunkservers on a directory of the host.
func benchMaster(b *testing.B) (*Master, *mount) {
	b.Helper()
	t := &testing.T{}
	cfg := testConfig(t, b.TempDir())
	cfg.SessionLease = 1 << 40
	m, err := Start(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { m.Close() })
	for m.Ready() != nil {
	}
	newChunkd(t, m, 1)
	newChunkd(t, m, 2)
	return m, newMount(t, m)
}

// BenchmarkMake is the latency of one mount that makes one file after the other.
func BenchmarkMake(b *testing.B) {
	_, mt := benchMaster(b)
	for i := 0; b.Loop(); i++ {
		mt.must(&wire.Make{Parent: inode.Root, Name: fmt.Sprint("f", i), What: inode.File, Open: true, Lease: true}, &wire.EntryReply{})
	}
}

// BenchmarkMakePipelined is the throughput of a mount with 64 requests under way.
func BenchmarkMakePipelined(b *testing.B) {
	_, mt := benchMaster(b)
	room := make(chan struct{}, 64)
	for i := 0; b.Loop(); i++ {
		req := &wire.Make{Parent: inode.Root, Name: fmt.Sprint("f", i), What: inode.File, Open: true, Lease: true}
		mt.number(req)
		room <- struct{}{}
		mt.conn.Start(req, nil, func(r *link.Reply) { r.Free(); <-room })
	}
}

// BenchmarkLookup is the latency of a lookup of a file with a chunk.
func BenchmarkLookup(b *testing.B) {
	_, mt := benchMaster(b)
	ino, loc := mt.create("f")
	mt.finish(ino, loc, 5)
	for b.Loop() {
		mt.must(&wire.Lookup{Parent: inode.Root, Name: "f"}, &wire.EntryReply{})
	}
}

// BenchmarkLookupPipelined is the throughput of lookups.
func BenchmarkLookupPipelined(b *testing.B) {
	_, mt := benchMaster(b)
	ino, loc := mt.create("f")
	mt.finish(ino, loc, 5)
	var n atomic.Int64
	room := make(chan struct{}, 64)
	for b.Loop() {
		room <- struct{}{}
		mt.conn.Start(&wire.Lookup{Parent: inode.Root, Name: "f"}, nil, func(r *link.Reply) { n.Add(1); r.Free(); <-room })
	}
}
