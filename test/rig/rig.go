package rig

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/admin"
	"github.com/varvefs/varve/client"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/wire"
)

// Options say what cluster to start. The zero value is three chunkservers with
// one disk each and goal 2.
type Options struct {
	Servers int    // chunkservers; default 3
	Disks   int    // of each; default 1
	Goal    uint8  // of the root directory; default 2, or 1 with one server
	Limit   uint64 // bytes of each disk; default 2 GiB

	SessionLease time.Duration // default 5 s
	RepairDelay  time.Duration // default 2 s
}

func (o Options) withDefaults() Options {
	if o.Servers == 0 {
		o.Servers = 3
	}
	if o.Disks == 0 {
		o.Disks = 1
	}
	if o.Goal == 0 {
		o.Goal = uint8(min(2, o.Servers))
	}
	if o.Limit == 0 {
		o.Limit = 2 << 30
	}
	if o.SessionLease == 0 {
		o.SessionLease = 5 * time.Second
	}
	if o.RepairDelay == 0 {
		o.RepairDelay = 2 * time.Second
	}
	return o
}

// Cluster is a running cluster.
type Cluster struct {
	t       testing.TB
	o       Options
	dir     string // everything of the daemons
	clients string // address of the master for mounts and tools
	chunkds string // address of the master for chunkservers
	master  *process
	servers []*server
	mounts  []*Mount
}

type server struct {
	name, addr string
	dirs       []string
	*process
}

// Mount is one mount.
type Mount struct {
	Dir  string // the mount point
	c    *Cluster
	role mountRole
	*process
}

// Start starts a cluster and waits until chunks can be stored as the goal
// wants. It is taken down when the test ends; the logs of the daemons are shown
// if the test has failed.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := &Cluster{t: t, o: o.withDefaults(), dir: t.TempDir(), clients: freeAddr(t), chunkds: freeAddr(t)}
	t.Cleanup(c.takeDown)
	c.StartMaster()
	for i := range c.o.Servers {
		name := fmt.Sprintf("chunkd%d", i)
		s := &server{name: name, addr: freeAddr(t)}
		for d := range c.o.Disks {
			s.dirs = append(s.dirs, filepath.Join(c.dir, fmt.Sprintf("%s-disk%d", name, d)))
		}
		c.servers = append(c.servers, s)
		c.StartServer(i)
	}
	c.AwaitServers(c.o.Servers)
	if c.o.Goal != 2 {
		c.SetGoal(inode.Root, c.o.Goal)
	}
	return c
}

// freeAddr is an address on which nobody listens now.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Masters are the addresses for client.Config and admin.Dial.
func (c *Cluster) Masters() []string { return []string{c.clients} }

// Key is the cluster key.
func (c *Cluster) Key() []byte { return key }

// Dir is the directory with the daemons' state and logs.
func (c *Cluster) Dir() string { return c.dir }

// ServerDirs are the disks of a chunkserver.
func (c *Cluster) ServerDirs(i int) []string { return c.servers[i].dirs }

// StartMaster starts the master, also again after it was stopped or killed.
func (c *Cluster) StartMaster() {
	c.t.Helper()
	p, err := launch(c.dir, "master", role{Master: &masterRole{
		Dir: filepath.Join(c.dir, "master"), ClientAddr: c.clients, ServerAddr: c.chunkds,
		SessionLease: c.o.SessionLease, RepairDelay: c.o.RepairDelay,
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.master = p
}

// StopMaster ends it cleanly, KillMaster does not.
func (c *Cluster) StopMaster() {
	c.t.Helper()
	if err := c.master.stop(); err != nil {
		c.t.Error(err)
	}
}

func (c *Cluster) KillMaster() { c.master.kill() }

// StartServer starts chunkserver i, also again after it was stopped or killed.
func (c *Cluster) StartServer(i int) {
	c.t.Helper()
	s := c.servers[i]
	p, err := launch(c.dir, s.name, role{Server: &serverRole{Dirs: s.dirs, Addr: s.addr, Master: c.chunkds, Limit: c.o.Limit}})
	if err != nil {
		c.t.Fatal(err)
	}
	s.process = p
}

// StopServer ends chunkserver i cleanly, KillServer does not.
func (c *Cluster) StopServer(i int) {
	c.t.Helper()
	if err := c.servers[i].stop(); err != nil {
		c.t.Error(err)
	}
}

func (c *Cluster) KillServer(i int) { c.servers[i].kill() }

// AwaitServers waits until n chunkservers are up.
func (c *Cluster) AwaitServers(n int) {
	c.t.Helper()
	Eventually(c.t, fmt.Sprintf("%d chunkservers are up", n), func() bool {
		s, err := c.askStatus()
		if err != nil {
			return false
		}
		up := 0
		for _, srv := range s.Servers {
			if srv.State == "up" {
				up++
			}
		}
		return up == n
	})
}

// NeedFuse skips the test where nothing can be mounted.
func NeedFuse(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no /dev/fuse: %v", err)
	}
	unix.Close(fd)
}

// Mount mounts the whole file system and returns the mount point.
func (c *Cluster) Mount(t testing.TB) string {
	t.Helper()
	return c.MountWith(t, MountOptions{}).Dir
}

// MountOptions say what to mount how. The zero value is all of it, as ever.
type MountOptions struct {
	Path    string        // directory of the file system
	Options string        // as behind -o
	Timeout time.Duration // of a request; 0 waits for ever
}

// MountWith mounts.
func (c *Cluster) MountWith(t testing.TB, o MountOptions) *Mount {
	t.Helper()
	NeedFuse(t)
	name := fmt.Sprintf("mount%d", len(c.mounts))
	// Not below t.TempDir, which only root may enter.
	dir, err := os.MkdirTemp("", "varve-"+name+"-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m := &Mount{Dir: dir, c: c, role: mountRole{
		Dir: dir, Master: c.clients, Path: o.Path, Options: o.Options, Name: name, Timeout: o.Timeout,
	}}
	c.mounts = append(c.mounts, m)
	m.Start()
	return m
}

// Start mounts again after Stop or Kill.
func (m *Mount) Start() {
	m.c.t.Helper()
	p, err := launch(m.c.dir, m.role.Name, role{Mount: &m.role})
	if err != nil {
		m.c.t.Fatal(err)
	}
	m.process = p
}

// Stop unmounts; all is written when it returns.
func (m *Mount) Stop() {
	m.c.t.Helper()
	if err := m.stop(); err != nil {
		m.c.t.Error(err)
	}
}

// AwaitEnd waits for the end of a mount's process that was told to end in
// another way, such as by umount(8).
func (m *Mount) AwaitEnd() {
	m.c.t.Helper()
	Eventually(m.c.t, "the mount's process ends", func() bool { return !m.running() })
}

// Kill ends the mount's process; the mount point becomes stale.
func (m *Mount) Kill() { m.kill() }

// takeDown ends everything, mounts first.
func (c *Cluster) takeDown() {
	var all []*process
	end := func(p *process) {
		if p == nil {
			return
		}
		all = append(all, p)
		if !p.running() {
			return
		}
		if err := p.stop(); err != nil {
			c.t.Error(err)
		}
	}
	for i := len(c.mounts) - 1; i >= 0; i-- {
		end(c.mounts[i].process)
		// A mount that was killed, or could not be ended, must not stay.
		unix.Unmount(c.mounts[i].Dir, unix.MNT_DETACH)
		os.Remove(c.mounts[i].Dir)
	}
	for _, s := range c.servers {
		end(s.process)
	}
	end(c.master)
	if c.t.Failed() {
		for _, p := range all {
			p.report(c.t)
		}
	}
}

// Admin connects as an operator's tool.
func (c *Cluster) Admin() (*admin.Client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), stepPatience)
	defer cancel()
	return admin.Dial(ctx, c.Masters(), key)
}

func (c *Cluster) askStatus() (*wire.Status, error) {
	a, err := c.Admin()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	ctx, cancel := context.WithTimeout(context.Background(), stepPatience)
	defer cancel()
	return a.Status(ctx)
}

// Status is the cluster at a glance.
func (c *Cluster) Status() *wire.Status {
	c.t.Helper()
	s, err := c.askStatus()
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// SetGoal sets the number of copies of an inode and all below it.
func (c *Cluster) SetGoal(ino inode.Ino, goal uint8) {
	c.t.Helper()
	a, err := c.Admin()
	if err != nil {
		c.t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.SetGoal(context.Background(), ino, goal, true); err != nil {
		c.t.Fatal(err)
	}
}

// Client connects a client of the library in this process, without a mount.
func (c *Cluster) Client(t testing.TB) *client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stepPatience)
	defer cancel()
	cl, err := client.Connect(ctx, client.Config{Masters: c.Masters(), Key: key, Host: "test", Intents: filepath.Join(t.TempDir(), "intents")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stepPatience)
		defer cancel()
		if err := cl.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return cl
}

// Eventually polls until cond holds; after a minute the test fails.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	pause := time.Millisecond
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		pause = min(2*pause, 100*time.Millisecond)
	}
}
