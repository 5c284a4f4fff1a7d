package blocking

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestWriteSync(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := bytes.Repeat([]byte("varve"), 1000)
	if n, err := WriteSync(int(f.Fd()), want, 3); n != len(want) || err != nil {
		t.Fatalf("%d bytes written: %v", n, err)
	}
	if err := Datasync(int(f.Fd())); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(got, append(make([]byte, 3), want...)) {
		t.Errorf("read back %d bytes: %v", len(got), err)
	}
	if _, err := WriteSync(-1, want, 0); err != unix.EBADF {
		t.Errorf("no file: %v", err)
	}
	if err := Datasync(-1); err != unix.EBADF {
		t.Errorf("no file: %v", err)
	}
	if n := testing.AllocsPerRun(10, func() { WriteSync(int(f.Fd()), want[:1], 0) }); n != 0 {
		t.Errorf("a write allocates %v times", n)
	}
}

// The only processor is free while a call sleeps: for the one who ends the sleep, for one
// who needs a larger stack, and for the collector.
func TestProcessorIsFree(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for i := range byte(100) {
		go func() {
			runtime.GC()
			if _, err := w.Write([]byte{i + deep(1000)}); err != nil {
				t.Error(err)
			}
		}()
		var b [1]byte
		n, _, errno := syscall6(unix.SYS_READ, r.Fd(), uintptr(unsafe.Pointer(&b)), 1, 0, 0, 0)
		if n != 1 || errno != 0 || b[0] != i {
			t.Fatalf("read %d bytes, %d: %v", n, b[0], errno)
		}
	}
}

// deep needs much stack, and is 0.
//
//go:noinline
func deep(n int) byte {
	var b [64]byte
	if n == 0 {
		return 0
	}
	b[n%64] = deep(n - 1)
	return b[(n+1)%64] + b[n%64]
}
