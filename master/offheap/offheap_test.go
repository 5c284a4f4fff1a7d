package offheap

import (
	"bytes"
	"testing"
)

// TestGet: blocks are full of zeros and no two share a byte.
func TestGet(t *testing.T) {
	var m [3]Memory
	zeros := make([]byte, Block)
	var all [][]byte
	for i := range 30 {
		b := m[i%len(m)].Get()
		if len(b) != Block || !bytes.Equal(b, zeros) {
			t.Fatalf("block %d of %d bytes is not empty", i, len(b))
		}
		for k := range b {
			b[k] = byte(i + 1)
		}
		all = append(all, b)
	}
	for i, b := range all {
		if b[0] != byte(i+1) || b[Block-1] != byte(i+1) {
			t.Fatalf("block %d was overwritten", i)
		}
	}
	for i := range m {
		if n := len(m[i].blocks.list); n != 10 {
			t.Fatalf("%d blocks", n)
		}
	}
}
