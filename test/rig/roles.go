package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/varvefs/varve/chunkd"
	"github.com/varvefs/varve/client"
	"github.com/varvefs/varve/fuse"
	"github.com/varvefs/varve/master"
)

// roleVariable is the environment variable that makes the test binary a daemon.
const roleVariable = "VARVE_RIG_ROLE"

// LogVariable, when set in the environment, makes daemons log everything.
const LogVariable = "VARVE_TEST_LOG"

// role is what a child process is told.
type role struct {
	Master *masterRole `json:",omitempty"`
	Server *serverRole `json:",omitempty"`
	Mount  *mountRole  `json:",omitempty"`
}

type masterRole struct {
	Dir, ClientAddr, ServerAddr string
	SessionLease, RepairDelay   time.Duration
}

type serverRole struct {
	Dirs         []string
	Addr, Master string
	Limit        uint64
}

type mountRole struct {
	Dir, Master, Path, Options string
	Name                       string
	Timeout                    time.Duration
}

var key = []byte("the key of all clusters of a test")

// Main runs the tests, or a daemon when this process is one of the rig's.
func Main(m *testing.M) {
	text := os.Getenv(roleVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	var r role
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		fmt.Fprintln(os.Stderr, "role:", err)
		os.Exit(2)
	}
	os.Unsetenv(roleVariable)
	if err := r.run(logger()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func logger() *slog.Logger {
	level := slog.LevelInfo
	if os.Getenv(LogVariable) != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// run is a daemon's life: it says "ready" and ends when its parent closes stdin,
// which also happens when the parent dies.
func (r *role) run(log *slog.Logger) error {
	switch {
	case r.Master != nil:
		return r.Master.run(log)
	case r.Server != nil:
		return r.Server.run(log)
	case r.Mount != nil:
		return r.Mount.run(log)
	}
	return errors.New("no role")
}

// ready tells the parent, and waits for its sign to end.
func ready() <-chan struct{} {
	fmt.Println("ready")
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	return ended
}

func (r *masterRole) run(log *slog.Logger) error {
	m, err := master.Start(master.Config{
		Dir: r.Dir, Key: key, ClientAddr: r.ClientAddr, ServerAddr: r.ServerAddr, Log: log,
		SessionLease: r.SessionLease, RepairDelay: r.RepairDelay, Beat: 100 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	select {
	case <-ready():
	case <-m.Done():
	}
	return m.Close()
}

func (r *serverRole) run(log *slog.Logger) error {
	s, err := chunkd.Start(chunkd.Config{
		Dirs: r.Dirs, Key: key, DataAddr: r.Addr, Masters: []string{r.Master}, Log: log, Limit: r.Limit,
		SegmentSize: 4 << 20, ContainerSegments: 4, Beat: 100 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	<-ready()
	return s.Close()
}

func (r *mountRole) run(log *slog.Logger) error {
	opts, err := fuse.ParseOptions(r.Options)
	if err != nil {
		return err
	}
	if err := fuse.CleanStale(r.Dir); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), stepPatience)
	defer cancel()
	notify := fuse.NewNotifier()
	c, err := client.Connect(ctx, client.Config{
		Masters: []string{r.Master}, Key: key, Path: r.Path, Host: r.Name, Mount: r.Dir,
		ReadOnly: opts.ReadOnly, Notify: notify, Log: log, Timeout: r.Timeout, Intents: r.Dir + ".intents",
	})
	if err != nil {
		return err
	}
	s, err := fuse.Mount(fuse.Config{
		Client: c, Mountpoint: r.Dir, Options: opts, Source: r.Master, Notifier: notify, Log: log,
	})
	if err == nil {
		unmounted := make(chan struct{})
		go func() { s.Serve(); close(unmounted) }()
		select {
		case <-ready():
			if err = s.Unmount(); err != nil {
				err = errors.Join(err, s.Abort())
			}
		case <-unmounted:
		}
	}
	closing, cancelClose := context.WithTimeout(context.Background(), stepPatience)
	defer cancelClose()
	return errors.Join(err, c.Close(closing))
}
