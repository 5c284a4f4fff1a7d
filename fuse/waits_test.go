package fuse

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/varvefs/varve/client"
)

func TestFate(t *testing.T) {
	status := func(memory, pending string) string {
		return "Name:\tSigPnd:\\nSigPnd:\t0100\nState:\tS (sleeping)\nGroups:\t1 2 3\n" + memory + "Threads:\t1\nSigQ:\t0/96364\nSigPnd:\t" + pending + "\nShdPnd:\t0000000000000100\n"
	}
	const memory = "VmPeak:\t    3060 kB\nVmSize:\t    3060 kB\n"
	for _, c := range []struct {
		what, status string
		want         fate
	}{
		{"nothing", status(memory, "0000000000000000"), goesOn},
		{"SIGUSR1 and SIGTERM, which it handles", status(memory, "0000000000004200"), goesOn},
		{"SIGKILL", status(memory, "0000000000000100"), killed},
		{"SIGKILL and SIGTERM", status(memory, "0000000000004100"), killed},
		{"a real-time signal too", status(memory, "8000000000000100"), killed},
		{"it ends", status("", "0000000000000000"), exiting},
		{"it ends and is killed", status("", "0000000000000100"), killed},
		{"not to be seen", "", goesOn},
		{"something else", "Name:\ta\nSigPnd\n", goesOn},
	} {
		if got := fateOf([]byte(c.status)); got != c.want {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
	}
	if got := fateOfThread(uint32(syscall.Gettid())); got != goesOn {
		t.Errorf("this thread: %d", got)
	}
}

// waitsOf is the waits of a file system whose callers' fate the test decides.
type waitsOf struct {
	*fileSystem
	answered chan uint64
	mu       sync.Mutex
	fates    map[uint32]fate
	looks    int
}

func newWaits() *waitsOf {
	f := &waitsOf{fileSystem: &fileSystem{ctx: context.Background()}, answered: make(chan uint64, 9), fates: make(map[uint32]fate)}
	f.turns.admit = func() {}
	f.waits.answer = func(n uint64) { f.answered <- n }
	f.waits.fate = func(thread uint32) fate {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.looks++
		return f.fates[thread]
	}
	return f
}

func (f *waitsOf) set(thread uint32, what fate) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fates[thread] = what
}

func (f *waitsOf) looked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.looks
}

// request makes the request of a thread, whose INTERRUPT interrupt is.
func (f *waitsOf) request(unique uint64, thread uint32) (r *request, interrupt func()) {
	cancel := make(chan struct{})
	h := &gofuse.InHeader{Unique: unique, NodeId: 5}
	h.Pid = thread
	return f.context(cancel, h), func() {
		close(cancel)
		f.waits.interrupt(unique)
	}
}

func over(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

// A signal that the program handles does not end its wait, one that kills it later does, though the kernel
// sends no second INTERRUPT.
func TestOnlyTheKilledAreGivenUp(t *testing.T) {
	f := newWaits()
	r, interrupt := f.request(2, 7)
	other, _ := f.request(4, 8)
	r.Waits()
	other.Waits()
	f.set(8, killed) // but nobody has said so
	interrupt()
	eventually(t, "it is looked at again and again", func() bool { return f.looked() >= 3 })
	if over(r) || over(other) || r.Err() != nil {
		t.Fatal("given up without need")
	}
	f.set(7, killed)
	eventually(t, "it is given up", func() bool { return over(r) })
	if !errors.Is(r.Err(), client.ErrKilled) || over(steady{r}) || over(other) {
		t.Errorf("error %v", r.Err())
	}
	if !r.killed() {
		t.Error("its handler believes that it will be heard")
	}
	if f.waits.over(2); f.waits.over(4) {
		t.Error("the kernel has an answer that nobody gave")
	}
	if f.waits.some.Load() {
		t.Error("somebody still waits")
	}
}

// An INTERRUPT that comes before the request waits is not lost.
func TestInterruptBeforeTheWait(t *testing.T) {
	f := newWaits()
	r, interrupt := f.request(2, 7)
	f.set(7, killed)
	interrupt()
	if r.Waits(); f.waits.m[2] != r {
		t.Fatal("it does not wait")
	}
	eventually(t, "it is given up", func() bool { return over(r) })
}

// A handler that goes on all the same keeps nobody but the close of its file.
func TestHandlerIsLeft(t *testing.T) {
	f := newWaits()
	r, interrupt := f.request(2, 7)
	r.Waits()
	f.set(7, killed)
	interrupt()
	if n := <-f.answered; n != 2 {
		t.Fatalf("request %d was answered", n)
	}
	closed := make(chan struct{})
	go func() {
		f.awaitLeft(&gofuse.InHeader{NodeId: 6})
		f.awaitLeft(&gofuse.InHeader{NodeId: 5})
		close(closed)
	}()
	if within(2*lookEvery, closed) {
		t.Error("its file was closed")
	}
	if !r.killed() || !f.waits.over(2) {
		t.Error("its handler believes that it will be heard")
	}
	<-closed
	if len(f.answered) > 0 {
		t.Error("it was answered twice")
	}
}

// A handler that has its answer is not given up any more: what it has opened is the kernel's.
func TestAnswerIsHeard(t *testing.T) {
	f := newWaits()
	r, interrupt := f.request(2, 7)
	r.Waits()
	if r.killed() {
		t.Fatal("nobody has killed it")
	}
	f.set(7, killed)
	interrupt()
	eventually(t, "it is looked at", func() bool { return f.looked() >= 3 })
	if over(r) || len(f.answered) > 0 || f.waits.over(2) {
		t.Error("it was given up")
	}
}

// A program that ends closes its files, and no signal reaches it any more.
func TestExitIsNotKept(t *testing.T) {
	f := newWaits()
	flush, _ := f.request(2, 7)
	flush.flush = true
	other, _ := f.request(4, 7)
	unknown, interrupt := f.request(6, 0)
	unknown.flush = true
	for _, r := range []*request{flush, other, unknown} {
		r.Waits()
	}
	interrupt()
	f.set(7, exiting)
	f.set(0, killed)
	eventually(t, "it is given up", func() bool { return over(flush) })
	if f.looked() < exitPatience {
		t.Errorf("after %d looks", f.looked())
	}
	if over(other) || over(unknown) {
		t.Error("others were given up, too")
	}
}

// The end of the mount ends all waits, once.
func TestEndOfWaits(t *testing.T) {
	f := newWaits()
	ctx, cancel := context.WithCancel(context.Background())
	f.ctx = ctx
	r, interrupt := f.request(2, 7)
	r.Done()
	cancel()
	f.waits.end()
	late, _ := f.request(4, 7)
	if !over(r) || !over(late) || !errors.Is(r.Err(), context.Canceled) {
		t.Error("they wait on")
	}
	f.set(7, killed)
	interrupt()
	<-f.answered
}

// TestKernelLetsGo kills a program whose request is with a handler that hears of nothing.
func TestKernelLetsGo(t *testing.T) {
	f, dir := mountTree(t)
	for range 2 { // what is read asleep, and awake
		release := f.block("lookup file")
		cmd := exec.Command("stat", filepath.Join(dir, "file"))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		f.awaitHeld(t)
		ended := make(chan struct{})
		go func() {
			cmd.Wait()
			close(ended)
		}()
		cmd.Process.Signal(syscall.SIGSTOP) // a signal, but none that kills
		if within(3*lookEvery, ended) {
			t.Fatal("it does not wait")
		}
		cmd.Process.Kill()
		if !within(10*time.Second, ended) {
			t.Error("it cannot be killed")
		}
		release()
	}
	if err := stat(filepath.Join(dir, "file")); err != nil {
		t.Error(err)
	}
}
