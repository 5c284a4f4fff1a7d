// Package offheap gives memory that the garbage collector does not know of, for
// the tables of master/state and master/placement: neither is it scanned, nor does
// it count for the size at which the next collection begins, which would double
// what a large tree takes.
//
// A Memory is owned by one State (with its views) or Placement, and used by its
// goroutine alone; it goes when its owner cannot be reached any more. All of them
// share one block that is ready before it is asked for, which a goroutine made.
package offheap

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Memory is a set of blocks. The zero value has none.
type Memory struct{ blocks *blocks }

// blocks is what outlives a Memory until it is unmapped.
type blocks struct{ list [][]byte }

// Block is the size of a block, bytes: a large page of most processors.
const Block = 2 << 20

// linger is how long a block is kept when nobody can reach its Memory any more:
// a call that was the last to hold the owner may still be reading a record.
const linger = 10 * time.Second

// Get gives a block, filled with zeros. No memory is fatal, as everywhere in Go.
func (m *Memory) Get() []byte {
	var b []byte
	select {
	case b = <-spare:
	default:
		b = obtain()
	}
	if filling.CompareAndSwap(false, true) {
		go fill()
	}
	if m.blocks == nil {
		m.blocks = &blocks{}
		runtime.AddCleanup(m, release, m.blocks)
	}
	m.blocks.list = append(m.blocks.list, b)
	return b
}

// spare is a block whose memory the kernel has given already. Giving and clearing
// it takes a millisecond or two, which the owner of a growing table, who serves
// others or reads an image, does better things with.
var (
	spare   = make(chan []byte, 1)
	filling atomic.Bool // somebody makes a spare
)

func fill() {
	defer filling.Store(false)
	if len(spare) > 0 {
		return
	}
	b := obtain()
	// Where the kernel does not know this, memory comes when it is touched.
	_ = unix.Madvise(b, unix.MADV_POPULATE_WRITE)
	spare <- b // there is room: nobody else fills it
}

// obtain maps a block.
func obtain() []byte {
	b, err := unix.Mmap(-1, 0, Block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(fmt.Sprintf("out of memory: mmap of %d bytes: %v", Block, err))
	}
	// Records are read in random order: large pages save the processor's look-ups.
	// Where the kernel has none it goes without.
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	return b
}

func release(b *blocks) {
	time.AfterFunc(linger, func() {
		for _, m := range b.list {
			unix.Munmap(m)
		}
	})
}

// Cut makes a block an array of T, which must have no pointers.
func Cut[T any](b []byte) []T {
	var zero T
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), len(b)/int(unsafe.Sizeof(zero)))
}

// Bytes shows records without pointers as the bytes that they are.
func Bytes[T any](records []T) []byte {
	var zero T
	if len(records) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&records[0])), len(records)*int(unsafe.Sizeof(zero)))
}

// LittleEndian tells whether this processor keeps numbers as files have them.
var LittleEndian = func() bool {
	n := [1]uint16{1}
	return Bytes(n[:])[0] == 1
}()
