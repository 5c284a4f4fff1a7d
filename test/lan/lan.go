package lan

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// LAN is one bridge with its hosts.
type LAN struct {
	net    netip.Prefix
	bridge *space
	hosts  []*Host
	faults []Fault
}

// Needs says what is missing to build a LAN; nil: nothing.
func Needs(programs ...string) error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	for _, p := range append([]string{"ip", "unshare"}, programs...) {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s is not installed", p)
		}
	}
	return nil
}

// New makes a bridge for hosts with addresses in the given network, IPv4 or IPv6.
func New(network string) (*LAN, error) {
	p, err := netip.ParsePrefix(network)
	if err != nil {
		return nil, err
	}
	s, err := newSpace("--net", "")
	if err != nil {
		return nil, fmt.Errorf("make a namespace for the bridge: %w", err)
	}
	l := &LAN{net: p, bridge: s}
	// Without spanning tree and snooping a port forwards at once.
	err = s.all("ip link set lo up", "ip link add lan0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0", "ip link set lan0 up")
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close ends all processes on all hosts and removes the network.
func (l *LAN) Close() {
	for _, h := range l.hosts {
		h.PowerOff()
	}
	l.bridge.end()
}

// Host is one machine.
type Host struct {
	Name string
	Addr netip.Addr
	dir  string // what it keeps
	lan  *LAN

	mu sync.Mutex // guards what follows
	s  *space     // nil while it is off
	n  int        // of boots
}

// overlaid are the directories that a host has of its own.
var overlaid = []string{"/etc", "/root", "/run", "/mnt", "/var/lib"}

// Host adds a machine and switches it on. Its files are kept in dir.
func (l *LAN) Host(name, addr, dir string) (*Host, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, err
	}
	h := &Host{Name: name, Addr: a, dir: dir, lan: l}
	l.hosts = append(l.hosts, h)
	return h, h.PowerOn()
}

// PowerOn boots the machine: no process of it runs yet.
func (h *Host) PowerOn() error {
	var script strings.Builder
	fmt.Fprintf(&script, "set -e; hostname %s; mount --make-rprivate /; mount -t proc proc /proc\n", h.Name)
	for _, d := range overlaid {
		upper := filepath.Join(h.dir, strings.ReplaceAll(d[1:], "/", "-"))
		for _, sub := range []string{"/upper", "/work"} {
			if err := os.MkdirAll(upper+sub, 0o755); err != nil {
				return err
			}
		}
		fmt.Fprintf(&script, "mount -t overlay overlay -o lowerdir=%s,upperdir=%s/upper,workdir=%s/work %s\n", d, upper, upper, d)
	}
	s, err := newSpace("--net --mount --uts --pid --fork --kill-child", script.String())
	if err != nil {
		return fmt.Errorf("switch on %s: %w", h.Name, err)
	}
	h.mu.Lock()
	h.s, h.n = s, h.n+1
	h.mu.Unlock()
	if err := h.plug(s); err != nil {
		return fmt.Errorf("plug %s in: %w", h.Name, err)
	}
	return nil
}

// plug connects the host's eth0 with its port of the bridge. A port that was
// left by a former life vanishes with the other end. The hardware address is
// made of the host's, so that it is the same after each boot.
func (h *Host) plug(s *space) error {
	port, bits := h.port(), h.lan.net.Bits()
	a := h.Addr.As16()
	err := h.lan.bridge.all(
		fmt.Sprintf("ip link add %s type veth peer name eth0 address 02:00:%02x:%02x:%02x:%02x netns %d", port, a[12], a[13], a[14], a[15], s.init),
		fmt.Sprintf("ip link set %s master lan0 up", port))
	if err != nil {
		return err
	}
	nodad := ""
	if h.Addr.Is6() {
		nodad = " nodad"
	}
	return s.all("ip link set lo up", "ip link set eth0 up", fmt.Sprintf("ip addr add %s/%d dev eth0%s", h.Addr, bits, nodad))
}

// port is the bridge's end of the host's cable. Each boot has a new one, since
// the kernel removes the old one only some time after the power went off.
func (h *Host) port() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return fmt.Sprintf("%s.%d", h.Name, h.n)
}

// PowerOff ends all processes of the host at once.
func (h *Host) PowerOff() {
	h.mu.Lock()
	s := h.s
	h.s = nil
	h.mu.Unlock()
	if s != nil {
		s.end()
	}
}

// Start starts a command on the host. The process ends with the host at the latest.
func (h *Host) Start(c *exec.Cmd) error {
	h.mu.Lock()
	s := h.s
	h.mu.Unlock()
	if s == nil {
		return fmt.Errorf("%s is off", h.Name)
	}
	return s.start(c)
}

// Run runs a command on the host and gives what it says.
func (h *Host) Run(name string, args ...string) (string, error) {
	c := exec.Command(name, args...)
	var out strings.Builder
	c.Stdout, c.Stderr = &out, &out
	err := h.Start(c)
	if err == nil {
		err = c.Wait()
	}
	if err != nil {
		return out.String(), fmt.Errorf("on %s: %s %s: %w: %s", h.Name, name, strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// Do calls f on a thread that is in the host's network namespace: sockets that f
// opens itself belong to the host, wherever they are used later.
func (h *Host) Do(f func() error) error {
	h.mu.Lock()
	s := h.s
	h.mu.Unlock()
	if s == nil {
		return fmt.Errorf("%s is off", h.Name)
	}
	return s.inside(unix.CLONE_NEWNET, f)
}

// Path is where the machine sees a file of one of the host's own directories,
// if the host has written it.
func (h *Host) Path(name string) string {
	for _, d := range overlaid {
		if rest, ok := strings.CutPrefix(name, d+"/"); ok {
			return filepath.Join(h.dir, strings.ReplaceAll(d[1:], "/", "-"), "upper", rest)
		}
	}
	return name
}

// Root is the host's file system as other processes of the machine can reach it.
func (h *Host) Root() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.s == nil {
		return ""
	}
	return fmt.Sprintf("/proc/%d/root", h.s.init)
}

// space is a set of namespaces held open by a process that sleeps.
type space struct {
	cmd  *exec.Cmd
	init int // process in the namespaces
}

// newSpace makes the namespaces that the flags of unshare(1) name and runs the
// script in them. The sleeper is the parent of orphans; it ignores SIGCHLD, so
// that the kernel buries them.
func newSpace(flags, script string) (*space, error) {
	args := append(strings.Fields(flags), "/bin/sh", "-c", script+"\ntrap '' CHLD; echo ready; exec sleep infinity")
	c := exec.Command("unshare", args...)
	var said strings.Builder
	c.Stderr = &said
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	ended := make(chan struct{})
	go func() { // Pdeathsig is sent when the thread that started it ends
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.Start()
		started <- err
		if err == nil {
			<-ended
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	s := &space{cmd: c, init: c.Process.Pid}
	go func() { c.Process.Wait(); close(ended) }()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		c.Process.Kill()
		<-ended
		return nil, fmt.Errorf("namespaces cannot be made here: %v %s", err, said.String())
	}
	if strings.Contains(flags, "--fork") {
		if s.init, err = onlyChild(c.Process.Pid); err != nil {
			c.Process.Kill()
			return nil, err
		}
	}
	go io.Copy(io.Discard, out)
	return s, nil
}

// onlyChild gives the process number of the child of pid.
func onlyChild(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

func (s *space) end() { s.cmd.Process.Kill() }

// all runs commands, words separated by blanks, in the network namespace.
func (s *space) all(commands ...string) error {
	for _, text := range commands {
		words := strings.Fields(text)
		c := exec.Command(words[0], words[1:]...)
		var out strings.Builder
		c.Stdout, c.Stderr = &out, &out
		err := s.inside(unix.CLONE_NEWNET, c.Start)
		if err == nil {
			err = c.Wait()
		}
		if err != nil {
			return fmt.Errorf("%s: %w: %s", text, err, strings.TrimSpace(out.String()))
		}
	}
	return nil
}

func (s *space) start(c *exec.Cmd) error {
	return s.inside(unix.CLONE_NEWNET|unix.CLONE_NEWUTS|unix.CLONE_NEWPID|unix.CLONE_NEWNS, c.Start)
}

// inside calls f on a thread that has entered the namespaces, and that is thrown
// away afterwards.
func (s *space) inside(flags int, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		result <- s.enter(flags, f)
	}()
	return <-result
}

func (s *space) enter(flags int, f func() error) error {
	names := map[int]string{unix.CLONE_NEWNET: "net", unix.CLONE_NEWUTS: "uts", unix.CLONE_NEWPID: "pid", unix.CLONE_NEWNS: "mnt"}
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	var kinds []int
	for _, kind := range []int{unix.CLONE_NEWNET, unix.CLONE_NEWUTS, unix.CLONE_NEWPID, unix.CLONE_NEWNS} {
		if flags&kind == 0 {
			continue
		}
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", s.init, names[kind]), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("namespace %s: %w", names[kind], err)
		}
		fds, kinds = append(fds, fd), append(kinds, kind)
	}
	if flags&unix.CLONE_NEWNS != 0 {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
	}
	for i, fd := range fds {
		if err := unix.Setns(fd, kinds[i]); err != nil {
			return fmt.Errorf("enter the %s namespace: %w", names[kinds[i]], err)
		}
	}
	return f()
}

// pipe runs a command in the network namespace with text as its input.
func (s *space) pipe(text, name string, args ...string) error {
	c := exec.Command(name, args...)
	var out strings.Builder
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(text), &out, &out
	err := s.inside(unix.CLONE_NEWNET, c.Start)
	if err == nil {
		err = c.Wait()
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(out.String()))
	}
	return nil
}
