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
const away = 1800 * time.Millisecond

var kinds = map[string]kind{
	"handover": func(b *bench, _, _ string) error {
		_, err := b.Varve("client", "master", "handover")
		return err
	},
	"kill":    func(b *bench, active, _ string) error { return b.kill(active) },
	"standby": func(b *bench, _, standby string) error { return b.kill(standby) },
	"metalogger": func(b *bench, _, _ string) error {
		u := b.Unit("metalogger", "varve-metalogger")
		if err := u.Signal(syscall.SIGKILL); err != nil {
			return err
		}
		if err := u.Wait(10 * time.Second); err != nil {
			return err
		}
		time.Sleep(window)
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

// kill kills the master below the supervisor. Later the unit is started anew: a
// supervisor whose master dies again and again lets more and more time pass before it
// starts the next one.
func (b *bench) kill(host string) error {
	u := b.Unit(host, "varve-master")
	pid := u.Child()
	if pid == 0 {
		return fmt.Errorf("no master runs on %s", host)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	time.Sleep(window)
	if err := u.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := u.Wait(10 * time.Second); err != nil {
		return err
	}
	return b.StartUnit(host, "varve-master")
}
