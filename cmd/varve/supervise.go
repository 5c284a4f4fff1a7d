package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/varvefs/varve/fuse"
)

// child is one process of a 'varve up'. Children stop in ascending order.
type child struct {
	name  string
	args  []string
	order int
	mount string // mount point to clean when a mount process died
}

// Limits of the supervisor.
const (
	stopPatience   = 2*busyPatience + closePatience + 10*time.Second // then a child that should stop is killed; no mount takes so long
	restartPatient = 5 * time.Second                                 // longest pause before a child is started again
	deathWatch     = time.Second                                     // between two looks whether a mount is dead and cannot end
)

// supervisor starts children again when they die and stops them in order.
type supervisor struct {
	dir string
	mu  sync.Mutex
	all []*running // in the order of their start
}

// running is a child with its present process. Its goroutine owns the loop of
// starts; proc is guarded by the supervisor's mu.
type running struct {
	child
	proc    *os.Process
	stopped chan struct{} // closed to end the loop
	done    chan struct{} // closed when the loop has ended
}

func newSupervisor(dir string) *supervisor { return &supervisor{dir: dir} }

// start runs a child and waits until it is ready the first time.
func (s *supervisor) start(c child) error {
	r := &running{child: c, stopped: make(chan struct{}), done: make(chan struct{})}
	first := make(chan error, 1)
	go s.keep(r, first)
	if err := <-first; err != nil {
		<-r.done
		return fmt.Errorf("%s: %w; see %s", c.name, err, s.logName(c.name))
	}
	s.mu.Lock()
	s.all = append(s.all, r)
	s.mu.Unlock()
	return nil
}

func (s *supervisor) logName(name string) string { return filepath.Join(s.dir, name+".log") }

// keep is the loop of one child. It holds its thread, since the kernel sends
// Pdeathsig when the thread that started a process ends.
func (s *supervisor) keep(r *running, first chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(r.done)
	pause := 100 * time.Millisecond
	for {
		begin := time.Now()
		wait, err := s.launch(r)
		if first != nil {
			if err != nil {
				if wait != nil {
					wait()
				}
				first <- err
				return
			}
			first <- nil
			first = nil
		}
		if wait != nil {
			err = errors.Join(err, wait())
		}
		select {
		case <-r.stopped:
			r.cleanMount()
			return
		default:
		}
		if time.Since(begin) > 10*time.Second {
			pause = 100 * time.Millisecond
		}
		fmt.Fprintf(os.Stderr, "%s ended (%v), starting it again\n", r.name, err)
		select {
		case <-r.stopped:
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, restartPatient)
	}
}

// cleanMount takes away the mount of a process that had to be killed.
func (r *running) cleanMount() {
	if r.mount == "" {
		return
	}
	if err := fuse.CleanStale(r.mount); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// launch starts the child's process and waits until it is ready. The returned
// function waits for its end.
func (s *supervisor) launch(r *running) (wait func() error, err error) {
	if r.mount != "" {
		if err := fuse.CleanStale(r.mount); err != nil {
			return nil, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	logFile, err := os.OpenFile(s.logName(r.name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	cmd := exec.Command(self, r.args...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	// A group of its own: Ctrl-C at the terminal is for the supervisor alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	ready, err := startReady(cmd)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	r.proc = cmd.Process
	s.mu.Unlock()
	_, err = waitReady(ready)
	return func() error { return waitFor(cmd, r.mount) }, err
}

// waitFor waits for a child's end. A mount that was killed may be unable to end
// before its connection to the kernel is broken: see fuse.CleanStale.
func waitFor(cmd *exec.Cmd, mount string) error {
	if mount == "" {
		return cmd.Wait()
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(deathWatch)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
			if !fuse.Ended(cmd.Process.Pid) {
				continue
			}
			if err := fuse.CleanStale(mount); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}
}

// pids lists the children and their process numbers.
func (s *supervisor) pids() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for i, r := range s.all {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %d", r.name, r.proc.Pid)
	}
	return b.String()
}

// stop ends all children, those of the same order together.
func (s *supervisor) stop() {
	s.mu.Lock()
	all := slices.Clone(s.all)
	s.mu.Unlock()
	slices.SortStableFunc(all, func(a, b *running) int { return a.order - b.order })
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].order == all[0].order {
			n++
		}
		for _, r := range all[:n] {
			close(r.stopped)
			s.signal(r, syscall.SIGTERM)
		}
		deadline := time.After(stopPatience)
		for _, r := range all[:n] {
			select {
			case <-r.done:
			case <-deadline:
				fmt.Fprintf(os.Stderr, "%s does not stop, killing it\n", r.name)
				s.signal(r, syscall.SIGKILL)
				<-r.done
			}
		}
		all = all[n:]
	}
}

func (s *supervisor) signal(r *running, sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.proc != nil {
		r.proc.Signal(sig)
	}
}
