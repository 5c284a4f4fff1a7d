package system

import (
	"bytes"
	"context"
	"encoding/json"
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

	"github.com/varvefs/varve/wire"
)

// program is bin/varve, built by TestMain as the Makefile builds it.
var program string

func TestMain(m *testing.M) {
	if call, dir, ok := strings.Cut(os.Getenv(waiterEnv), " "); ok {
		waits(call, dir)
		return
	}
	dir, err := os.MkdirTemp("", "varve-system")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Setenv("XDG_RUNTIME_DIR", filepath.Join(dir, "run")) // notes of running clusters stay in here
	program = filepath.Join(dir, "varve")
	build := exec.Command("go", "build", "-tags", "giouring", "-ldflags=-checklinkname=0", "-o", program, "../../cmd/varve")
	build.Stderr = os.Stderr
	code := 1
	if err := build.Run(); err == nil {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// needMount skips where a mount is not possible.
func needMount(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("there is no /dev/fuse")
	}
}

// needTool skips where a program is not installed.
func needTool(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			t.Skipf("%s is not installed", n)
		}
	}
}

// cluster is a running 'varve up'.
type cluster struct {
	t     *testing.T
	dir   string
	mnt   string
	args  []string
	cmd   *exec.Cmd
	out   *buffer
	ended chan struct{}
}

// buffer is a bytes.Buffer for a process to write while a test reads.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs 'varve up' in a new directory until the test ends.
func start(t *testing.T, args ...string) *cluster {
	t.Helper()
	needMount(t)
	c := &cluster{t: t, dir: filepath.Join(t.TempDir(), "state"), mnt: filepath.Join(t.TempDir(), "mnt"), args: args}
	c.up()
	t.Cleanup(c.down)
	return c
}

// up starts the cluster on its directory.
func (c *cluster) up() {
	c.t.Helper()
	c.out = new(buffer)
	c.cmd = exec.Command(program, append([]string{"up", "--dir", c.dir, "--mount", c.mnt}, c.args...)...)
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.out
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		cmd.Wait()
		close(ended)
	}(c.cmd, c.ended)
	c.until(60*time.Second, "the cluster is up", func() bool {
		select {
		case <-c.ended:
			c.t.Fatalf("varve up ended:\n%s\n%s", c.out, c.logs())
		default:
		}
		return strings.Contains(c.out.String(), "Varve is up.")
	})
}

// down stops the cluster as Ctrl-C does and checks that nothing is left.
func (c *cluster) down() {
	c.t.Helper()
	c.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-c.ended:
	case <-time.After(90 * time.Second):
		c.t.Errorf("varve up does not end:\n%s\n%s", c.out, c.logs())
		c.killAll()
	}
	if c.mounted() {
		c.t.Errorf("%s is still mounted", c.mnt)
		syscall.Unmount(c.mnt, 2)
	}
	if left := c.processes(""); len(left) > 0 {
		c.t.Errorf("processes %v are left", left)
		c.killAll()
	}
	if c.t.Failed() {
		c.t.Log(c.logs())
	}
}

func (c *cluster) mounted() bool {
	b, _ := os.ReadFile("/proc/self/mounts")
	return strings.Contains(string(b), " "+c.mnt+" ")
}

// logs are the last lines of every daemon.
func (c *cluster) logs() string {
	var b strings.Builder
	names, _ := filepath.Glob(filepath.Join(c.dir, "*.log"))
	for _, name := range names {
		text, _ := os.ReadFile(name)
		fmt.Fprintf(&b, "--- %s\n%s", filepath.Base(name), text[max(0, len(text)-3000):])
	}
	return b.String()
}

// processes gives the pids of this cluster's daemons whose name (master,
// chunkd1, mount) is role, or of all and of 'varve up' for "".
func (c *cluster) processes(role string) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		args := strings.Split(string(b), "\x00")
		if err != nil || args[0] != program || !strings.Contains(string(b), c.dir) {
			continue
		}
		name := args[1]
		for i, a := range args {
			if a == "--dirs" {
				name = filepath.Base(args[i+1])
			}
		}
		if role == "" || role == name {
			pids = append(pids, pid)
		}
	}
	return pids
}

// kill sends SIGKILL to a daemon and returns when it is gone.
func (c *cluster) kill(role string) {
	c.t.Helper()
	pids := c.processes(role)
	if len(pids) == 0 {
		c.t.Fatalf("no process %s to kill", role)
	}
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	c.until(10*time.Second, role+" is gone", func() bool {
		for _, pid := range pids {
			if syscall.Kill(pid, 0) == nil && !zombie(pid) {
				return false
			}
		}
		return true
	})
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

// killAll sends SIGKILL to everything at once. 'varve up' is stopped before, so
// that it neither starts a process again nor, by its death, tells one to end cleanly.
func (c *cluster) killAll() {
	syscall.Kill(c.cmd.Process.Pid, syscall.SIGSTOP)
	for _, pid := range c.processes("") {
		if pid != c.cmd.Process.Pid {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	syscall.Kill(c.cmd.Process.Pid, syscall.SIGKILL)
	<-c.ended
	c.until(10*time.Second, "all processes are gone", func() bool { return len(c.processes("")) == 0 })
}

// until polls until the condition holds.
func (c *cluster) until(patience time.Duration, what string, cond func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			c.t.Fatalf("not within %v: %s\n%s\n%s", patience, what, c.out, c.logs())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// varve runs a tool on the cluster and gives its output.
func (c *cluster) varve(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("varve %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (c *cluster) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, append(args, "--config", filepath.Join(c.dir, "client.toml"))...).CombinedOutput()
	return string(out), err
}

// status asks the cluster.
func (c *cluster) status() *wire.Status {
	c.t.Helper()
	st := new(wire.Status)
	if err := json.Unmarshal([]byte(c.varve("status", "--json")), st); err != nil {
		c.t.Fatal(err)
	}
	return st
}

// healed waits until every chunk has its copies.
func (c *cluster) healed(patience time.Duration) {
	c.t.Helper()
	c.until(patience, "all chunks have their copies", func() bool {
		st := c.status()
		return st.Chunks.UnderGoal == 0 && st.Chunks.Missing == 0 && st.Chunks.Replicating == 0
	})
}

// sh runs a shell script in the mount with $M as the mount point.
func (c *cluster) sh(script string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "M="+c.mnt, "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s\n%v\n%s", script, err, out)
	}
	return string(out)
}
