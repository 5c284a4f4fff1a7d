package main

import (
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/varvefs/varve/test/lan"
)

// kind does one kind of harm, and undoes it when the failover is over.
type kind func(b *bench, active, standby string) error

// away is how long a host or process that comes back is away.
const away = 2500 * time.Millisecond

var kinds = map[string]kind{
	"handover": func(b *bench, _, _ string) error {
		_, err := b.Varve("client", "master", "handover")
		return err
	},
	"kill":    func(b *bench, active, _ string) error { return b.signal(active, syscall.SIGKILL) },
	"standby": func(b *bench, _, standby string) error { return b.signal(standby, syscall.SIGKILL) },
	"metalogger": func(b *bench, _, _ string) error {
		u := b.Unit("metalogger", "varve-metalogger")
		if err := u.Signal(syscall.SIGKILL); err != nil {
			return err
		}
		if err := u.Wait(10 * time.Second); err != nil {
			return err
		}
		return b.StartUnit("metalogger", "varve-metalogger")
	},
	"stop": func(b *bench, active, _ string) error { // SIGSTOP
		pid := b.Unit(active, "varve-master").Child()
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return err
		}
		time.Sleep(away)
		return syscall.Kill(pid, syscall.SIGCONT)
	},
	"partition": func(b *bench, active, _ string) error {
		if err := b.LAN.SetFaults(lan.Isolate(b.Hosts[active])...); err != nil {
			return err
		}
		time.Sleep(away)
		return b.LAN.SetFaults()
	},
	"poweroff": func(b *bench, active, _ string) error {
		h := b.Hosts[active]
		h.PowerOff()
		time.Sleep(away)
		if err := h.PowerOn(); err != nil {
			return err
		}
		return b.StartUnit(active, "varve-master")
	},
}

func kindNames() []string { return slices.Sorted(maps.Keys(kinds)) }

// signal sends a signal to the master below the supervisor.
func (b *bench) signal(host string, sig syscall.Signal) error {
	pid := b.Unit(host, "varve-master").Child()
	if pid == 0 {
		return fmt.Errorf("no master runs on %s", host)
	}
	return syscall.Kill(pid, sig)
}
