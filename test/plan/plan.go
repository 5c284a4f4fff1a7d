// Package plan runs the six-machine plan of docs/deployment.md on one machine:
// two masters, a metalogger, two chunkservers and a client, each a host of
// test/lan, started from the files of packaging: the configuration, /etc/hosts, and the
// command lines of the systemd units. test/ha torments it; perf/oldway measures
// it. A Plan belongs to one goroutine.
package plan

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/varvefs/varve/test/lan"
)

// Plan is the running plan.
type Plan struct {
	LAN   *lan.LAN
	Hosts map[string]*lan.Host // by their names in the hosts file
	VIP   netip.Addr
	Key   []byte // of the cluster

	o     Options
	units map[string]*Unit // "master1/varve-master"
}

// Options say where things are.
type Options struct {
	Packaging string            // the directory packaging
	Binary    string            // absolute path of varve
	Dir       string            // for the machines' files
	Disk      int64             // bytes of a disk of its own for each voter (a file system in a sparse file); 0: none
	Replace   map[string]string // in varve.toml: what to write instead, for tests
}

// Unit is one daemon on one host.
type Unit struct {
	Host *lan.Host
	Name string
	cmd  *exec.Cmd
	done chan struct{}
	log  string
}

// roles are the units of each machine.
var roles = []struct{ host, unit string }{
	{"metalogger", "varve-metalogger"}, {"master1", "varve-master"}, {"master2", "varve-master"},
	{"chunk1", "varve-chunkd"}, {"chunk2", "varve-chunkd"},
}

// New builds the machines and installs the files; nothing runs yet.
func New(o Options) (*Plan, error) {
	p := &Plan{Hosts: map[string]*lan.Host{}, o: o, units: map[string]*Unit{}}
	hosts, err := os.ReadFile(filepath.Join(o.Packaging, "six-machines", "hosts"))
	if err != nil {
		return nil, err
	}
	config, err := os.ReadFile(filepath.Join(o.Packaging, "six-machines", "varve.toml"))
	if err != nil {
		return nil, err
	}
	// The machine that tests has no user varve; nobody has no rights either.
	const user, nobody = `user = "varve"`, 65534
	text := strings.Replace(string(config), user, `user = "nobody"`, 1)
	for from, to := range o.Replace {
		if !strings.Contains(text, from) {
			return nil, fmt.Errorf("varve.toml has no %q", from)
		}
		text = strings.ReplaceAll(text, from, to)
	}
	if p.LAN, err = lan.New("10.77.0.0/24"); err != nil {
		return nil, err
	}
	key := strings.Repeat("0123456789abcdef", 4) + "\n"
	p.Key, _ = hex.DecodeString(strings.TrimSpace(key))
	for _, line := range strings.Split(string(hosts), "\n") {
		addr, name, ok := strings.Cut(line, " ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if name == "mfsmaster" {
			p.VIP = netip.MustParseAddr(addr)
			continue
		}
		h, err := p.LAN.Host(name, addr, filepath.Join(o.Dir, name))
		if err == nil {
			p.Hosts[name] = h
			err = errors.Join(put(h, "/etc/hosts", "127.0.0.1 localhost\n"+string(hosts)), put(h, "/etc/varve/varve.toml", text), put(h, "/etc/varve/cluster.key", key),
				os.MkdirAll(h.Root()+"/var/lib/varve", 0o755), os.Chown(h.Root()+"/var/lib/varve", nobody, nobody))
		}
		if err != nil {
			p.Close()
			return nil, err
		}
	}
	return p, nil
}

func put(h *lan.Host, name, text string) error {
	path := h.Root() + name
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// Start starts all daemons and waits until a master leads and both chunkservers are there.
func (p *Plan) Start() error {
	for _, r := range roles {
		if err := p.StartUnit(r.host, r.unit); err != nil {
			return err
		}
	}
	return p.Await(time.Minute, "a leader with two chunkservers", func() bool {
		out, err := p.Varve("client", "status", "--json")
		return err == nil && strings.Count(out, `"state": "up"`) >= 2 && strings.Contains(out, `"leader"`)
	})
}

// Await polls until cond holds.
func (p *Plan) Await(limit time.Duration, what string, cond func() bool) error {
	for deadline := time.Now().Add(limit); !cond(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %s", limit, what)
		}
	}
	return nil
}

// StartUnit runs the command line of a systemd unit on a host.
func (p *Plan) StartUnit(host, unit string) error {
	line, err := execStart(filepath.Join(p.o.Packaging, "systemd", unit+".service"))
	if err != nil {
		return err
	}
	words := strings.Fields(line)
	if words[0] != "/usr/bin/varve" {
		return fmt.Errorf("%s starts %s", unit, words[0])
	}
	h := p.Hosts[host]
	if err := p.mountDisk(h, unit); err != nil {
		return err
	}
	u := &Unit{Host: h, Name: unit, cmd: exec.Command(p.o.Binary, words[1:]...), done: make(chan struct{}), log: filepath.Join(p.o.Dir, host+"-"+unit+".log")}
	f, err := os.OpenFile(u.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	u.cmd.Stdout, u.cmd.Stderr = f, f
	u.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.Start(u.cmd); err != nil {
		return err
	}
	go func() { u.cmd.Wait(); close(u.done) }()
	p.units[host+"/"+unit] = u
	return nil
}

// execStart reads the command line of a unit.
func execStart(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if line, ok := strings.CutPrefix(s.Text(), "ExecStart="); ok {
			return line, nil
		}
	}
	return "", fmt.Errorf("%s has no ExecStart", name)
}

// Unit gives a daemon, nil if it was never started.
func (p *Plan) Unit(host, unit string) *Unit { return p.units[host+"/"+unit] }

// Signal sends a signal to the unit's own process: of a master, the supervisor.
func (u *Unit) Signal(sig syscall.Signal) error { return syscall.Kill(u.cmd.Process.Pid, sig) }

// Pid is the unit's own process.
func (u *Unit) Pid() int { return u.cmd.Process.Pid }

// Child is the process below a supervisor, 0 if there is none now.
func (u *Unit) Child() int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", u.cmd.Process.Pid))
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		var pid int
		if _, err := fmt.Sscan(string(b), &pid); err == nil {
			return pid
		}
	}
	return 0
}

// Wait waits for the unit's end.
func (u *Unit) Wait(limit time.Duration) error {
	select {
	case <-u.done:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("%s on %s does not end within %v", u.Name, u.Host.Name, limit)
	}
}

// Running tells whether the unit's process lives.
func (u *Unit) Running() bool {
	select {
	case <-u.done:
		return false
	default:
		return true
	}
}

// Varve runs the binary as a tool on a host.
func (p *Plan) Varve(host string, args ...string) (string, error) {
	return p.Hosts[host].Run("timeout", append([]string{"10", p.o.Binary}, args...)...)
}

// Mount mounts the file system on the client's /mnt/NAME, with more arguments of
// 'varve mount' if need be, and gives the path by which this process sees it.
func (p *Plan) Mount(name string, args ...string) (string, error) {
	h := p.Hosts["client"]
	if _, err := h.Run("mkdir", "-p", "/mnt/"+name); err != nil {
		return "", err
	}
	log := filepath.Join(p.o.Dir, "client-mount-"+name+".log")
	args = append([]string{"60", p.o.Binary, "mount", "--log-file", log}, append(args, "/mnt/"+name)...)
	_, err := h.Run("timeout", args...)
	return h.Root() + "/mnt/" + name, err
}

// Holders are the hosts that have the virtual address now.
func (p *Plan) Holders() (names []string) {
	for _, name := range []string{"master1", "master2", "metalogger", "chunk1", "chunk2", "client"} {
		out, err := p.Hosts[name].Run("ip", "-o", "addr", "show", "to", p.VIP.String())
		if err == nil && strings.Contains(out, p.VIP.String()) {
			names = append(names, name)
		}
	}
	return names
}

// Logs is the end of every daemon's log.
func (p *Plan) Logs() string {
	var b strings.Builder
	list, _ := filepath.Glob(filepath.Join(p.o.Dir, "*.log"))
	for _, name := range list {
		text, _ := os.ReadFile(name)
		fmt.Fprintf(&b, "--- %s ---\n%s\n", filepath.Base(name), text[max(0, len(text)-6000):])
	}
	return b.String()
}

// Close switches everything off.
func (p *Plan) Close() { p.LAN.Close() }
