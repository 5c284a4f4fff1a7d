package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/spf13/cobra"
	"github.com/varvefs/varve/buffer"
	"github.com/varvefs/varve/client"
	"github.com/varvefs/varve/conf"
	"github.com/varvefs/varve/fuse"
	"github.com/varvefs/varve/gossip"
)

// mountArgs are what 'varve mount' and 'mfsmount' share.
type mountArgs struct {
	source     string // HOST:PORT[:/sub], or ""
	master     string // of source
	path       string // of source
	dir        string
	options    string
	foreground bool
	logFile    string
}

func mountCommand() *cobra.Command {
	var a mountArgs
	c := &cobra.Command{
		Use:     "mount [HOST:PORT[:/SUBDIR]] DIR",
		Short:   "mount the file system on a directory",
		Long:    "Mount the file system on DIR and return when it is mounted; 'umount DIR' ends it.\nWithout HOST:PORT the masters of the configuration, or of a running 'varve up', are used.\n\nMount options:\n" + fuse.OptionsHelp(),
		Example: "  varve mount 192.0.2.1:9421 /mnt/varve\n  varve mount 192.0.2.1:9421:/projects /mnt/projects -o ro",
		Args:    cobra.RangeArgs(1, 2),
	}
	s := addSettings(c, "mount")
	keyFile := c.Flags().String("key-file", "", "file with the cluster key (default: cluster.key-file of the configuration)")
	c.Flags().StringVarP(&a.options, "option", "o", "", "mount options, separated by commas")
	c.Flags().BoolVarP(&a.foreground, "foreground", "f", false, "stay in the foreground")
	c.Flags().StringVar(&a.logFile, "log-file", "", "append messages to this file (default: standard error with -f, else none)")
	c.RunE = reporting(func(c *cobra.Command, args []string) error {
		a.dir = args[len(args)-1]
		if len(args) == 2 {
			a.source = args[0]
		}
		master, path, err := splitSource(a.source)
		if err != nil {
			return err
		}
		f, err := s.loadTool(c, master)
		if err != nil {
			return err
		}
		if *keyFile != "" {
			f.Cluster.KeyFile = *keyFile
		}
		if c.Flags().Changed("option") {
			f.Mount.Options = a.options
		}
		a.master, a.path = master, path
		return mountNow(c.Context(), f, a)
	})
	return c
}

// mountNow mounts in this process (-f) or in one of its own.
func mountNow(ctx context.Context, f *conf.File, a mountArgs) error {
	opts, err := fuse.ParseOptions(f.Mount.Options)
	if err != nil {
		return err
	}
	if err := fuse.CleanStale(a.dir); err != nil {
		return err
	}
	if err := fuse.CheckMountpoint(a.dir, opts); err != nil {
		return err
	}
	if a.master != "" {
		f.Cluster.Masters = []string{a.master}
	}
	key, err := readKey(f.Cluster.KeyFile)
	if err != nil {
		return err
	}
	if !a.foreground {
		return background("--foreground")
	}
	return serveMount(ctx, f, a, opts, key)
}

func serveMount(ctx context.Context, f *conf.File, a mountArgs, opts fuse.Options, key []byte) error {
	if err := logTo(a.logFile); err != nil {
		return err
	}
	dir, err := filepath.Abs(a.dir)
	if err != nil {
		return err
	}
	log := logger(f.Cluster.Log)
	set := metrics.NewSet()
	host, _ := os.Hostname()
	notify := fuse.NewNotifier()
	f.Cluster.Masters = discover(ctx, f, key, f.Cluster.Masters, func(m gossip.Meta) uint16 { return m.Clients }, log)
	connectCtx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cl, err := client.Connect(connectCtx, client.Config{
		Masters: f.Cluster.Masters, Key: key, Path: a.path, Host: host, Mount: dir, Version: version, ReadOnly: opts.ReadOnly, NoShort: opts.NoShort,
		Notify: notify, Log: log, Metrics: set,
		WriteBuffer: int64(f.Mount.WriteBuffer), ReadAhead: int64(f.Mount.ReadAhead), CacheBytes: int64(f.Mount.Cache),
		MaxDirty: time.Duration(f.Mount.MaxDirty), Timeout: time.Duration(f.Mount.Timeout),
		Intents: intentLog(f.Mount.State, dir, opts, log),
	})
	if err != nil {
		return fmt.Errorf("connect to %s: %w", strings.Join(f.Cluster.Masters, ", "), err)
	}
	closeClient := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		return cl.Close(ctx)
	}
	mon, err := startMonitor(string(f.Mount.HTTP), set, func() error { return nil })
	if err != nil {
		return errors.Join(err, closeClient())
	}
	defer mon.close()
	server, err := fuse.Mount(fuse.Config{
		Client: cl, Mountpoint: dir, Options: opts, Source: strings.Join(f.Cluster.Masters, ","), Notifier: notify, Log: log, Metrics: set,
	})
	if err != nil {
		return errors.Join(err, closeClient())
	}
	go buffer.Settle(ctx)
	log.Info("mounted", "dir", dir, "masters", f.Cluster.Masters, "path", a.path)
	tellParent(mon.addr, nil)
	if err := tellSystemd(); err != nil {
		log.Warn("a service that waits for this mount does not start", "err", err)
	}
	go func() {
		<-ctx.Done()
		unmount(server, log)
	}()
	server.Serve()
	log.Info("unmounted", "dir", dir)
	return closeClient()
}

const (
	// busyPatience is how long a mount that should end waits for the programs that use it.
	busyPatience = 10 * time.Second
	// closePatience is how long it then tries to write what programs have left.
	closePatience = 30 * time.Second
)

// unmount ends a mount on a signal. Programs that still use it after a while, or
// at a second signal, get an error: they may be waiting for masters that are away.
func unmount(server *fuse.Server, log *slog.Logger) {
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(again)
	done := make(chan error, 1)
	go func() {
		err := server.Unmount()
		for begin := time.Now(); errors.Is(err, syscall.EBUSY) && time.Since(begin) < busyPatience; {
			err = server.Unmount() // which waits a little itself
		}
		done <- err
	}()
	var err error
	select {
	case err = <-done:
	case <-again:
		err = errors.New("told twice to end")
	case <-time.After(2 * busyPatience): // umount(2) itself waits: for data of mapped files
		err = errors.New("the kernel does not unmount")
	}
	if err == nil {
		return
	}
	log.Warn("ending the mount under the programs that use it", "dir", server.Dir(), "err", err)
	if err := server.Abort(); err != nil {
		log.Error("unmount", "dir", server.Dir(), "err", err)
	}
}

// intentLog names the intent log of a mount point, each has its own; empty: there
// is to be none.
func intentLog(state, dir string, opts fuse.Options, log *slog.Logger) string {
	if state == "" || opts.Sync || opts.DirSync || opts.ReadOnly {
		return ""
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		log.Warn("changes of names will wait for the master; set mount.state to a directory of your own", "err", err)
		return ""
	}
	return filepath.Join(state, url.PathEscape(dir)+".intents")
}

// splitSource cuts HOST:PORT[:/SUBDIR]; as with mfsmount the port may be left
// out. An empty source is the whole file system of whatever masters are configured.
func splitSource(s string) (master, path string, err error) {
	if s == "" {
		return "", "/", nil
	}
	master, path = s, "/"
	if i := strings.Index(s, ":/"); i >= 0 {
		master, path = s[:i], s[i+1:]
	}
	master = strings.TrimSuffix(master, ":")
	if _, _, err := net.SplitHostPort(master); err != nil {
		master = net.JoinHostPort(strings.Trim(master, "[]"), "9421")
	}
	if host, port, err := net.SplitHostPort(master); err != nil || host == "" || port == "" {
		return "", "", fmt.Errorf("%q is not HOST:PORT[:/SUBDIR]", s)
	}
	return master, path, nil
}

// logTo makes a file the place for messages.
func logTo(name string) error {
	if name == "" {
		return nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	os.Stderr = f
	return nil
}
