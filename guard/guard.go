package guard

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Addresses are the virtual addresses: a *vip.Agent.
type Addresses interface {
	Hold(until time.Duration) error
	Drop() error
}

// Config says whom to watch. Command is required.
type Config struct {
	// Command makes the command to start; Run adds the socket to it.
	Command func() (*exec.Cmd, error)
	// Started is called after each start, in a goroutine of its own; may be nil.
	Started func(pid int)
	// Addresses; nil if there are none.
	Addresses Addresses
	// Obituary tells the other voters that the process which led term is dead. It
	// is called in a goroutine of its own; nil: there are none.
	Obituary func(term uint64)
	// Concerns are sentences for operators, about the addresses for example. The master
	// hears them; each comes again while it lasts. nil: there are none.
	Concerns <-chan string
	// Patience is how long the child may take to end when it is told to; default 30 s.
	Patience time.Duration
	Log      *slog.Logger // nil: slog.Default()
}

const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
	quiet      = 10 * time.Second // a child that lived longer is started again at once
)

// Run starts the child, and again whenever it dies, until ctx ends; then it
// stops the child and waits for it. The error is that of the last child if it
// ended by itself and badly while it was being stopped, or could never be started.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Patience <= 0 {
		cfg.Patience = 30 * time.Second
	}
	// The kernel sends Pdeathsig when the thread ends that started the child. The
	// child must not inherit the supervisor's rights from this thread either.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		cfg.Log.Debug("no ambient capabilities to clear", "err", err)
	}
	pause := firstPause
	for first := true; ; first = false {
		begun := time.Now()
		err, ran := once(ctx, &cfg)
		if ctx.Err() != nil {
			return err
		}
		if first && !ran {
			return err
		}
		if time.Since(begun) > quiet {
			pause = firstPause
		}
		cfg.Log.Error("the master ended, starting it again", "err", err, "pause", pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// child is one life of the child.
type child struct {
	cfg  *Config
	conn net.Conn

	mu    sync.Mutex
	term  uint64 // that it led last
	dying bool   // it is no longer listened to
}

// once runs the child until it ends. ran tells whether it could be started.
func once(ctx context.Context, cfg *Config) (err error, ran bool) {
	cmd, err := cfg.Command()
	if err != nil {
		return err, false
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return err, false
	}
	defer ours.Close()
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", Variable, 2+len(cmd.ExtraFiles)))
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return err, false
	}
	if cfg.Started != nil {
		go cfg.Started(cmd.Process.Pid)
	}
	c := &child{cfg: cfg, conn: ours}
	read := make(chan struct{})
	go func() { defer close(read); c.listen() }()
	ended := make(chan struct{})
	go c.stop(ctx, cmd.Process, ended)
	go c.inform(ended)
	err = cmd.Wait()
	close(ended)
	c.bury(read)
	return err, true
}

func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "master")
	defer f.Close()
	c, err := net.FileConn(f)
	return c, os.NewFile(uintptr(fds[1]), "supervisor"), err
}

// stop tells the child to end when ctx does, and kills it if it does not.
func (c *child) stop(ctx context.Context, p *os.Process, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	p.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(c.cfg.Patience):
		c.cfg.Log.Error("the master does not stop, killing it", "waited", c.cfg.Patience)
		p.Kill()
	}
}

// inform passes concerns on to the child.
func (c *child) inform(ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case text := <-c.cfg.Concerns:
			if _, err := fmt.Fprintf(c.conn, "concern %s\n", strings.ReplaceAll(text, "\n", " ")); err != nil {
				c.cfg.Log.Debug("the master does not hear of a concern", "err", err)
			}
		}
	}
}

// bury does what is to be done when the child has died: the addresses go first.
// What the child said in its last moment is heard before, since its term is in it.
func (c *child) bury(read <-chan struct{}) {
	select {
	case <-read:
	case <-time.After(20 * time.Millisecond): // somebody else has its end of the socket
	}
	c.mu.Lock()
	c.dying = true
	term := c.term
	c.mu.Unlock()
	if c.cfg.Addresses != nil {
		if err := c.cfg.Addresses.Drop(); err != nil {
			c.cfg.Log.Error("cannot drop the virtual addresses of a dead master; they expire by themselves", "err", err)
		}
	}
	if term != 0 && c.cfg.Obituary != nil {
		c.cfg.Log.Warn("the master that led is dead, telling the others", "term", term)
		go c.cfg.Obituary(term)
	}
}

// listen carries out what the child says.
func (c *child) listen() {
	r := bufio.NewScanner(c.conn)
	for r.Scan() {
		word, rest, _ := strings.Cut(r.Text(), " ")
		n, err := strconv.ParseUint(rest, 10, 63)
		if err == nil {
			err = c.obey(word, n)
		}
		if err != nil {
			c.cfg.Log.Error("cannot do what the master says", "line", r.Text(), "err", err)
		}
	}
}

func (c *child) obey(word string, n uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dying {
		return nil
	}
	switch word {
	case "leads":
		c.term = n
		return nil
	case "hold":
		if c.cfg.Addresses == nil {
			return nil
		}
		return c.cfg.Addresses.Hold(time.Duration(n))
	case "drop":
		var err error
		if c.cfg.Addresses != nil {
			err = c.cfg.Addresses.Drop()
		}
		why := ""
		if err != nil {
			why = " " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		_, werr := fmt.Fprintf(c.conn, "done %d%s\n", n, why)
		if err == nil {
			err = werr
		}
		return err
	}
	return fmt.Errorf("unknown word %q", word)
}
