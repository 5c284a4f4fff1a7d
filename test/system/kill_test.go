package system

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/test/ports"
)

// waiterEnv makes this test's program one that makes a single system call in a mount: "CALL DIR".
const waiterEnv = "VARVE_SYSTEM_WAITER"

// much is more than a close leaves unsent.
const much = 2 << 20

// waiterCalls are what a waiter does before the masters are stopped, and then.
var waiterCalls = map[string]struct{ before, call func(w *waiter) error }{
	"stat":   {nil, func(w *waiter) error { var st unix.Stat_t; return unix.Stat(w.name("old/stat"), &st) }},
	"open":   {nil, func(w *waiter) error { return w.open("old/open", unix.O_RDONLY) }},
	"cut":    {nil, func(w *waiter) error { return w.open("old/cut", unix.O_WRONLY|unix.O_TRUNC) }},
	"list":   {nil, func(w *waiter) error { _, err := os.ReadDir(w.name("old/list")); return err }},
	"create": {nil, func(w *waiter) error { return w.open("old/created", unix.O_WRONLY|unix.O_CREAT) }},
	"mkdir":  {nil, func(w *waiter) error { return unix.Mkdir(w.name("old/made"), 0o755) }},
	"rename": {nil, func(w *waiter) error { return unix.Rename(w.name("old/rename"), w.name("old/renamed")) }},
	"unlink": {nil, func(w *waiter) error { return unix.Unlink(w.name("old/unlink")) }},
	"chmod":  {nil, func(w *waiter) error { return unix.Chmod(w.name("old/chmod"), 0o600) }},
	"read": {func(w *waiter) error { return w.open("old/read", unix.O_RDONLY|unix.O_DIRECT) },
		func(w *waiter) error { _, err := unix.Pread(w.fd, make([]byte, 4096), 0); return err }},
	"write": {func(w *waiter) error { return w.open("old/write", unix.O_WRONLY) },
		func(w *waiter) error { _, err := unix.Pwrite(w.fd, make([]byte, 4096), 0); return err }},
	"append": {func(w *waiter) error { return w.open("old/append", unix.O_WRONLY|unix.O_APPEND) },
		func(w *waiter) error { _, err := unix.Write(w.fd, make([]byte, 4096)); return err }},
	"lock": {func(w *waiter) error { return w.open("old/lock", unix.O_WRONLY) },
		func(w *waiter) error { return unix.Flock(w.fd, unix.LOCK_EX) }},

	// These ask a master that is still connected: what becomes of them is open. Each has its own directory, which the
	// kernel locks.
	"sent-create": {nil, func(w *waiter) error { return w.open("shared/1/created", unix.O_WRONLY|unix.O_CREAT) }},
	"sent-mkdir":  {nil, func(w *waiter) error { return unix.Mkdir(w.name("shared/2/made"), 0o755) }},
	"sent-rename": {nil, func(w *waiter) error { return unix.Rename(w.name("shared/3/rename"), w.name("shared/3/renamed")) }},
	"sent-unlink": {nil, func(w *waiter) error { return unix.Unlink(w.name("shared/4/unlink")) }},
	"sent-link":   {nil, func(w *waiter) error { return unix.Link(w.name("shared/5/link"), w.name("shared/5/linked")) }},
	"sent-cut":    {nil, func(w *waiter) error { return w.open("shared/6/cut", unix.O_WRONLY|unix.O_TRUNC) }},

	// These find rights that last for a moment yet.
	"fsync": {func(w *waiter) error { return w.openAlone("old/fsync") },
		func(w *waiter) error { return first(w.write(much), unix.Fsync(w.fd)) }},
	"close": {func(w *waiter) error { return w.openAlone("old/close") },
		func(w *waiter) error { return first(w.write(much), unix.Close(w.fd)) }},
	"exit": {func(w *waiter) error { return w.openAlone("old/exit") },
		func(w *waiter) error { w.write(much); os.Exit(0); return nil }},
	"exec": {func(w *waiter) error { return w.openAlone("old/exec") },
		func(w *waiter) error { w.write(much); unix.CloseOnExec(w.fd); return unix.Exec("/bin/true", nil, nil) }},
	"rest": {func(w *waiter) error { return w.openAlone("old/rest") },
		func(w *waiter) error { w.write(much); fmt.Println("rests"); return unix.Pause() }},
}

// first is the first error.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// waiter is the program's side.
type waiter struct {
	dir string
	fd  int
}

func (w *waiter) name(name string) string { return filepath.Join(w.dir, name) }

func (w *waiter) open(name string, flags int) (err error) {
	w.fd, err = unix.Open(w.name(name), flags, 0o644)
	return err
}

// openAlone opens a file and makes the mount its only user, who needs to ask nobody before it writes, and
// has no place to write to yet.
func (w *waiter) openAlone(name string) error {
	if err := w.open(name, unix.O_WRONLY); err != nil {
		return err
	}
	return unix.Fallocate(w.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, much, much)
}

func (w *waiter) write(n int) error {
	_, err := unix.Pwrite(w.fd, make([]byte, n), 0)
	return err
}

// waits is the main function of a waiter. It tells the thread that will wait, makes its call when it is told
// to and tells what came of it.
func waits(call, dir string) {
	runtime.LockOSThread()
	signal.Notify(make(chan os.Signal, 1), syscall.SIGUSR1)
	w, do := &waiter{dir: dir}, waiterCalls[call]
	if do.before != nil {
		if err := do.before(w); err != nil {
			fmt.Println("before:", err)
			return
		}
	}
	fmt.Println(unix.Gettid())
	os.Stdin.Read(make([]byte, 1))
	fmt.Println("result:", do.call(w))
}

// waiting is the test's side of a waiter.
type waiting struct {
	call   string
	cmd    *exec.Cmd
	in     io.Writer
	out    *bufio.Reader
	thread int
	ended  chan struct{}
	said   string // all that it said, when it has ended
}

// startWaiter returns when the waiter is about to make its call.
func startWaiter(t *testing.T, call, dir string) *waiting {
	t.Helper()
	w := &waiting{call: call, cmd: exec.Command("/proc/self/exe"), ended: make(chan struct{})}
	w.cmd.Env = append(os.Environ(), waiterEnv+"="+call+" "+dir)
	w.in, _ = w.cmd.StdinPipe()
	out, _ := w.cmd.StdoutPipe()
	w.out = bufio.NewReader(out)
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before its mount is taken away
		w.cmd.Process.Kill()
		select {
		case <-w.ended:
		case <-time.After(10 * time.Second):
		}
	})
	line, _ := w.out.ReadString('\n')
	var err error
	if w.thread, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatalf("%s: %q", call, line)
	}
	return w
}

// begin has it make its call.
func (w *waiting) begin() {
	go func() {
		defer close(w.ended)
		b, _ := io.ReadAll(w.out)
		w.cmd.Wait()
		w.said = string(b)
	}()
	w.in.Write([]byte("\n"))
}

// over says whether it has ended.
func (w *waiting) over() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// asks says whether its thread waits for an answer of the mount. One that begins another program
// becomes the first of its process.
func (w *waiting) asks() bool { return asks(w.thread) || asks(w.cmd.Process.Pid) }

// asks says whether a thread waits for a mount. What it waits for cannot be read while it closes files
// in execve(2).
func asks(thread int) bool {
	answer := make(chan bool, 1)
	go func() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stack", thread))
		answer <- strings.Contains(string(b), "request_wait_answer")
	}()
	select {
	case yes := <-answer:
		return yes
	case <-time.After(time.Second):
		return true
	}
}

// childAsks says whether the child of a process does.
func childAsks(pid int) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	child, err := strconv.Atoi(strings.TrimSpace(string(b)))
	return err == nil && asks(child)
}

// stays says whether a condition holds all the time for a while.
func stays(d time.Duration, cond func() bool) bool {
	for begin := time.Now(); time.Since(begin) < d; time.Sleep(10 * time.Millisecond) {
		if !cond() {
			return false
		}
	}
	return true
}

// TestKillWaiting stops the master under programs that make one system call each. They wait, whatever
// signal they handle; killed, they end at once, and when the master is back the mount is as good as new.
func TestKillWaiting(t *testing.T) {
	addr := ports.Free(t)
	t.Setenv("VARVE_MOUNT_HTTP", addr)
	c := start(t, "--servers", "2")
	os.Unsetenv("VARVE_MOUNT_HTTP")
	other := c.second()
	c.sh(`mkdir $M/old $M/old/list; mkdir -p $M/shared/{1,2,3,4,5,6}; for f in stat open cut rename unlink chmod read write append lock fsync close exec exit rest; do
		head -c 10000 /dev/zero | tr '\0' x > $M/old/$f; done; sync -f $M; sync $M/old/*
		cd $M/shared; for f in 3/rename 4/unlink 5/link 6/cut; do echo $f > $f; done; ln 4/unlink $M/unlink`)
	all := make(map[string]*waiting)
	for call := range waiterCalls {
		all[call] = startWaiter(t, call, c.mnt)
	}
	// Of a directory that another mount looks at nobody is the only user. Its names are known, and those
	// that do not exist.
	c.sh("O=" + other + `; cd $M/shared; n='1/created 2/made 3/renamed 5/linked'; ls -lR $O/shared; ls -lR . ; ! stat $n; ! stat $n; stat ../unlink`)
	masters := c.processes("master")
	// With a lease from before, what is written would need no master.
	c.until(time.Minute, "no chunk is open for writing", func() bool { return c.status().Chunks.Leased == 0 })
	for _, pid := range masters {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	resume := func() {
		for _, pid := range masters {
			syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	t.Cleanup(resume)

	early := func(call string) bool {
		return strings.HasPrefix(call, "sent-") || slices.Contains([]string{"fsync", "close", "exec", "exit", "rest"}, call)
	}
	for call, w := range all {
		if early(call) {
			w.begin()
		}
	}
	// Then the rights run out: a program that asks for the same thing again and again stops.
	probe := exec.Command("sh", "-c", `while stat "$0" > /dev/null; do echo; sleep 0.1; done`, filepath.Join(c.mnt, "old/list"))
	said := new(buffer)
	probe.Stdout = said
	if err := probe.Start(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c.until(time.Minute, "the rights have run out", func() bool {
		n := len(said.String())
		return n > 0 && stays(time.Second, func() bool { return len(said.String()) == n && childAsks(probe.Process.Pid) })
	})
	t.Logf("the rights ran out after %v", time.Since(began))

	for call, w := range all {
		if !early(call) {
			w.begin()
		}
	}
	for call, w := range all {
		switch call {
		case "exit":
			c.until(10*time.Second, "a program that exits is not kept", w.over)
		case "rest":
		default:
			c.until(30*time.Second, call+" waits", func() bool {
				if w.over() {
					t.Fatalf("%s: does not wait: %q", call, w.said)
				}
				return w.asks()
			})
			if call == "exec" {
				break // it handles nothing any more
			}
			if err := unix.Tgkill(w.cmd.Process.Pid, w.thread, syscall.SIGUSR1); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !stays(500*time.Millisecond, func() bool {
		for call, w := range all {
			if call != "exit" && w.over() {
				t.Errorf("%s: a signal that is handled ends it: %q", call, w.said)
				return false
			}
		}
		return true
	}) {
		return
	}
	const most = 2 * time.Second
	end := func(call string, sig syscall.Signal) {
		w := all[call]
		began := time.Now()
		w.cmd.Process.Signal(sig)
		c.until(time.Minute, call+" ends", w.over)
		took := time.Since(began)
		t.Logf("%s: killed in %v", call, took.Round(time.Millisecond))
		if took > most || strings.Contains(w.said, "result") {
			t.Errorf("%s: took %v to kill, and said %q", call, took, w.said)
		}
	}
	for call := range all {
		switch call {
		case "exit":
		case "mkdir", "fsync":
			end(call, syscall.SIGTERM)
		default:
			end(call, syscall.SIGKILL)
		}
	}
	began = time.Now()
	probe.Process.Kill()
	probe.Wait()
	t.Logf("a shell and its child: the shell in %v", time.Since(began))

	resume()
	c.sh(`touch $M/back; sync $M/back`) // behind all that was asked for before
	// What the kernel believes of each name, without a listing that would tell it better.
	view := func(dir string) string {
		b, _ := exec.Command("sh", "-c", `cd "$0/shared" && stat -c '%n %s %h %i' ../unlink 1/created 2/made 3/rename 3/renamed 4/unlink 5/link 5/linked 6/cut 2>&1 | sort`, dir).CombinedOutput()
		return string(b)
	}
	mine, theirs := view(c.mnt), view(other)
	t.Log(mine)
	if mine != theirs {
		t.Errorf("two mounts disagree:\n%s\n%s", mine, theirs)
	}
	if strings.Contains(mine, "'3/rename'") == strings.Contains(mine, "'3/renamed'") {
		t.Error("a file has both names, or none")
	}
	out := c.sh(`cd $M/old; ls; touch new; rm new; cat read > /dev/null; stat -c '%n %s' fsync close exec exit rest write append cut
		{ test -e rename && ! test -e renamed; } || { ! test -e rename && test -e renamed; }; flock -n lock true; sync -f .; rm -rf list`)
	t.Log(out)
	for _, name := range []string{"fsync", "close", "exec", "exit", "rest"} {
		if b, err := os.ReadFile(filepath.Join(c.mnt, "old", name)); err != nil || len(b) != much {
			t.Errorf("%s: what was written before the program was killed is not there: %d bytes, %v", name, len(b), err)
		}
	}

	// The kernel has closed everything, and so has the mount.
	c.until(30*time.Second, "no file is open", func() bool {
		return strings.Contains(get(t, "http://"+addr+"/metrics"), "varve_fuse_open_handles 0\n")
	})
	same := func(dir string) string {
		b, err := exec.Command("sh", "-c", `cd "$0" && find . | sort | xargs stat -c '%n %s %a %h %i' && find . -type f | sort | xargs cksum`, dir).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		return string(b)
	}
	if a, b := same(filepath.Join(c.mnt, "old")), same(filepath.Join(other, "old")); a != b {
		t.Errorf("two mounts disagree:\n%s\n%s", a, b)
	}
}

// TestStopWithoutMaster: a mount whose programs were killed ends at once though no master answers.
func TestStopWithoutMaster(t *testing.T) {
	c := start(t, "--servers", "1", "--goal", "1")
	c.sh(`mkdir -p $M/old $M/shared/2; echo x > $M/old/stat; sync $M/old/*`)
	dir := c.second()
	mount := c.mountOf(dir)
	calls := []string{"stat", "sent-mkdir"}
	all := make(map[string]*waiting)
	for _, call := range calls {
		all[call] = startWaiter(t, call, dir)
	}
	masters := c.processes("master")
	for _, pid := range masters {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Kill(pid, syscall.SIGCONT) })
	}
	for _, call := range calls {
		all[call].begin()
	}
	for _, call := range calls {
		c.until(30*time.Second, call+" waits", all[call].asks)
	}
	for _, call := range calls {
		all[call].cmd.Process.Kill()
		c.until(10*time.Second, call+" ends", all[call].over)
	}
	began := time.Now()
	syscall.Kill(mount, syscall.SIGTERM)
	c.until(time.Minute, "it is unmounted", func() bool {
		b, _ := os.ReadFile("/proc/self/mounts")
		return !strings.Contains(string(b), " "+dir+" ")
	})
	t.Logf("unmounted in %v", time.Since(began))
	c.until(time.Minute, "its process has ended", func() bool { return syscall.Kill(mount, 0) != nil || zombie(mount) })
	took := time.Since(began)
	t.Logf("ended in %v", took)
	if took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestKillWaitingForData is TestKillWaiting for programs that wait for chunkservers.
func TestKillWaitingForData(t *testing.T) {
	c := start(t, "--servers", "2")
	calls := []string{"read", "fsync", "close", "exec"}
	c.sh(`mkdir $M/old; for f in read fsync close exec; do echo x > $M/old/$f; sync $M/old/$f; done`)
	dir := c.second() // which has no data yet
	all := make(map[string]*waiting)
	for _, call := range calls {
		all[call] = startWaiter(t, call, dir)
	}
	var stopped []int
	for _, role := range []string{"chunkd1", "chunkd2"} {
		stopped = append(stopped, c.processes(role)...)
	}
	signalAll := func(sig syscall.Signal) {
		for _, pid := range stopped {
			syscall.Kill(pid, sig)
		}
	}
	signalAll(syscall.SIGSTOP)
	t.Cleanup(func() { signalAll(syscall.SIGCONT) })
	for _, call := range calls {
		all[call].begin()
	}
	for _, call := range calls {
		w := all[call]
		c.until(30*time.Second, call+" waits", w.asks)
		if !stays(300*time.Millisecond, func() bool { return !w.over() }) {
			t.Fatalf("%s: does not wait: %q", call, w.said)
		}
		began := time.Now()
		w.cmd.Process.Kill()
		c.until(10*time.Second, call+" ends", w.over)
		t.Logf("%s: killed in %v", call, time.Since(began).Round(time.Millisecond))
	}
	signalAll(syscall.SIGCONT)
	for _, name := range []string{"fsync", "close", "exec"} {
		if b, err := os.ReadFile(filepath.Join(dir, "old", name)); err != nil || len(b) != much {
			t.Errorf("%s: what was written before the program was killed is not there: %d bytes, %v", name, len(b), err)
		}
	}
}
