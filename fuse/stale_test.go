package fuse

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hangVariable makes TestCleanStaleHung the process that is to be killed.
const hangVariable = "VARVE_TEST_HANG"

// hangingMount serves a mount whose READ is never answered while a thread of it
// waits in the kernel for the page of that READ. It prints the directory.
func hangingMount(t *testing.T) {
	f, dir := mountTree(t)
	f.block("read")
	fd := openFile(t, filepath.Join(dir, "file"))
	go readAt(t, fd, 0)
	f.awaitHeld(t)
	go f.n.pages(treeFile, 0, wholeFile)
	os.Stdout.WriteString("hanging " + dir + "\n")
	select {}
}

// TestCleanStaleHung kills a mount's process that cannot end, since a thread of
// it waits for itself in the kernel: the kernel does not end the connection.
func TestCleanStaleHung(t *testing.T) {
	if os.Getenv(hangVariable) != "" {
		hangingMount(t)
	}
	needFuse(t)
	if namesConnections() {
		other, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0) // as of a process that is about to mount
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestCleanStaleHung$")
	cmd.Env = append(os.Environ(), hangVariable+"=1", "TMPDIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	dir, ok := strings.CutPrefix(strings.TrimSpace(line), "hanging ")
	if err != nil || !ok {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("the mount says %q, %v", line, err)
	}
	m, _ := mountedOn(dir)
	defer removeDead(dir, m.minor)
	eventually(t, "a thread waits for the page", func() bool { return waitsInKernel(cmd.Process.Pid) })
	if err := CleanStale(dir); err != nil {
		t.Fatal(err)
	}
	if _, ok := mountedOn(dir); !ok {
		t.Fatal("the mount of a living process was taken away")
	}

	cmd.Process.Kill()
	eventually(t, "the process is dead", func() bool { return Ended(cmd.Process.Pid) })
	begin := time.Now()
	if err := CleanStale(dir); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
	if _, ok := mountedOn(dir); ok {
		t.Error("the dead mount is still there")
	}
	if err := inTime(20*time.Second, cmd.Wait); err == errSilent {
		t.Error("the killed process is still there")
	}
	if err := CheckMountpoint(dir, DefaultOptions()); err != nil {
		t.Error(err)
	}
}

// waitsInKernel tells whether a thread of a process is in uninterruptible sleep.
func waitsInKernel(pid int) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", pid))
	for _, name := range stats {
		if b, _ := os.ReadFile(name); strings.Contains(string(b), "folio") {
			return true
		}
	}
	return false
}

func TestConnectionOf(t *testing.T) {
	if n, ok := connectionOf("pos:\t0\nflags:\t02100002\nfuse_connection:\t105\n"); !ok || n != 105 {
		t.Errorf("%d, %v", n, ok)
	}
	for _, text := range []string{"", "pos:\t0\n", "fuse_connection:\tx\n"} {
		if n, ok := connectionOf(text); ok {
			t.Errorf("%q is connection %d", text, n)
		}
	}
}

func TestEnded(t *testing.T) {
	if Ended(os.Getpid()) {
		t.Error("this process has not ended")
	}
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a process that nobody has waited for is over", func() bool { return Ended(cmd.Process.Pid) })
	cmd.Wait()
	if !Ended(cmd.Process.Pid) {
		t.Error("a process that is gone has not ended")
	}
}
