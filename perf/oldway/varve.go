package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/varvefs/varve/test/lan"
	"github.com/varvefs/varve/test/plan"
)

// varve is the six-machine plan of Varve.
type varve struct{ *plan.Plan }

func startVarve(dir, bin string) (deployment, error) {
	own := filepath.Join(dir, "varve") // where the user that it runs as can reach it
	if out, err := exec.Command("cp", bin, own).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	p, err := plan.New(plan.Options{Packaging: "packaging", Binary: own, Dir: dir})
	if err != nil {
		return nil, err
	}
	if err := p.Start(); err != nil {
		logs := p.Logs()
		p.Close()
		return nil, fmt.Errorf("%w\n%s", err, logs)
	}
	return &varve{p}, nil
}

func (v *varve) client() *lan.Host { return v.Hosts["client"] }
func (v *varve) logs() string      { return v.Logs() }
func (v *varve) close()            { v.Close() }

func (v *varve) mount(name string) (string, error) {
	_, err := v.Mount(name, "-o", "dirsync") // a caller that waits for the master, as MooseFS's do
	return "/mnt/" + name, err
}

func (v *varve) strike(what string) error {
	holders := v.Holders()
	if len(holders) != 1 {
		return fmt.Errorf("%d machines have the virtual address: %v", len(holders), holders)
	}
	if what == "poweroff" {
		v.Hosts[holders[0]].PowerOff()
		return nil
	}
	child := v.Unit(holders[0], "varve-master").Child()
	if child == 0 {
		return fmt.Errorf("no master runs on %s", holders[0])
	}
	return syscall.Kill(child, syscall.SIGKILL)
}

// pidsOf finds the processes of a program in the process space of a host.
func pidsOf(h *lan.Host, name string) (pids []int) {
	root, err := os.Readlink(filepath.Dir(h.Root()) + "/ns/pid")
	if err != nil {
		return nil
	}
	list, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, f := range list {
		comm, _ := os.ReadFile(f)
		space, _ := os.Readlink(filepath.Dir(f) + "/ns/pid")
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil && space == root && strings.TrimSpace(string(comm)) == name {
			pids = append(pids, pid)
		}
	}
	return pids
}
