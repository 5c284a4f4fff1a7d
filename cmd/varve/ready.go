package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// readyEnv names the pipe on which a child process tells its parent that it is
// ready ("ready" and what it wants to say) or why it is not ("error").
const readyEnv = "VARVE_READY_FD"

// tellParent reports that this process is ready, or err. Without a waiting
// parent it does nothing.
func tellParent(text string, err error) {
	fd, convErr := strconv.Atoi(os.Getenv(readyEnv))
	if convErr != nil {
		return
	}
	os.Unsetenv(readyEnv)
	f := os.NewFile(uintptr(fd), "ready")
	if err != nil {
		fmt.Fprintf(f, "error %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	} else {
		fmt.Fprintf(f, "ready %s\n", text)
	}
	f.Close()
}

// tellSystemd reports to the service manager that this process is ready, if it was
// started as a service of Type=notify: see sd_notify(3).
func tellSystemd() error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	os.Unsetenv("NOTIFY_SOCKET")
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err == nil {
		_, err = c.Write([]byte("READY=1"))
		c.Close()
	}
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}

// reporting has a waiting parent told why a command failed.
func reporting(run func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		err := run(c, args)
		if err != nil {
			tellParent("", err)
		}
		return err
	}
}

// startReady starts cmd with a pipe for tellParent and gives the reader of it.
func startReady(cmd *exec.Cmd) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	cmd.ExtraFiles = append(cmd.ExtraFiles, w)
	env := cmd.Env
	if env == nil {
		env = os.Environ()
	}
	cmd.Env = append(env, fmt.Sprintf("%s=%d", readyEnv, 2+len(cmd.ExtraFiles)))
	if err := cmd.Start(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// waitReady reads what the child tells: its text when it is ready, else an error.
func waitReady(r io.ReadCloser) (string, error) {
	defer r.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		return "", errors.New("it ended before it was ready")
	}
	kind, text, _ := strings.Cut(strings.TrimSpace(line), " ")
	if kind != "ready" {
		return "", errors.New(text)
	}
	return text, nil
}

// background starts this very command again, detached from the terminal, with
// an added flag that keeps it in the foreground there, and waits until it is ready.
func background(foregroundFlag string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, append(append([]string{}, os.Args[1:]...), foregroundFlag)...)
	cmd.Args[0] = os.Args[0]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	r, err := startReady(cmd)
	if err != nil {
		return err
	}
	_, err = waitReady(r)
	return err
}
