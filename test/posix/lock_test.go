package posix_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/test/rig"
)

func flock(f *os.File, how int) error { return unix.Flock(int(f.Fd()), how) }

func testFlock(t *testing.T, p pair) {
	a, b := p.at("file")
	fa, fb := open(t, a, os.O_RDWR|os.O_CREATE), open(t, b, os.O_RDWR)
	must(t, flock(fa, unix.LOCK_EX|unix.LOCK_NB))
	want(t, "while it is held", flock(fb, unix.LOCK_SH|unix.LOCK_NB), error(unix.EWOULDBLOCK))
	must(t, flock(fa, unix.LOCK_SH|unix.LOCK_NB))
	must(t, flock(fb, unix.LOCK_SH|unix.LOCK_NB))
	want(t, "while it is shared", flock(fb, unix.LOCK_EX|unix.LOCK_NB), error(unix.EWOULDBLOCK))
	must(t, flock(fa, unix.LOCK_UN))
	must(t, flock(fb, unix.LOCK_EX|unix.LOCK_NB))
	// The end of the open file ends the lock. It is told behind close(2).
	fb.Close()
	rig.Eventually(t, "the lock of a closed file ends", func() bool {
		return flock(fa, unix.LOCK_EX|unix.LOCK_NB) == nil
	})
	// On one mount even at once.
	f2 := open(t, a, os.O_RDWR)
	for range 50 {
		fa.Close()
		must(t, flock(f2, unix.LOCK_EX|unix.LOCK_NB))
		fa, f2 = f2, open(t, a, os.O_RDWR)
	}
}

// record makes a lock of fcntl(2).
func record(kind int16, start, length int64) *unix.Flock_t {
	return &unix.Flock_t{Type: kind, Start: start, Len: length}
}

func fcntl(f *os.File, cmd int, l *unix.Flock_t) error { return unix.FcntlFlock(f.Fd(), cmd, l) }

func testRecordLocks(t *testing.T, p pair) {
	a, b := p.at("file")
	fa, fb := open(t, a, os.O_RDWR|os.O_CREATE), open(t, b, os.O_RDWR)
	must(t, fcntl(fa, unix.F_SETLK, record(unix.F_WRLCK, 10, 10)))
	want(t, "overlapping", fcntl(fb, unix.F_SETLK, record(unix.F_RDLCK, 15, 100)), error(unix.EAGAIN))
	must(t, fcntl(fb, unix.F_SETLK, record(unix.F_WRLCK, 20, 0)))
	who := record(unix.F_WRLCK, 0, 0)
	must(t, fcntl(fb, unix.F_GETLK, who))
	if who.Type != unix.F_WRLCK || who.Start != 10 || who.Len != 10 {
		t.Errorf("in the way: %+v", who)
	}
	// A piece out of the middle is free again.
	must(t, fcntl(fa, unix.F_SETLK, record(unix.F_UNLCK, 12, 3)))
	must(t, fcntl(fb, unix.F_SETLK, record(unix.F_WRLCK, 12, 3)))
	who = record(unix.F_WRLCK, 12, 3)
	must(t, fcntl(fa, unix.F_GETLK, who))
	want(t, "in the way", who.Type, unix.F_WRLCK)
	// Any close of the file by the process frees all its locks there.
	other := open(t, a, os.O_RDONLY)
	other.Close()
	must(t, fcntl(fb, unix.F_SETLK, record(unix.F_WRLCK, 0, 0)))
	who = record(unix.F_WRLCK, 0, 0)
	must(t, fcntl(fb, unix.F_GETLK, who))
	want(t, "own locks are not in the way", who.Type, unix.F_UNLCK)
}

func testOFDLocks(t *testing.T, p pair) {
	a, b := p.at("file")
	fa, fb := open(t, a, os.O_RDWR|os.O_CREATE), open(t, b, os.O_RDWR)
	fa2 := open(t, a, os.O_RDWR)
	must(t, fcntl(fa, unix.F_OFD_SETLK, record(unix.F_WRLCK, 0, 10)))
	want(t, "another open file", fcntl(fa2, unix.F_OFD_SETLK, record(unix.F_WRLCK, 5, 1)), error(unix.EAGAIN))
	want(t, "the other mount", fcntl(fb, unix.F_OFD_SETLK, record(unix.F_WRLCK, 5, 1)), error(unix.EAGAIN))
	// A record lock's rule does not hold for them: another close frees nothing.
	fa2.Close()
	want(t, "after another close", fcntl(fb, unix.F_OFD_SETLK, record(unix.F_WRLCK, 5, 1)), error(unix.EAGAIN))
	fa.Close()
	rig.Eventually(t, "the lock of a closed file ends", func() bool {
		return fcntl(fb, unix.F_OFD_SETLK, record(unix.F_WRLCK, 5, 1)) == nil
	})
}

// testLockCounter: eight programs on two mounts count under a lock.
func testLockCounter(t *testing.T, p pair) {
	const workers = 8
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	for what, lock := range map[string]func(f *os.File, on bool) error{
		"flock": func(f *os.File, on bool) error {
			if on {
				return flock(f, unix.LOCK_EX)
			}
			return flock(f, unix.LOCK_UN)
		},
		"OFD": func(f *os.File, on bool) error {
			if on {
				return fcntl(f, unix.F_OFD_SETLKW, record(unix.F_WRLCK, 0, 0))
			}
			return fcntl(f, unix.F_OFD_SETLK, record(unix.F_UNLCK, 0, 0))
		},
	} {
		a, b := p.at("counter-" + what)
		write(t, a, "0")
		var all sync.WaitGroup
		errs := make(chan error, workers)
		for w := range workers {
			path := a
			if w%2 == 1 {
				path = b
			}
			all.Go(func() { errs <- count(path, rounds, lock) })
		}
		all.Wait()
		close(errs)
		for err := range errs {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		wantText(t, a, strconv.Itoa(workers*rounds))
		wantText(t, b, strconv.Itoa(workers*rounds))
	}
}

// count adds one to the number in a file again and again.
func count(path string, rounds int, lock func(f *os.File, on bool) error) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 20)
	for range rounds {
		for err = lock(f, true); err == unix.EINTR; err = lock(f, true) {
			// The Go runtime's own signals interrupt a wait.
		}
		if err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		n, _ := f.ReadAt(buf, 0)
		have, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
		if err != nil {
			return err
		}
		if _, err := f.WriteAt([]byte(strconv.Itoa(have+1)), 0); err != nil {
			return err
		}
		if err := lock(f, false); err != nil {
			return fmt.Errorf("unlock: %w", err)
		}
	}
	return nil
}

// A lock that somebody waits for goes to him when it is freed on the other mount.
func testLockWait(t *testing.T, p pair) {
	a, b := p.at("file")
	fa, fb := open(t, a, os.O_RDWR|os.O_CREATE), open(t, b, os.O_RDWR)
	must(t, flock(fa, unix.LOCK_EX))
	got := make(chan error, 1)
	go func() {
		err := flock(fb, unix.LOCK_EX)
		for err == unix.EINTR {
			err = flock(fb, unix.LOCK_EX)
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("two hold it: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	must(t, flock(fa, unix.LOCK_UN))
	select {
	case err := <-got:
		must(t, err)
	case <-time.After(30 * time.Second):
		t.Fatal("the lock is free, and nobody gets it")
	}
}

// TestLocksOutliveTheMaster: a master that restarts, or another one that takes
// over, knows no lock but from the mounts that hold them.
func TestLocksOutliveTheMaster(t *testing.T) {
	c := rig.Start(t, rig.Options{})
	a, b := c.Mount(t), c.Mount(t)
	fa, fb := open(t, a+"/file", os.O_RDWR|os.O_CREATE), open(t, b+"/file", os.O_RDWR)
	ga, gb := open(t, a+"/whole", os.O_RDWR|os.O_CREATE), open(t, b+"/whole", os.O_RDWR)
	must(t, fcntl(fa, unix.F_SETLK, record(unix.F_WRLCK, 0, 100)))
	must(t, fcntl(fa, unix.F_SETLK, record(unix.F_UNLCK, 40, 20)))
	must(t, fcntl(fb, unix.F_SETLK, record(unix.F_WRLCK, 200, 0)))
	must(t, flock(ga, unix.LOCK_EX|unix.LOCK_NB))
	waited := make(chan error, 1)
	go func() { waited <- flock(gb, unix.LOCK_EX) }()
	for range 3 {
		c.KillMaster()
		c.StartMaster()
		want(t, "bytes that the other mount has", fcntl(fb, unix.F_SETLK, record(unix.F_WRLCK, 30, 1)), error(unix.EAGAIN))
		want(t, "bytes behind the gap", fcntl(fb, unix.F_SETLK, record(unix.F_WRLCK, 60, 1)), error(unix.EAGAIN))
		must(t, fcntl(fb, unix.F_SETLK, record(unix.F_WRLCK, 40, 20)))
		must(t, fcntl(fb, unix.F_SETLK, record(unix.F_UNLCK, 40, 20)))
		want(t, "bytes that this mount gave up", fcntl(fa, unix.F_SETLK, record(unix.F_WRLCK, 1000, 1)), error(unix.EAGAIN))
		select {
		case err := <-waited:
			t.Fatalf("a lock that another mount holds was given: %v", err)
		default:
		}
	}
	must(t, flock(ga, unix.LOCK_UN))
	must(t, <-waited)
	want(t, "a lock that was waited for", flock(ga, unix.LOCK_EX|unix.LOCK_NB), error(unix.EWOULDBLOCK))
}
