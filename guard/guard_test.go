package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The child is this binary: it leads the term in childVariable, holds the
// addresses, and does what that variable says next.
const childVariable = "VARVE_GUARD_TEST_CHILD"

func TestMain(m *testing.M) {
	text := os.Getenv(childVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	line, err := Attach()
	if err != nil || line == nil {
		fmt.Fprintln(os.Stderr, "attach:", line, err)
		os.Exit(3)
	}
	term, then, _ := strings.Cut(text, " ")
	n, _ := strconv.ParseUint(term, 10, 64)
	err = errors.Join(line.Leads(n), line.Hold(time.Hour))
	switch then {
	case "drop":
		err = errors.Join(err, line.Drop())
		os.WriteFile(os.Getenv("OUT"), fmt.Appendf(nil, "%v", err), 0o600)
	case "concern":
		for len(line.Concerns()) == 0 {
			time.Sleep(time.Millisecond)
		}
		os.WriteFile(os.Getenv("OUT"), fmt.Appendf(nil, "%q", line.Concerns()), 0o600)
	case "exit":
		os.Exit(7)
	}
	time.Sleep(time.Hour)
}

// addresses notes what is done to them.
type addresses struct {
	mu   sync.Mutex
	log  []string
	held bool
}

func (a *addresses) Hold(time.Duration) error { return a.note("hold", true) }
func (a *addresses) Drop() error              { return a.note("drop", false) }

func (a *addresses) note(what string, held bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.log, a.held = append(a.log, what), held
	return nil
}

func (a *addresses) holds() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within a minute: ", what)
		}
	}
}

type run struct {
	addrs  *addresses
	deaths chan uint64
	pids   chan int
	news   chan string
	end    chan error
	stop   context.CancelFunc
}

func start(t *testing.T, child string, env ...string) *run {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{&addresses{}, make(chan uint64, 10), make(chan int, 100), make(chan string), make(chan error, 1), cancel}
	go func() {
		r.end <- Run(ctx, Config{
			Addresses: r.addrs, Obituary: func(term uint64) { r.deaths <- term },
			Started:  func(pid int) { r.pids <- pid },
			Concerns: r.news,
			Command: func() (*exec.Cmd, error) {
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(append(os.Environ(), childVariable+"="+child), env...)
				return cmd, nil
			},
		})
	}()
	t.Cleanup(func() { cancel(); <-r.end })
	return r
}

func TestDeathOfTheLeader(t *testing.T) {
	r := start(t, "5 wait")
	pid := <-r.pids
	eventually(t, "the addresses are held", r.addrs.holds)
	syscall.Kill(pid, syscall.SIGKILL)
	if term := <-r.deaths; term != 5 {
		t.Errorf("the obituary names term %d", term)
	}
	again := <-r.pids
	if again == pid {
		t.Error("nothing was started again")
	}
	eventually(t, "the addresses are held again", r.addrs.holds)
	r.stop()
	err := <-r.end
	r.end <- err
	if r.addrs.holds() {
		t.Error("the addresses are held after the end")
	}
	if err := syscall.Kill(again, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the child outlived its supervisor's stop: %v", err)
	}
}

// What the child says just before it dies still counts.
func TestLastWords(t *testing.T) {
	r := start(t, "9 exit")
	if term := <-r.deaths; term != 9 {
		t.Errorf("the obituary names term %d", term)
	}
	if r.addrs.holds() {
		t.Error("the addresses outlived the child")
	}
}

func TestDropIsAnswered(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	r := start(t, "5 drop", "OUT="+out)
	<-r.pids
	eventually(t, "the drop is answered", func() bool { b, _ := os.ReadFile(out); return len(b) > 0 })
	if b, _ := os.ReadFile(out); string(b) != "<nil>" {
		t.Errorf("the drop failed: %s", b)
	}
	if r.addrs.holds() {
		t.Error("it was answered before it was done")
	}
}

// What the supervisor is told for operators, its child can show them.
func TestConcerns(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	r := start(t, "5 concern", "OUT="+out)
	<-r.pids
	r.news <- "Somebody else\nhas it."
	eventually(t, "the child has heard of it", func() bool { b, _ := os.ReadFile(out); return len(b) > 0 })
	if b, _ := os.ReadFile(out); string(b) != `["Somebody else has it."]` {
		t.Errorf("it heard %s", b)
	}
}

func TestNobodyToStart(t *testing.T) {
	err := Run(context.Background(), Config{Command: func() (*exec.Cmd, error) { return exec.Command("/nonexistent"), nil }})
	if err == nil {
		t.Error("started nothing and was content")
	}
}

// A master without a supervisor says everything to nobody.
func TestNoSupervisor(t *testing.T) {
	line, err := Attach()
	if line != nil || err != nil {
		t.Fatal(line, err)
	}
	if err := errors.Join(line.Leads(1), line.Hold(1), line.Drop()); err != nil || line.Concerns() != nil {
		t.Error(err)
	}
}
