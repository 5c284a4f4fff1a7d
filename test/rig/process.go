package rig

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stepPatience bounds the start and the end of a daemon.
const stepPatience = 30 * time.Second

// process is one daemon.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer
	log   string        // file with what it said
	ended chan struct{} // closed when it has been waited for
	err   error         // of Wait, valid then
}

// launch starts a daemon and waits until it is ready.
func launch(dir, name string, r role) (*process, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{name: name, log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	logFile, err := os.OpenFile(p.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	p.cmd = exec.Command(self)
	p.cmd.Env = append(os.Environ(), roleVariable+"="+string(text))
	p.cmd.Stderr = logFile
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.stdin = stdin
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	said := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(stdout).ReadString('\n')
		said <- strings.TrimSpace(line)
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	select {
	case line := <-said:
		if line == "ready" {
			return p, nil
		}
		<-p.ended
		return nil, fmt.Errorf("%s does not start: %w\n%s", name, p.err, p.tail())
	case <-time.After(stepPatience):
		p.kill()
		return nil, fmt.Errorf("%s is not ready after %v\n%s", name, stepPatience, p.tail())
	}
}

// stop asks the daemon to end and waits for it.
func (p *process) stop() error {
	p.stdin.Close()
	select {
	case <-p.ended:
		if p.err != nil {
			return fmt.Errorf("%s ended badly: %w\n%s", p.name, p.err, p.tail())
		}
		return nil
	case <-time.After(stepPatience):
		p.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines go to the log
		select {
		case <-p.ended:
		case <-time.After(stepPatience / 10):
		}
		p.kill()
		return fmt.Errorf("%s does not end, it was killed\n%s", p.name, p.tail())
	}
}

// kill ends it as a power cut would.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
	p.stdin.Close()
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// tail is the end of what the daemon said.
func (p *process) tail() string {
	const most = 16 << 10
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}

// report prints what a daemon said when the test has failed.
func (p *process) report(t testing.TB) {
	if text := strings.TrimSpace(p.tail()); text != "" {
		t.Logf("--- log of %s ---\n%s", p.name, text)
	}
}
