package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestProgressLine(t *testing.T) {
	half := func() (done, whole uint64) { return 15, 30 }
	for _, c := range []struct {
		part func() (done, whole uint64)
		want string
	}{
		{nil, "checking: 12s"},
		{func() (done, whole uint64) { return 0, 0 }, "checking: 12s"},
		{func() (done, whole uint64) { return 0, 9 }, "checking: [" + strings.Repeat(" ", 30) + "]   0 %"},
		{half, "checking: [" + strings.Repeat("=", 15) + strings.Repeat(" ", 15) + "]  50 %, 12s left"},
		{func() (done, whole uint64) { return 9, 9 }, "checking: [" + strings.Repeat("=", 30) + "] 100 %, 0s left"},
	} {
		if got := progressLine("checking", 12*time.Second, c.part); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// openTerminal makes a terminal: what is written to tty is read from pty.
func openTerminal(t *testing.T) (pty, tty *os.File) {
	t.Helper()
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal can be made: %v", err)
	}
	t.Cleanup(func() { pty.Close() })
	n, err := unix.IoctlGetInt(int(pty.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(pty.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Skipf("no terminal can be made: %v", err)
	}
	t.Cleanup(func() { tty.Close() })
	return pty, tty
}

// A terminal sees the line, and an empty one in the end; a file sees nothing.
func TestProgressOnTerminal(t *testing.T) {
	pty, tty := openTerminal(t)
	end := progressOn(tty, time.Millisecond, "checking", nil)
	var got []byte
	for b := make([]byte, 256); !bytes.Contains(got, []byte("checking: 0s")); {
		n, err := pty.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, b[:n]...)
	}
	end()
	for b := make([]byte, 256); !bytes.HasSuffix(got, []byte("\r\x1b[K")); {
		n, err := pty.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, b[:n]...)
	}

	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	seen := make(chan struct{}, 1)
	progressOn(file, 0, "checking", func() (done, whole uint64) { seen <- struct{}{}; return 0, 0 })()
	if st, err := file.Stat(); err != nil || st.Size() != 0 || len(seen) > 0 {
		t.Errorf("a file has %d bytes, %v", st.Size(), err)
	}
}
