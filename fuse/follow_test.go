package fuse

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metrics"
	"golang.org/x/sys/unix"
)

// fakeFollow follows a caller that is at *at, and notes in *kept where it is kept.
func fakeFollow(at, kept *int) follow {
	set := metrics.NewSet()
	f := &following{
		where: func(uint32) int { return *at },
		keep:  func(cpu int) error { *kept = cpu; return nil },
		free:  func() error { *kept = -1; return nil },
		looks: set.NewCounter("looks"), moves: set.NewCounter("moves"),
	}
	*kept = -1
	return f.reader()
}

func (f *follow) row32(thread uint32) {
	for range followEvery {
		f.next(thread, opcodeLookup)
	}
}

func TestFollow(t *testing.T) {
	at, kept := 3, 0
	f := fakeFollow(&at, &kept)
	defer f.end()
	f.next(7, opcodeLookup)
	for range followEvery - 1 {
		f.next(7, opcodeLookup)
		f.next(0, opcodeLookup)
	}
	if kept != -1 {
		t.Fatal("it follows whoever comes")
	}
	if f.next(7, opcodeLookup); kept != 3 || !f.near() {
		t.Fatalf("kept on processor %d, its caller is on 3", kept)
	}
	at = 2
	if f.row32(7); kept != 2 {
		t.Fatalf("kept on processor %d, its caller has gone to 2", kept)
	}
	if f.next(8, opcodeLookup); kept != -1 || f.near() {
		t.Fatal("it stays with one of two callers")
	}
	for range 10 * followEvery {
		f.next(7, opcodeLookup)
		f.next(8, opcodeLookup)
	}
	if kept != -1 || f.moves.Get() != 2 {
		t.Fatal("it follows one of two callers")
	}
}

// A caller that is elsewhere whenever one looks is hardly looked for any more.
func TestFollowInVain(t *testing.T) {
	at, kept := 0, 0
	f := fakeFollow(&at, &kept)
	defer f.end()
	const looks = 20 * followRest
	for range looks {
		f.row32(7)
		at = 1 - at
	}
	if n := f.moves.Get(); n < 20 || n > 3*20 {
		t.Errorf("it went after its caller %d times in %d looks", n, looks)
	}
	for range 2 * followRest {
		f.row32(7)
	}
	if kept != at {
		t.Errorf("kept on processor %d, its caller stays on %d", kept, at)
	}
}

// A program that is being replaced by another one waits for its FLUSHes, and where it is cannot be
// read before they are answered.
func TestNoLookAtFlush(t *testing.T) {
	at, kept := 3, 0
	f := fakeFollow(&at, &kept)
	defer f.end()
	for range 3 * followEvery {
		f.next(7, opcodeFlush)
	}
	if f.looks.Get() != 0 {
		t.Fatal("it looks where the caller of a FLUSH is")
	}
	if f.next(7, opcodeLookup); kept != 3 {
		t.Fatal("it does not follow after many a FLUSH")
	}
}

func TestFollowNobody(t *testing.T) {
	var none *following
	f := none.reader()
	f.row32(7)
	f.row32(7)
	if f.end(); f.near() {
		t.Error("it follows though there is no choice")
	}
	at, kept := -1, 0
	f = fakeFollow(&at, &kept)
	for range 10 {
		f.row32(7)
	}
	if f.near() || f.looks.Get() != 1 {
		t.Error("it follows a caller of whom it does not know where he is, or asks again and again")
	}
	at = 0
	f = fakeFollow(&at, &kept)
	f.keep = func(int) error { return errors.New("not allowed") }
	f.row32(7)
	if f.row32(7); f.near() || f.moves.Get() != 1 {
		t.Error("it stays where it is not allowed to, or tries again and again")
	}
}

// A real thread goes to the processor of another one, and is free afterwards.
func TestFollowThread(t *testing.T) {
	s := newFollowing(nil)
	if s == nil {
		t.Skip("needs two processors")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	cpu := 0
	for !before.IsSet(cpu) {
		cpu++
	}
	one.Set(cpu)
	tid, leave := make(chan int), make(chan struct{})
	go func() {
		runtime.LockOSThread() // and ends with us
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			t.Error(err)
		}
		tid <- unix.Gettid()
		<-leave
	}()
	f := s.reader()
	caller := uint32(<-tid)
	f.next(caller, opcodeLookup)
	f.row32(caller)
	if f.cpu != cpu || processorOf(uint32(unix.Gettid())) != cpu {
		t.Errorf("it is on processor %d, kept on %d, its caller on %d", processorOf(uint32(unix.Gettid())), f.cpu, cpu)
	}
	f.end()
	close(leave)
	if err := unix.SchedGetaffinity(0, &after); err != nil || after != before {
		t.Errorf("%v; it may use %d processors, before %d", err, after.Count(), before.Count())
	}
}

func TestStatProcessor(t *testing.T) {
	fields := " D" + strings.Repeat(" 7", 35)
	for line, want := range map[string]int{
		"77 (a)" + fields + " 1\n":               1,
		"77 (a) 1 2) (b)" + fields + " 12 8 9\n": 12,
		"77 (a)" + fields:                        -1,
		"77 (a)" + fields + " x":                 -1,
		"77 (a":                                  -1,
		"":                                       -1,
	} {
		if got := statProcessor([]byte(line)); got != want {
			t.Errorf("%q: %d, want %d", line, got, want)
		}
	}
	if cpu := processorOf(uint32(unix.Gettid())); cpu < 0 {
		t.Error("where this thread is was not found")
	}
}
