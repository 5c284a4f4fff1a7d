package client

import (
	"testing"

	"github.com/varvefs/varve/chunk"
)

// TestGrownBlocks: what is foreseen here is what the master counts, write for write.
func TestGrownBlocks(t *testing.T) {
	cl := startCluster(t, 1, false)
	k := &slowKernel{}
	a := cl.connect(func(c *Config) { c.Notify = k })
	for _, offs := range [][]int64{
		{0, 100, 4096, 5000, 1 << 20},
		{0, 3 * chunk.Size, 3*chunk.Size + 7000, 10*chunk.Size + 5},
		{chunk.Size - 50, chunk.Size + 4000, 5 * chunk.Size},
		{511, 3*chunk.Size - 100, 3 * chunk.Size, 7*chunk.Size - 99},
	} {
		f := create(t, a, "x")
		for i, off := range offs {
			write(t, f, pattern(100, uint64(i)), off)
			foreseen := attr(t, a, f.Ino()).Blocks
			if err := f.Sync(bg, false); err != nil {
				t.Fatal(err)
			}
			if got := attr(t, a, f.Ino()).Blocks; foreseen != got {
				t.Errorf("write %d of %v: %d blocks foreseen, the master counts %d", i, offs, foreseen, got)
			}
		}
		told := k.attrs.Load()
		write(t, f, []byte("x"), 10*chunk.Size+4096)
		if err := f.Sync(bg, false); err != nil {
			t.Fatal(err)
		}
		before := attr(t, a, f.Ino()).Blocks
		write(t, f, []byte("x"), 8*chunk.Size+5)
		if err := f.Sync(bg, false); err != nil {
			t.Fatal(err)
		}
		if after := attr(t, a, f.Ino()).Blocks; after != before+chunk.Size/512 {
			t.Errorf("%v: %d blocks after a chunk in a hole, %d before", offs, after, before)
		}
		eventually(t, "the kernel is told of the hole that was filled", func() bool { return k.attrs.Load() > told })
		f.Close()
		if err := a.Remove(bg, a.Root(), "x", false); err != nil {
			t.Fatal(err)
		}
	}
}
