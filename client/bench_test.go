package client

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/varvefs/varve/wire"
)

// BenchmarkSmallFiles makes, writes and closes files of 4 KiB.
func BenchmarkSmallFiles(b *testing.B) {
	cl := startCluster(b, 3, false)
	c := cl.connect(nil)
	d := mkdir(b, c, c.Root(), "d")
	c.Lookup(bg, d, "x")
	data := pattern(4096, 1)
	var next atomic.Int64
	b.SetBytes(4096)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			name := fmt.Sprintf("f%d", next.Add(1))
			_, f, err := c.Create(bg, wire.Make{Parent: d, Name: name, Mode: 0o644}, syscall.O_WRONLY)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := f.WriteAt(bg, data, 0, WriteFlags{}); err != nil {
				b.Error(err)
			}
			if err := f.Flush(bg); err != nil {
				b.Error(err)
			}
			f.Close()
		}
	})
}

// BenchmarkSmallFileReads opens, reads and closes files of 4 KiB.
func BenchmarkSmallFileReads(b *testing.B) {
	cl := startCluster(b, 3, false)
	c := cl.connect(nil)
	const files = 200
	for i := range files {
		f := create(b, c, fmt.Sprintf("f%d", i))
		write(b, f, pattern(4096, 1), 0)
		f.Close()
	}
	r := cl.connect(nil)
	p := make([]byte, 4096)
	b.SetBytes(4096)
	b.ResetTimer()
	for i := range b.N {
		n, err := r.Lookup(bg, r.Root(), fmt.Sprintf("f%d", i%files))
		if err != nil {
			b.Fatal(err)
		}
		f, err := r.OpenFile(bg, n.Attr.Ino, syscall.O_RDONLY)
		if err != nil {
			b.Fatal(err)
		}
		if k, err := f.ReadAt(bg, p, 0); err != nil || k != 4096 {
			b.Fatal(k, err)
		}
		f.Close()
	}
}

// BenchmarkStreamWrite writes one file in pieces of 1 MiB.
func BenchmarkStreamWrite(b *testing.B) {
	cl := startCluster(b, 3, false)
	c := cl.connect(nil)
	f := create(b, c, "x")
	defer f.Close()
	p := pattern(1<<20, 1)
	b.SetBytes(1 << 20)
	b.ResetTimer()
	for i := range b.N {
		write(b, f, p, int64(i%512)<<20)
	}
	if err := f.Sync(bg, false); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkStreamRead reads one file in pieces of 128 KiB.
func BenchmarkStreamRead(b *testing.B) {
	cl := startCluster(b, 3, false)
	c := cl.connect(nil)
	f := create(b, c, "x")
	const size = 256 << 20
	p := pattern(1<<20, 1)
	for off := int64(0); off < size; off += 1 << 20 {
		write(b, f, p, off)
	}
	f.Close()
	r := cl.connect(func(c *Config) { c.CacheBytes = 64 << 20 })
	g := open(b, r, "x")
	defer g.Close()
	b.SetBytes(128 << 10)
	b.ResetTimer()
	for i := range b.N {
		if _, err := g.ReadAt(bg, p[:128<<10], int64(i)*(128<<10)%size); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSyncedWrites overwrites random blocks of 4 KiB, each made durable.
func BenchmarkSyncedWrites(b *testing.B) {
	cl := startCluster(b, 3, false)
	c := cl.connect(nil)
	f := create(b, c, "x")
	defer f.Close()
	p := pattern(16<<20, 1)
	write(b, f, p, 0)
	if err := f.Sync(bg, false); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		write(b, f, p[:4096], int64(rand.IntN(4096))*4096)
		if err := f.Sync(bg, true); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRandomWrites overwrites random blocks of 4 KiB.
func BenchmarkRandomWrites(b *testing.B) {
	cl := startCluster(b, 3, false)
	c := cl.connect(nil)
	f := create(b, c, "x")
	defer f.Close()
	p := pattern(32<<20, 1)
	write(b, f, p, 0)
	b.SetBytes(4096)
	b.ResetTimer()
	for range b.N {
		write(b, f, p[:4096], int64(rand.IntN(8192))*4096)
	}
	if err := f.Sync(bg, false); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRandomReads reads random blocks of 4 KiB.
func BenchmarkRandomReads(b *testing.B) {
	cl := startCluster(b, 3, false)
	c := cl.connect(nil)
	f := create(b, c, "x")
	write(b, f, pattern(32<<20, 1), 0)
	if err := f.Sync(bg, false); err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	b.SetBytes(4096)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		p := make([]byte, 4096)
		for pb.Next() {
			if _, err := f.ReadAt(bg, p, int64(rand.IntN(8192))*4096); err != nil {
				b.Error(err)
			}
		}
	})
}
