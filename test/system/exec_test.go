package system

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestExecWithOpenFiles: a program that begins another one closes its files on the way. The kernel waits
// for each, and lets nobody read meanwhile where the program is.
func TestExecWithOpenFiles(t *testing.T) {
	c := start(t)
	for i := range 200 {
		f, err := os.Create(filepath.Join(c.mnt, fmt.Sprint("f", i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	mounts := c.processes("mount") // which could not be looked for later
	done := make(chan error, 1)
	go func() { done <- exec.Command("true").Run() }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		for _, pid := range mounts {
			syscall.Kill(pid, syscall.SIGKILL) // else nothing of ours would end
		}
		t.Fatal("it hangs")
	}
}
