package buffer

import (
	"runtime"
	"sync"
	"testing"
	"unsafe"
)

func TestGet(t *testing.T) {
	for _, n := range []int{1, 255, 256, 257, 2048, 2049, 4095, 4096, 4097, 20000, 64 << 10, 1<<20 + 4096, 16 << 20, 16<<20 + 1, 20 << 20} {
		for range 3 {
			b := Get(n)
			if len(b) != n {
				t.Fatalf("Get(%d) has length %d", n, len(b))
			}
			if full := b[:cap(b)]; n > Align/2 && !Aligned(full) {
				t.Fatalf("Get(%d) begins at %p, capacity %d", n, full, cap(b))
			}
			if n >= 5*Align && cap(b) > n+n/4+Align {
				t.Errorf("Get(%d) takes %d bytes", n, cap(b))
			}
			if !Put(b[:1]) {
				t.Errorf("a buffer for %d bytes was not taken back", n)
			}
		}
	}
	if Get(0) != nil || !Put(nil) {
		t.Error("no bytes need no buffer")
	}
}

// TestClasses walks all sizes: classes grow, hold what they must, and are found again by
// their own size, as Put does.
func TestClasses(t *testing.T) {
	last := 0
	for n := 1; n <= maxPooled; n += 1 + min(n, Align/2) {
		i, size := class(n)
		if size < n || i < last || i > last+1 || i >= len(pools) {
			t.Fatalf("class(%d) is %d of %d bytes after class %d", n, i, size, last)
		}
		if j, again := class(size); j != i || again != size {
			t.Fatalf("class(%d) is %d of %d bytes, but class(%d) is %d of %d", n, i, size, size, j, again)
		}
		last = i
	}
}

func TestPutRefusesStrangers(t *testing.T) {
	for name, b := range map[string][]byte{
		"not aligned":             Get(8192)[100:],
		"of no class's size":      Get(8 * Align)[Align : 2*Align : 6*Align+1],
		"of 4096 bytes somewhere": make([]byte, 8192)[1:4097:4097],
	} {
		if Put(b) {
			t.Errorf("a buffer that is %s was taken", name)
		}
	}
}

func TestHeapAligns(t *testing.T) {
	for range 50 {
		for _, n := range []int{4096, 8192, 12288, 20480} {
			if b := heap(n); !Aligned(b) || len(b) != n || cap(b) != n {
				t.Fatalf("heap(%d): length %d, cap %d, aligned %v", n, len(b), cap(b), Aligned(b))
			}
		}
	}
}

// TestBlocks: blocks are whole huge pages and waste little, and the buffers of one do not overlap.
func TestBlocks(t *testing.T) {
	for n := hugeFrom; n <= maxPooled; {
		i, size := class(n)
		b := blockFor(size)
		if b%hugePage != 0 || b < size || b%size > b/8 || b > 4*max(size, hugePage) {
			t.Errorf("a block of %d bytes for buffers of %d", b, size)
		}
		seen := map[*byte]bool{}
		for p := unsafe.SliceData(carve(i, size)); p != nil; p, _ = pools[i].Get().(*byte) {
			if seen[p] || uintptr(unsafe.Pointer(p))%Align != 0 {
				t.Fatalf("buffer of %d bytes at %p, before: %v", size, p, seen[p])
			}
			seen[p] = true
		}
		n = size + 1
	}
}

// TestApart: nobody is given what somebody else holds.
func TestApart(t *testing.T) {
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 500 {
				b := Get(1 + i%9*Align)
				for j := 0; j < len(b); j += Align {
					b[j] = byte(g)
				}
				runtime.Gosched()
				for j := 0; j < len(b); j += Align {
					if b[j] != byte(g) {
						t.Error("a buffer was given out twice")
						return
					}
				}
				Put(b)
			}
		}()
	}
	wg.Wait()
}

func BenchmarkGet(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Put(Get(64 << 10))
	}
}
