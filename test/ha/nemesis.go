package ha

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/varvefs/varve/test/lan"
	"github.com/varvefs/varve/test/plan"
)

// fault is one thing that goes wrong.
type fault struct {
	name  string
	short bool // part of the short round
	// overlap allows two hosts to have the virtual address as long as the
	// kernel's lifetime: the old one could not be reached, or not run.
	overlap bool
	disk    bool // voters must have disks of their own
	// strike does it and undoes it; active is the host that leads when it begins.
	strike func(n *nemesis, active, standby string) error
}

// nemesis carries faults out.
type nemesis struct {
	*plan.Plan
	watch *watcher
	dir   string
	// newest is the highest number that a voter has had, if one was added.
	newest uint64
}

// kernelLifetime is how long a host that cannot run may keep the address, with
// what sampling and a loaded machine add.
const kernelLifetime = 3 * time.Second

const (
	metalogger = "metalogger"
	byHandName = "add the address by hand on the standby"
)

func (n *nemesis) master(host string) *plan.Unit { return n.Unit(host, "varve-master") }

// kill kills the master below its supervisor.
func (n *nemesis) kill(host string) error {
	pid := n.master(host).Child()
	if pid == 0 {
		return fmt.Errorf("no master runs on %s", host)
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// during applies faults of the network for a while.
func (n *nemesis) during(d time.Duration, faults ...lan.Fault) error {
	if err := n.LAN.SetFaults(faults...); err != nil {
		return err
	}
	time.Sleep(d)
	return n.LAN.SetFaults()
}

// stopped stops processes for a while.
func stopped(d time.Duration, pids ...int) error {
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGSTOP)
	}
	time.Sleep(d)
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGCONT)
	}
	return nil
}

// ended tells whether a process is gone, or dead and not yet buried.
func ended(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

// restart starts a unit whose process has ended, as systemd would.
func (n *nemesis) restart(host, unit string) error {
	if err := n.Unit(host, unit).Wait(30 * time.Second); err != nil {
		return err
	}
	return n.StartUnit(host, unit)
}

// powerCycle switches a host off and on again.
func (n *nemesis) powerCycle(host string, units ...string) error {
	h := n.Hosts[host]
	n.watch.detach(h)
	h.PowerOff()
	time.Sleep(2 * time.Second)
	if err := h.PowerOn(); err != nil {
		return err
	}
	n.watch.attach(h)
	for _, u := range units {
		if err := n.StartUnit(host, u); err != nil {
			return err
		}
	}
	return nil
}

// starved gives the processes 5 % of a processor for a while.
func starved(d time.Duration, pids ...int) error {
	dir := filepath.Join("/sys/fs/cgroup/cpu", fmt.Sprintf("varve-ha-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil // no control groups of the first version here: nothing is starved
	}
	write := func(dir, file, text string) error { return os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644) }
	err := write(dir, "cpu.cfs_quota_us", "5000")
	for _, pid := range pids {
		if err == nil {
			err = write(dir, "cgroup.procs", strconv.Itoa(pid))
		}
	}
	time.Sleep(d)
	for _, pid := range pids {
		if e := write("/sys/fs/cgroup/cpu", "cgroup.procs", strconv.Itoa(pid)); err == nil && syscall.Kill(pid, 0) == nil {
			err = e
		}
	}
	for range 100 {
		if os.Remove(dir) == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// byHand adds the virtual address where it does not belong, until status calls that a problem.
func (n *nemesis) byHand(host string) error {
	if err := n.Hosts[host].Do(func() error {
		return exec.Command("ip", "addr", "add", n.VIP.String()+"/32", "dev", "eth0").Run()
	}); err != nil {
		return err
	}
	err := n.Await(time.Minute, "status names the host that has the virtual address too", func() bool {
		out, err := n.Varve("client", "status")
		return err == nil && strings.Contains(out, "answers for the virtual address "+n.VIP.String())
	})
	return errors.Join(err, n.Hosts[host].Do(func() error {
		return exec.Command("ip", "addr", "del", n.VIP.String()+"/32", "dev", "eth0").Run()
	}))
}

// faults are all that is known to go wrong.
var faults = []fault{
	{name: "kill the leader", short: true, strike: func(n *nemesis, active, _ string) error { return n.kill(active) }},
	{name: "hand over", short: true, strike: func(n *nemesis, _, _ string) error {
		_, err := n.Varve("client", "master", "handover")
		return err
	}},
	{name: "isolate the leader", short: true, overlap: true, strike: func(n *nemesis, active, _ string) error {
		return n.during(3*time.Second, lan.Isolate(n.Hosts[active])...)
	}},
	{name: "kill the standby", strike: func(n *nemesis, _, standby string) error { return n.kill(standby) }},
	{name: "kill leader and supervisor", overlap: true, strike: func(n *nemesis, active, _ string) error {
		u := n.master(active)
		child := u.Child()
		u.Signal(syscall.SIGKILL)
		syscall.Kill(child, syscall.SIGKILL)
		return n.restart(active, "varve-master")
	}},
	{name: "kill the supervisor", overlap: true, strike: func(n *nemesis, active, _ string) error {
		u := n.master(active)
		child := u.Child()
		u.Signal(syscall.SIGKILL)
		// The master gets SIGTERM, hands over and ends.
		if err := n.Await(time.Minute, "the master ends with its supervisor", func() bool { return ended(child) }); err != nil {
			return err
		}
		return n.restart(active, "varve-master")
	}},
	{name: "stop the leader's unit", strike: func(n *nemesis, active, _ string) error {
		n.master(active).Signal(syscall.SIGTERM)
		return n.restart(active, "varve-master")
	}},
	{name: "stop the leader's process for 2 s", strike: func(n *nemesis, active, _ string) error {
		return stopped(2*time.Second, n.master(active).Child())
	}},
	{name: "stop leader and supervisor for 4 s", overlap: true, strike: func(n *nemesis, active, _ string) error {
		return stopped(4*time.Second, n.master(active).Child(), n.master(active).Pid())
	}},
	{name: "switch the leader's machine off", overlap: true, strike: func(n *nemesis, active, _ string) error {
		return n.powerCycle(active, "varve-master")
	}},
	{name: "isolate the standby", strike: func(n *nemesis, _, standby string) error {
		return n.during(3*time.Second, lan.Isolate(n.Hosts[standby])...)
	}},
	{name: "isolate the metalogger", strike: func(n *nemesis, _, _ string) error {
		return n.during(3*time.Second, lan.Isolate(n.Hosts[metalogger])...)
	}},
	{name: "cut the masters from each other", overlap: true, strike: func(n *nemesis, active, standby string) error {
		return n.during(3*time.Second, lan.Cut([]*lan.Host{n.Hosts[active]}, []*lan.Host{n.Hosts[standby]})...)
	}},
	{name: "nothing leaves the leader", overlap: true, strike: func(n *nemesis, active, _ string) error {
		return n.during(3*time.Second, lan.Fault{From: n.Hosts[active]})
	}},
	{name: "nothing reaches the leader", overlap: true, strike: func(n *nemesis, active, _ string) error {
		return n.during(3*time.Second, lan.Fault{To: n.Hosts[active]})
	}},
	{name: "flapping", overlap: true, strike: func(n *nemesis, active, _ string) error {
		for range 8 {
			if err := n.during(400*time.Millisecond, lan.Isolate(n.Hosts[active])...); err != nil {
				return err
			}
			time.Sleep(300 * time.Millisecond)
		}
		return nil
	}},
	{name: "lose a fifth of all frames", overlap: true, strike: func(n *nemesis, _, _ string) error {
		return n.during(4*time.Second, lan.Fault{Percent: 20})
	}},
	{name: "lose all datagrams", strike: func(n *nemesis, _, _ string) error {
		return n.during(6*time.Second, lan.Fault{UDP: true})
	}},
	{name: "starve the leader", overlap: true, strike: func(n *nemesis, active, _ string) error {
		return starved(5*time.Second, n.master(active).Child())
	}},
	{name: byHandName, overlap: true, strike: func(n *nemesis, _, standby string) error { return n.byHand(standby) }},
	{name: "kill all voters at once", overlap: true, strike: func(n *nemesis, active, standby string) error {
		n.kill(active)
		n.kill(standby)
		n.Unit(metalogger, "varve-metalogger").Signal(syscall.SIGKILL)
		return n.restart(metalogger, "varve-metalogger")
	}},
	{name: "freeze the leader's disk", disk: true, overlap: true, strike: func(n *nemesis, active, _ string) error { return n.freeze(active) }},
	{name: "fill the leader's disk", disk: true, overlap: true, strike: func(n *nemesis, active, _ string) error { return n.fill(active) }},
	{name: "lie to the gossip", strike: func(n *nemesis, _, _ string) error { return n.forge() }},
	{name: "cut the tail of the standby's changelog", disk: true, overlap: true, strike: func(n *nemesis, _, standby string) error { return n.cutTail(standby) }},
	{name: "wipe the standby, and add it anew", disk: true, strike: func(n *nemesis, active, standby string) error { return n.wipe(active, standby) }},
	{name: "switch a chunkserver off", strike: func(n *nemesis, _, _ string) error { return n.powerCycle("chunk1", "varve-chunkd") }},
}
