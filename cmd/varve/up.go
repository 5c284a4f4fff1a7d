package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/admin"
	"github.com/varvefs/varve/fuse"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/status"
)

// upArgs are the flags of 'varve up'.
type upArgs struct {
	dir     string
	mount   string
	servers int
	goal    int
	options string
	backend string
	sync    string
	limit   string
	ha      bool
}

func upCommand() *cobra.Command {
	var a upArgs
	c := &cobra.Command{
		Use:     "up --dir DIR [--mount MNT]",
		Short:   "run a whole cluster on this host: master, chunkservers and a mount",
		Long:    "Run a master, chunkservers and a mount on this host, on loopback, each as a process of its own.\nState is kept in DIR and taken up again at the next start. A process that dies is started again.\nCtrl-C stops all of it cleanly.",
		Example: "  varve up --dir /var/tmp/varve --mount /mnt/varve",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runUp(c.Context(), a) },
	}
	c.Flags().StringVar(&a.dir, "dir", "", "directory for all state (required)")
	c.Flags().StringVar(&a.mount, "mount", "", "directory to mount on; made when it does not exist (empty: no mount)")
	c.Flags().IntVar(&a.servers, "servers", 3, "number of chunkservers")
	c.Flags().IntVar(&a.goal, "goal", 2, "copies of each chunk, set when the cluster is new")
	c.Flags().StringVarP(&a.options, "option", "o", "", "mount options, separated by commas")
	c.Flags().StringVar(&a.backend, "backend", "auto", "how disks are driven: auto, uring or posix")
	c.Flags().StringVar(&a.sync, "sync", "fsync", "when a metadata change is acknowledged: fsync or quorum")
	c.Flags().BoolVar(&a.ha, "ha", false, "run two masters and a metalogger instead of one master")
	c.Flags().StringVar(&a.limit, "limit", "0", "bytes that each chunkserver may use; 0: what the file system has, less a reserve")
	c.MarkFlagRequired("dir")
	return c
}

func (a *upArgs) check() (err error) {
	if a.servers < 1 || a.servers > 64 {
		return fmt.Errorf("--servers %d: want 1 to 64", a.servers)
	}
	if a.goal < inode.GoalMin || a.goal > inode.GoalMax {
		return fmt.Errorf("--goal %d: want %d to %d", a.goal, inode.GoalMin, inode.GoalMax)
	}
	if a.goal > a.servers {
		return fmt.Errorf("--goal %d needs at least as many --servers, there are %d", a.goal, a.servers)
	}
	if a.dir, err = filepath.Abs(a.dir); err != nil {
		return err
	}
	opts, err := fuse.ParseOptions(a.options)
	if err != nil || a.mount == "" {
		return err
	}
	if a.mount, err = filepath.Abs(a.mount); err != nil {
		return err
	}
	return a.checkMountpoint(opts)
}

// checkMountpoint makes the mount point ready. The mount of a process that was
// just killed looks alive until the kernel has closed its files: that is waited for.
func (a *upArgs) checkMountpoint(opts fuse.Options) error {
	const patience = 2 * time.Second
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if err := fuse.CleanStale(a.mount); err != nil {
			return err
		}
		ours, err := fuse.IsVarve(a.mount)
		if err == nil && !ours { // else touching it may hang
			err = os.MkdirAll(a.mount, 0o755)
		}
		if err != nil {
			return err
		}
		if err = fuse.CheckMountpoint(a.mount, opts); err == nil || !ours || time.Now().After(deadline) {
			return err
		}
	}
}

func runUp(ctx context.Context, a upArgs) error {
	if err := a.check(); err != nil {
		return err
	}
	fresh, err := prepareDir(a.dir)
	if err != nil {
		return err
	}
	unlock, err := lockDir(a.dir)
	if err != nil {
		return err
	}
	defer unlock()
	ports, err := choosePorts(a.dir, a.servers, a.ha)
	if err != nil {
		return err
	}
	if err := writeConfigs(a, ports); err != nil {
		return err
	}
	removeNote, err := runningUp{os.Getpid(), a.dir, filepath.Join(a.dir, "client.toml"), a.mount}.leaveNote()
	if err != nil {
		return err
	}
	defer removeNote()

	s := newSupervisor(a.dir)
	defer s.stop()
	for _, c := range masterChildren(a, ports) {
		if err := s.start(c); err != nil {
			return err
		}
	}
	for i := range a.servers {
		if err := s.start(chunkdChild(a, ports, i)); err != nil {
			return err
		}
	}
	if err := waitCluster(ctx, a, ports, fresh); err != nil {
		return err
	}
	if a.mount != "" {
		if err := s.start(mountChild(a)); err != nil {
			return err
		}
	}
	printUp(a, ports, s)
	<-ctx.Done()
	fmt.Println("stopping ...")
	return nil
}

// prepareDir makes DIR and the cluster key; fresh tells whether it is a new cluster.
func prepareDir(dir string) (fresh bool, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	key := filepath.Join(dir, "cluster.key")
	if _, err := os.Stat(key); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return true, makeKey(key)
}

// lockDir keeps a second 'varve up' out of DIR.
func lockDir(dir string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(dir, "up.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another 'varve up' runs in %s; stop it first, or choose another --dir", dir)
	}
	return func() { f.Close() }, nil
}

// waitCluster waits until all chunkservers are registered and sets the goal of a new cluster.
func waitCluster(ctx context.Context, a upArgs, p upPorts, fresh bool) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	key, err := readKey(filepath.Join(a.dir, "cluster.key"))
	if err != nil {
		return err
	}
	cl, err := admin.Dial(ctx, p.masters(a.ha), key)
	if err != nil {
		return err
	}
	defer func() { cl.Close() }()
	for {
		st, err := cl.Status(ctx)
		if status.CodeOf(err) == status.Closed && ctx.Err() == nil { // another master began to lead
			cl.Close()
			if cl, err = admin.Dial(ctx, p.masters(a.ha), key); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for the chunkservers (see %s): %w", filepath.Join(a.dir, "*.log"), err)
		}
		up := 0
		for _, s := range st.Servers {
			if s.State == "up" {
				up++
			}
		}
		if up >= a.servers {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("only %d of %d chunkservers came up; see %s", up, a.servers, filepath.Join(a.dir, "chunkd*.log"))
		case <-time.After(20 * time.Millisecond):
		}
	}
	if fresh {
		_, err = cl.SetGoal(ctx, inode.Root, uint8(a.goal), false)
	}
	return err
}

func printUp(a upArgs, p upPorts, s *supervisor) {
	fmt.Println("Varve is up.")
	if a.mount != "" {
		fmt.Printf("  mount     %s\n", a.mount)
	}
	fmt.Printf("  web page  http://%s/\n", p.HTTP)
	fmt.Printf("  logs      %s\n", filepath.Join(a.dir, "*.log"))
	fmt.Printf("  processes %s\n", s.pids())
	fmt.Printf("  ask it    varve status --config %s\n", filepath.Join(a.dir, "client.toml"))
	fmt.Printf("  more      varve mount --config %s OTHERDIR\n", filepath.Join(a.dir, "client.toml"))
	if a.ha {
		fmt.Printf("  try it    varve master handover --config %s\n", filepath.Join(a.dir, "client.toml"))
		fmt.Printf("  or worse  kill -9 $(varve status --config %s --leader)   # the process that leads; the other takes over\n", filepath.Join(a.dir, "client.toml"))
	}
	fmt.Println("Ctrl-C stops it.")
}
