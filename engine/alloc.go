package engine

import (
	"fmt"
	"math/bits"
	"sync"
	"unsafe"
)

// Buffers come from the Go heap, which never moves them, so that a buffer that is
// lost on some error path is collected instead of leaked, and the pools shrink by
// themselves under the garbage collector. There are four size classes per doubling:
// no more than a quarter of a buffer is wasted.
const (
	alignBits  = 12
	classSteps = 4
	maxPooled  = 8 << 20 // bytes; anything larger goes back to the heap
)

var pools [classSteps * 12]sync.Pool // of *byte, the first byte of a free buffer

// class returns the size class that holds n bytes and the size of that class.
func class(n int) (index, size int) {
	pages := (n + Align - 1) >> alignBits
	if pages <= classSteps {
		return pages - 1, pages << alignBits
	}
	shift := bits.Len(uint(pages-1)) - 3 // pages-1 has its three top bits above shift
	steps := (pages-1)>>shift + 1        // 5..8
	return shift*classSteps + steps - 1, steps << (shift + alignBits)
}

// Alloc returns a buffer whose address is a multiple of Align and whose length is n
// rounded up to a multiple of Align. Its contents are undefined: it may be a buffer
// that was freed. Alloc(0) is nil.
func Alloc(n int) []byte {
	if n <= 0 {
		if n < 0 {
			panic(fmt.Sprintf("BUG: engine.Alloc(%d)", n))
		}
		return nil
	}
	length := (n + Align - 1) &^ (Align - 1)
	if n > maxPooled {
		return heap(length)
	}
	i, size := class(n)
	if p, _ := pools[i].Get().(*byte); p != nil {
		return unsafe.Slice(p, size)[:length]
	}
	return heap(size)[:length]
}

// Free gives a buffer back that came from Alloc. It may have been shortened but must
// start where it started. Nobody may touch it any more. Free(nil) does nothing. To
// forget Free is no leak, only slower.
func Free(b []byte) {
	if cap(b) == 0 {
		return
	}
	b = b[:cap(b)]
	if !Aligned(b) {
		panic(fmt.Sprintf("BUG: engine.Free of %d bytes that are not from Alloc", len(b)))
	}
	poison(b)
	if len(b) > maxPooled {
		return
	}
	i, size := class(len(b))
	if size != len(b) {
		panic(fmt.Sprintf("BUG: engine.Free of %d bytes, which is no size of Alloc", len(b)))
	}
	pools[i].Put(unsafe.SliceData(b))
}

// Aligned reports whether address and length of b suit direct I/O.
func Aligned(b []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))&(Align-1) == 0 && len(b)&(Align-1) == 0
}

// heap makes a new aligned buffer. The allocator happens to align such sizes; that is
// not promised, so it is checked.
func heap(n int) []byte {
	if b := make([]byte, n); Aligned(b) {
		return b
	}
	b := make([]byte, n+Align)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (Align - 1)
	return b[skip : skip+n : skip+n]
}
