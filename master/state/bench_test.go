package state

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/varvefs/varve/inode"
)

// benchName is what most names are like: 13 bytes.
func benchName(i int) string { return fmt.Sprintf("file-%08d", i) }

// heap is the memory in use, bytes.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkCreate makes files with one leased chunk and commits them.
func BenchmarkCreate(b *testing.B) {
	names := make([]string, b.N)
	for i := range names {
		names[i] = benchName(i)
	}
	before := heap()
	s := New(1)
	ses := s.Apply(&Entry{Time: 1, Op: &SessionOpen{}}).Session
	dir := inode.Root
	seq := uint64(0)
	apply := func(op Op) Result {
		seq++
		r := s.Apply(&Entry{Time: int64(seq), Session: ses, Seq: seq, Done: seq - 1, Op: op})
		if r.Code != 0 {
			b.Fatal(r.Code)
		}
		return r
	}
	mk := &Make{What: inode.File, Mode: 0o644, Hold: true, Lease: true}
	files := []CommitFile{{Size: 4096, Mtime: 5, Ended: []LeaseEnd{{Version: 1, Written: true}}}}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%1000 == 0 {
			dir = apply(&Make{Parent: inode.Root, Name: "d" + names[i], What: inode.Dir, Mode: 0o755}).Ino
		}
		mk.Parent, mk.Name = dir, names[i]
		r := apply(mk)
		files[0].Ino, files[0].Ended[0].Chunk = r.Ino, r.Chunks[0].ID
		if r := apply(&Commit{Files: files}); r.Codes != nil {
			b.Fatal(r.Codes)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(heap()-before)/float64(b.N), "B/file")
	runtime.KeepAlive(names)
	runtime.KeepAlive(s)
}

// BenchmarkMake makes empty files in one directory: the bare cost of a name.
func BenchmarkMake(b *testing.B) {
	names := make([]string, b.N)
	for i := range names {
		names[i] = benchName(i)
	}
	s := New(1)
	mk := &Make{Parent: inode.Root, What: inode.File, Mode: 0o644}
	e := &Entry{Op: mk}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		mk.Name = names[i]
		e.Time = int64(i)
		if r := s.Apply(e); r.Code != 0 {
			b.Fatal(r.Code)
		}
	}
}

// BenchmarkLookup finds names of a million in random order.
func BenchmarkLookup(b *testing.B) {
	const n = 1 << 20
	s := New(1)
	names := make([]string, n)
	for i := range names {
		names[i] = benchName(i)
		s.Apply(&Entry{Op: &Make{Parent: inode.Root, Name: names[i], What: inode.File}})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, ok := s.Lookup(inode.Root, names[i*7919&(n-1)]); !ok {
			b.Fatal("not found")
		}
	}
}

// BenchmarkRemove makes and removes a file.
func BenchmarkRemove(b *testing.B) {
	s := New(1)
	mk := &Make{Parent: inode.Root, Name: "name", What: inode.File}
	rm := &Remove{Parent: inode.Root, Name: "name"}
	b.ReportAllocs()
	for range b.N {
		s.Apply(&Entry{Op: mk})
		s.Apply(&Entry{Op: rm})
	}
}

// BenchmarkEntry encodes and decodes a create.
func BenchmarkEntry(b *testing.B) {
	e := &Entry{Time: 1, Session: 2, Seq: 3, Op: &Make{Parent: inode.Root, Name: benchName(1), What: inode.File}}
	var buf []byte
	b.ReportAllocs()
	for range b.N {
		buf = AppendEntry(buf[:0], e)
		if _, _, err := DecodeEntry(buf); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(buf)))
}
