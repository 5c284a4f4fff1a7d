package enginetest

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/engine"
)

// testLend: what is lent reads the same bytes, now and after later writes, writes nothing and
// stays good when the file is closed.
func testLend(t *testing.T, p Place) {
	d := open(t, p)
	must(t, create(t, d, "before", 64<<10).Close()) // so that a device's file does not start at 0
	f := create(t, d, "lent", 64<<10)
	lender, ok := f.(engine.Lender)
	if !ok {
		t.Skip("this backend lends nothing")
	}
	must(t, engine.Do(f, engine.WriteSync, pattern(8192, 4096, 1), 4096))
	fd, base, err := lender.Lend()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this backend lends nothing")
	}
	must(t, err)
	defer unix.Close(fd)
	same := func(off int64, want []byte) {
		t.Helper()
		got := engine.Alloc(len(want))
		defer engine.Free(got)
		if n, err := unix.Pread(fd, got, base+off); n != len(got) || err != nil || !bytes.Equal(got, want) {
			t.Errorf("what is lent at %d: %d bytes, %v, the same: %t", off, n, err, bytes.Equal(got, want))
		}
	}
	same(4096, pattern(8192, 4096, 1))
	must(t, engine.Do(f, engine.WriteSync, pattern(4096, 8192, 2), 8192))
	same(8192, pattern(4096, 8192, 2))
	if _, err := unix.Pwrite(fd, pattern(4096, 0, 3), base); err == nil {
		t.Error("what is lent can be written to")
	}
	must(t, f.Close())
	same(4096, pattern(4096, 4096, 1))
	if _, _, err := lender.Lend(); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("a closed file is lent: %v", err)
	}
}
