package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/varvefs/varve/test/lan"
)

// moose is the old deployment.
type moose struct {
	lan   *lan.LAN
	hosts map[string]*lan.Host
}

func startMoose(dir string) (deployment, error) {
	if err := lan.Needs("keepalived", "unison", "inotifywait", "mfsmaster", "mfsmetalogger", "mfschunkserver", "mfsmount"); err != nil {
		return nil, err
	}
	l, err := lan.New(network)
	if err != nil {
		return nil, err
	}
	m := &moose{lan: l, hosts: map[string]*lan.Host{}}
	for _, line := range strings.Split(strings.TrimSpace(names), "\n") {
		addr, name, _ := strings.Cut(line, " ")
		if addr == vip {
			continue
		}
		h, err := l.Host(name, addr, filepath.Join(dir, name))
		if err == nil {
			m.hosts[name] = h
			err = put(h, "/etc/hosts", "127.0.0.1 localhost\n"+names, 0o644)
		}
		if err != nil {
			m.close()
			return nil, err
		}
	}
	if err := m.start(); err != nil {
		logs := m.logs()
		m.close()
		return nil, fmt.Errorf("%w\n%s", err, logs)
	}
	return m, nil
}

// start brings the machines up in the order of the guides.
func (m *moose) start() error {
	if err := m.masters(); err != nil {
		return err
	}
	for i, name := range []string{"cs1", "cs2"} {
		h := m.hosts[name]
		if err := errors.Join(put(h, "/etc/mfs/mfschunkserver.cfg", chunkConfig, 0o644), put(h, "/etc/mfs/mfshdd.cfg", "/var/lib/mfs/hdd\n", 0o644),
			os.MkdirAll(h.Root()+"/var/lib/mfs/hdd", 0o755)); err != nil {
			return err
		}
		if _, err := h.Run("mfschunkserver", "-c", "/etc/mfs/mfschunkserver.cfg", "start"); err != nil {
			return fmt.Errorf("chunkserver %d: %w", i+1, err)
		}
	}
	for _, name := range []string{"m2", "ml"} {
		h := m.hosts[name]
		if err := errors.Join(put(h, "/etc/mfs/mfsmetalogger.cfg", loggerConfig, 0o644), os.MkdirAll(h.Root()+"/var/lib/mfs", 0o755)); err != nil {
			return err
		}
		if _, err := h.Run("mfsmetalogger", "-c", "/etc/mfs/mfsmetalogger.cfg", "start"); err != nil {
			return err
		}
	}
	return m.await("the metalogger's copy", func() bool {
		list, _ := filepath.Glob(m.hosts["m2"].Root() + "/var/lib/mfs/metadata_ml*")
		return len(list) > 0
	})
}

// masters starts mfsmaster on the first machine, keepalived on both, and unison between them.
func (m *moose) masters() error {
	m1, m2 := m.hosts["m1"], m.hosts["m2"]
	for i, h := range []*lan.Host{m1, m2} {
		state, priority := "MASTER", 100
		if i == 1 {
			state, priority = "BACKUP", 90
		}
		if err := errors.Join(os.MkdirAll(h.Root()+"/var/lib/mfs", 0o755), put(h, "/etc/mfs/mfsmaster.cfg", masterConfig, 0o644), put(h, "/etc/mfs/mfsexports.cfg", exports, 0o644),
			put(h, "/etc/mfs/mfsmetalogger.cfg", loggerConfig, 0o644), put(h, "/etc/keepalived/keepalived.conf", keepalived(state, priority), 0o644),
			put(h, "/etc/keepalived/check.sh", checkScript, 0o755), put(h, "/etc/keepalived/master.sh", masterScript, 0o755),
			put(h, "/etc/keepalived/backup.sh", backupScript, 0o755), put(h, "/root/.unison/mfs.prf", unisonProfile, 0o644), put(h, "/root/watch.sh", watchScript, 0o755)); err != nil {
			return err
		}
	}
	if err := put(m1, "/var/lib/mfs/metadata.mfs", "MFSM NEW", 0o644); err != nil {
		return err
	}
	if _, err := m1.Run("mfsmaster", "-c", "/etc/mfs/mfsmaster.cfg", "start"); err != nil {
		return err
	}
	serve := exec.Command("sh", "-c", "export HOME=/root; exec unison -socket 7777 >/root/unison-server.log 2>&1")
	if err := m2.Start(serve); err != nil {
		return err
	}
	if err := m1.Start(exec.Command("/bin/sh", "/root/watch.sh")); err != nil {
		return err
	}
	for _, h := range []*lan.Host{m1, m2} {
		k := exec.Command("sh", "-c", "exec keepalived -n -l -D -P >/root/keepalived.log 2>&1")
		if err := h.Start(k); err != nil {
			return err
		}
		if err := m.await("the virtual address", func() bool { l := m.holders(); return len(l) == 1 && l[0] == m1 }); err != nil {
			return err
		}
	}
	return nil
}

func (m *moose) await(what string, cond func() bool) error {
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within a minute: %s", what)
		}
	}
	return nil
}

func (m *moose) holders() (list []*lan.Host) {
	for _, name := range []string{"m1", "m2"} {
		if out, err := m.hosts[name].Run("ip", "-o", "addr", "show", "to", vip); err == nil && strings.Contains(out, vip) {
			list = append(list, m.hosts[name])
		}
	}
	return list
}

func (m *moose) client() *lan.Host { return m.hosts["cl"] }

func (m *moose) mount(name string) (string, error) {
	dir := "/mnt/" + name
	if _, err := m.client().Run("mkdir", "-p", dir); err != nil {
		return "", err
	}
	return dir, m.await("a mount", func() bool {
		_, err := m.client().Run("timeout", "20", "mfsmount", dir, "-H", "mfsmaster")
		return err == nil
	})
}

func (m *moose) strike(what string) error {
	if what == "poweroff" {
		m.hosts["m1"].PowerOff()
		return nil
	}
	pids := pidsOf(m.hosts["m1"], "mfsmaster")
	if len(pids) == 0 {
		return errors.New("no mfsmaster runs")
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return err
		}
	}
	return nil
}

func (m *moose) logs() string {
	var b strings.Builder
	for name, h := range m.hosts {
		for _, f := range []string{"/root/takeover.log", "/root/keepalived.log", "/root/unison.log", "/root/unison-server.log"} {
			if text, err := os.ReadFile(h.Path(f)); err == nil {
				fmt.Fprintf(&b, "--- %s:%s ---\n%s\n", name, f, text[max(0, len(text)-2500):])
			}
		}
		list, _ := filepath.Glob(h.Path("/var/lib/mfs/x") + "/../*")
		fmt.Fprintf(&b, "--- %s: %v\n", name, list)
	}
	return b.String()
}

func (m *moose) close() { m.lan.Close() }
