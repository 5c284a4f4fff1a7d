package engine

import (
	"fmt"

	"github.com/varvefs/varve/buffer"
)

// Alloc returns a buffer whose address is a multiple of Align and whose length is n
// rounded up to a multiple of Align. Its contents are undefined: it may be a buffer
// that was freed. Alloc(0) is nil.
func Alloc(n int) []byte {
	if n < 0 {
		panic(fmt.Sprintf("BUG: engine.Alloc(%d)", n))
	}
	return buffer.Get((n + Align - 1) &^ (Align - 1))
}

// Free gives a buffer back that came from Alloc. It may have been shortened but must
// start where it started. Nobody may touch it any more. Free(nil) does nothing. To
// forget Free is no leak, only slower.
func Free(b []byte) {
	if !buffer.Put(b) {
		panic(fmt.Sprintf("BUG: engine.Free of %d bytes that are not from Alloc", cap(b)))
	}
}

// Aligned reports whether address and length of b suit direct I/O.
func Aligned(b []byte) bool { return buffer.Aligned(b) }
