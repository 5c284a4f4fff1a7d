package buffer

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Buffers of hugeFrom bytes and more are cut from blocks of the kernel's huge pages.
// A disk is given each page of a buffer by its address: 257 of them for a MiB behind
// its header, which is more than many disks take in one request, or one or two. The
// kernel has to pin, unpin and map as many. Where it has no huge pages, or may not use
// them (transparent_hugepage is never), a block is memory as any other.
const (
	hugePage = 2 << 20
	hugeFrom = 64 << 10
)

// blockFor returns the size of a block for buffers of size bytes: whole pages, of which
// at most an eighth is left over.
func blockFor(size int) int {
	for n := hugePage; ; n += hugePage {
		if n >= size && n%size <= n/8 {
			return n
		}
	}
}

// carve makes a block for class i, of buffers of size bytes, and returns one; the others
// wait in the pool. Any of them keeps the whole block from the collector.
func carve(i, size int) []byte {
	n := blockFor(size)
	b := make([]byte, n+hugePage) // the rest is never used: the heap gives no such alignment
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (hugePage - 1)
	b = b[skip : skip+n]
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // an old kernel, or one without: no harm
	for off := size; off+size <= n; off += size {
		pools[i].Put(&b[off])
	}
	return b[:size]
}
