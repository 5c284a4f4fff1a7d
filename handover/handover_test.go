package handover

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func desk(t *testing.T) *Desk {
	t.Helper()
	d, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// file makes a promise of descriptors of one file, for reading only.
func file(t *testing.T, d *Desk, n int) Promise {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lent")
	if err := os.WriteFile(path, []byte("what is lent"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := d.Promise(func() (fds []int, err error) {
		for range n {
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fds, err
			}
			fds = append(fds, fd)
		}
		return fds, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTake(t *testing.T) {
	d := desk(t)
	for _, n := range []int{1, 3, MaxFiles} {
		p := file(t, d, n)
		fds, err := Take(context.Background(), p, n)
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			f := os.NewFile(uintptr(fd), "lent")
			b, err := io.ReadAll(f)
			if err != nil || string(b) != "what is lent" {
				t.Errorf("read %q, %v", b, err)
			}
			if _, err := f.WriteString("more"); !errors.Is(err, unix.EBADF) {
				t.Errorf("write to what is lent: %v", err)
			}
			if flags, _ := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
				t.Error("the descriptor outlives exec")
			}
			f.Close()
		}
		if _, err := Take(context.Background(), p, n); err == nil {
			t.Error("a ticket was good twice")
		}
	}
}

// TestStrangers: without the ticket there is nothing, and nobody is held up.
func TestStrangers(t *testing.T) {
	d := desk(t)
	p := file(t, d, 1)
	forged := p
	forged.Ticket[5] ^= 1
	if fds, err := Take(context.Background(), forged, 1); err == nil {
		t.Errorf("a forged ticket brought %v", fds)
	}
	silent, err := net.Dial("unix", p.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	impostor := p
	impostor.Proof[0] ^= 1
	if fds, err := Take(context.Background(), impostor, 1); err == nil || !strings.Contains(err.Error(), "did not promise") {
		t.Errorf("from somebody without the proof: %v, %v", fds, err)
	}
	if _, err := Take(context.Background(), file(t, d, 2), 1); err == nil {
		t.Error("one descriptor too many went unnoticed")
	}
	d.mu.Lock()
	for k, v := range d.promises {
		v.until = time.Now().Add(-time.Second)
		d.promises[k] = v
	}
	d.mu.Unlock()
	if _, err := Take(context.Background(), file(t, d, 1), 1); err != nil {
		t.Errorf("a promise beside a stale one: %v", err)
	}
	for range 2 * ticketsMax {
		if _, err := d.Promise(nil); err != nil {
			return
		}
	}
	t.Error("promises are not bounded")
}

// TestElsewhere: from another network namespace, as of a container, the desk is not there.
func TestElsewhere(t *testing.T) {
	d := desk(t)
	p := file(t, d, 1)
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- errors.ErrUnsupported
			return
		}
		// The socket is made in this thread.
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: p.Socket})
			unix.Close(fd)
		}
		result <- err
	}()
	switch err := <-result; {
	case errors.Is(err, errors.ErrUnsupported):
		t.Skip("no network namespace can be made (needs root)")
	case !errors.Is(err, unix.ECONNREFUSED):
		t.Errorf("connecting from another network namespace: %v", err)
	}
	if fds, err := Take(context.Background(), p, 1); err != nil {
		t.Error(err)
	} else {
		closeAll(fds)
	}
}

// TestOtherUser: a process of another user gets nothing, even with the ticket.
func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to be somebody else")
	}
	d := desk(t)
	p := file(t, d, 1)
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its credentials
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			result <- err
			return
		}
		defer unix.Close(fd)
		// Of this thread alone, which is what the raw call does.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			result <- errno
			return
		}
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: p.Socket}); err == nil {
			_, err = unix.Write(fd, p.Ticket[:])
		}
		if err == nil || errors.Is(err, unix.EPIPE) {
			n := 0
			if n, err = unix.Read(fd, make([]byte, 100)); n > 0 {
				err = errors.New("the proof came")
			}
		}
		result <- err
	}()
	if err := <-result; err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
}
