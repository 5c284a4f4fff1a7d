package link

import (
	"math/bits"
	"sync"
	"unsafe"
)

// Buffers come in powers of two from 256 bytes to 8 MiB (a header with the
// largest body). They are ordinary Go memory: one that is not given back is
// collected, so forgetting to free costs time and never correctness.
const (
	minClass = 8
	maxClass = 23
	align    = 4096
)

var pools [maxClass + 1]sync.Pool

func class(n int) int { return max(minClass, bits.Len(uint(n-1))) }

// alloc returns n bytes with undefined content. From 4096 bytes on they begin
// at a multiple of 4096 and have room up to the next such multiple, so that
// they can go to a disk as they are.
func alloc(n int) []byte {
	if n == 0 {
		return nil
	}
	k := class(n)
	if n > align/2 {
		k = max(k, 12)
	}
	if p, ok := pools[k].Get().(*byte); ok {
		return unsafe.Slice(p, 1<<k)[:n]
	}
	b := make([]byte, 1<<k)
	if k >= 12 && uintptr(unsafe.Pointer(&b[0]))%align != 0 {
		// The allocator of today's Go aligns these classes; another might not.
		b = make([]byte, 1<<k+align)
		skip := align - int(uintptr(unsafe.Pointer(&b[0]))%align)
		b = b[skip : skip+1<<k : skip+1<<k]
	}
	return b[:n]
}

// free gives a buffer of alloc back; others (grown by append) are left to the
// collector.
func free(b []byte) {
	c := cap(b)
	if c < 1<<minClass || c > 1<<maxClass || c&(c-1) != 0 {
		return
	}
	k := bits.Len(uint(c)) - 1
	p := unsafe.SliceData(b)
	if k >= 12 && uintptr(unsafe.Pointer(p))%align != 0 {
		return
	}
	pools[k].Put(p)
}
