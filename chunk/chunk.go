// Package chunk holds the nouns of stored data: what a chunk is called, how
// large it is, how its copies are versioned and how its bytes are summed.
//
// Everybody imports it; it imports nobody and owns no state.
package chunk

import (
	"fmt"
	"hash/crc32"
)

// Geometry. A file is cut into chunks of Size bytes; checksums cover the bytes
// of one Block of a chunk. Offsets and lengths inside a chunk fit in uint32.
const (
	Size   = 64 << 20
	Block  = 4096
	Blocks = Size / Block
)

// ID names a chunk in the whole cluster. 0 means "no chunk" (a hole).
type ID uint64

// Version is the generation of a chunk's copies. The master raises it whenever
// it grants a write lease or drops a copy, so that a copy that missed a write
// is recognised by its lower version. A new chunk starts at 1.
type Version uint32

// Server is the identity that a chunkserver keeps on its disks for life.
type Server uint64

func (id ID) String() string     { return fmt.Sprintf("%016x", uint64(id)) }
func (s Server) String() string  { return fmt.Sprintf("%016x", uint64(s)) }
func (v Version) String() string { return fmt.Sprintf("%d", uint32(v)) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum is the CRC32C (Castagnoli polynomial, RFC 3720 section 12.1) of b.
func Sum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// SumUpdate continues a CRC32C over b.
func SumUpdate(sum uint32, b []byte) uint32 { return crc32.Update(sum, castagnoli, b) }

// Pieces is the number of checksum pieces of n bytes at chunk offset off. Pieces
// are cut at multiples of Block in the chunk: the first and the last may be
// shorter than a Block.
func Pieces(off, n uint32) int {
	if n == 0 {
		return 0
	}
	return int((off+n-1)/Block-off/Block) + 1
}

// AppendSums appends the CRC32C of each piece of b, which lies at chunk offset off.
func AppendSums(dst []uint32, off uint32, b []byte) []uint32 {
	for len(b) > 0 {
		n := min(int(Block-off%Block), len(b))
		dst = append(dst, Sum(b[:n]))
		b = b[n:]
		off += uint32(n)
	}
	return dst
}

// Verify returns the index of the first piece of b (at chunk offset off) whose
// CRC32C is not the one in sums, or -1. A wrong number of sums is piece 0.
func Verify(sums []uint32, off uint32, b []byte) int {
	if len(sums) != Pieces(off, uint32(len(b))) {
		return 0
	}
	for i := 0; len(b) > 0; i++ {
		n := min(int(Block-off%Block), len(b))
		if Sum(b[:n]) != sums[i] {
			return i
		}
		b = b[n:]
		off += uint32(n)
	}
	return -1
}
