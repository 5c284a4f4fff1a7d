// Package buffer is the memory that goes over sockets and to disks: buffers of some
// sizes that are used again and again. engine and link call it, so that what was read
// from a socket can go to a disk as it is. It owns the buffers that nobody has.
//
// Buffers come from the Go heap, which never moves them: one that is lost on some
// error path is collected instead of leaked, and the pools shrink by themselves under
// the garbage collector. To forget Put costs time and never correctness.
package buffer

import (
	"math/bits"
	"sync"
	"unsafe"
)

// Align is what addresses and lengths of direct I/O are multiples of, bytes.
const Align = 4096

// Sizes are the powers of two from 256 bytes to half a page, and from a page on four
// per doubling: no more than a quarter of a buffer is wasted.
const (
	alignBits  = 12
	smallBits  = 8 // of the smallest size
	smalls     = alignBits - smallBits
	classSteps = 4
	maxPooled  = 16 << 20 // bytes; anything larger goes back to the heap
)

var pools [smalls + classSteps*13]sync.Pool // of *byte, the first byte of a free buffer

// class returns the size class that holds n bytes, n > 0, and the size of that class.
func class(n int) (index, size int) {
	if n <= Align/2 {
		k := max(bits.Len(uint(n-1)), smallBits)
		return k - smallBits, 1 << k
	}
	pages := (n + Align - 1) >> alignBits
	if pages <= classSteps {
		return smalls + pages - 1, pages << alignBits
	}
	shift := bits.Len(uint(pages-1)) - 3 // pages-1 has its three top bits above shift
	steps := (pages-1)>>shift + 1        // 5..8
	return smalls + shift*classSteps + steps - 1, steps << (shift + alignBits)
}

// Get returns n bytes of undefined content: they may have been somebody's before. Above
// half a page they begin at a multiple of Align, and the capacity is one. Get(0) is nil.
func Get(n int) []byte {
	if n == 0 {
		return nil
	}
	if n > maxPooled {
		return heap((n + Align - 1) &^ (Align - 1))[:n]
	}
	i, size := class(n)
	if size >= hugeFrom {
		given.Add(uint64(size))
	}
	if p, _ := pools[i].Get().(*byte); p != nil {
		return unsafe.Slice(p, size)[:n]
	}
	if size >= hugeFrom {
		return carve(i, size)[:n:size]
	}
	return heap(size)[:n]
}

// Put gives a buffer of Get back, which may have been shortened but must start where it
// started. Nobody may touch it any more. It reports whether the buffer can be one of
// Get's; another, as one that append has moved, is left to the collector.
func Put(b []byte) bool {
	if cap(b) == 0 {
		return true
	}
	b = b[:cap(b)]
	if len(b) > maxPooled {
		return Aligned(b)
	}
	i, size := class(len(b))
	if size != len(b) || size >= Align && !Aligned(b) {
		return false
	}
	poison(b)
	pools[i].Put(unsafe.SliceData(b))
	return true
}

// Aligned reports whether address and length of b suit direct I/O.
func Aligned(b []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))&(Align-1) == 0 && len(b)&(Align-1) == 0
}

// heap makes a new buffer, from a page on aligned. The allocator happens to align such
// sizes; that is not promised, so it is checked.
func heap(n int) []byte {
	b := make([]byte, n)
	if n < Align || Aligned(b) {
		return b
	}
	b = make([]byte, n+Align)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (Align - 1)
	return b[skip : skip+n : skip+n]
}
