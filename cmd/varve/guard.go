package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/varvefs/varve/conf"
	"github.com/varvefs/varve/gossip"
	"github.com/varvefs/varve/guard"
	"github.com/varvefs/varve/vip"
)

// superviseMaster runs this very command again as a child and watches over it.
func superviseMaster(ctx context.Context, f *conf.File, q quorum, key []byte) error {
	log := logger(f.Cluster.Log).With("process", "supervisor")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &masterSupervisor{f: f, ready: make(chan error, 1)}
	cfg := guard.Config{Log: log, Command: s.command, Started: s.started}
	if len(f.Master.VIP) > 0 {
		agent, err := openVIP(f, log)
		if err != nil {
			return err
		}
		defer agent.Close()
		cfg.Addresses, cfg.Concerns = agent, vipConcerns(ctx, agent)
	}
	if len(q.voters) > 1 && f.Master.Gossip != "" {
		cfg.Obituary = func(term uint64) { sendObituaries(f, q, key, term, log) }
	}
	var failed error
	var once sync.WaitGroup
	once.Go(func() { // the first start is the parent's business, or the reason to give up
		select {
		case failed = <-s.ready:
			if failed != nil {
				cancel()
			}
		case <-ctx.Done():
		}
	})
	err := guard.Run(ctx, cfg)
	cancel()
	once.Wait()
	if failed != nil {
		return failed
	}
	return err
}

// masterSupervisor makes the child's command and hears whether it is ready.
type masterSupervisor struct {
	f     *conf.File
	ready chan error // takes the outcome of the first start

	mu     sync.Mutex
	pr, pw *os.File // pipe of the start under way
	told   bool
}

func (s *masterSupervisor) command() (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// A group of its own: Ctrl-C at the terminal is for the supervisor alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if s.f.Master.User != "" {
		if cmd.SysProcAttr.Credential, err = credential(s.f.Master.User); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pr, s.pw, err = os.Pipe(); err != nil {
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{s.pw}
	for _, e := range os.Environ() {
		if len(e) <= len(readyEnv) || e[:len(readyEnv)+1] != readyEnv+"=" {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, readyEnv+"=3")
	return cmd, nil
}

// started passes the word of the first child on to who started the supervisor.
func (s *masterSupervisor) started(int) {
	s.mu.Lock()
	s.pw.Close()
	r, first := s.pr, !s.told
	s.told = true
	s.mu.Unlock()
	text, err := waitReady(r)
	if !first {
		return
	}
	if err == nil {
		tellParent(text, nil)
	}
	s.ready <- err
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("master.user: %w", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("master.user: user %s has the numbers %s and %s", name, u.Uid, u.Gid)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func openVIP(f *conf.File, log *slog.Logger) (*vip.Agent, error) {
	var list []netip.Prefix
	for _, text := range f.Master.VIP {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("master.vip: %w", err)
		}
		list = append(list, p)
	}
	return vip.Open(vip.Config{Addresses: list, Interface: f.Master.VIPInterface, Log: log})
}

// vipConcerns are the agent's alarms as sentences, which end with ctx.
func vipConcerns(ctx context.Context, agent *vip.Agent) <-chan string {
	sentences := make(chan string)
	go func() {
		for {
			var e vip.Event
			select {
			case e = <-agent.Events():
			case <-ctx.Done():
				return
			}
			if !e.Foreign {
				continue
			}
			text := fmt.Sprintf("Another host, whose hardware address is %v, answers for the virtual address %v: take it away there, or mounts may reach the wrong host.", e.MAC, e.Addr)
			select {
			case sentences <- text:
			case <-ctx.Done():
				return
			}
		}
	}()
	return sentences
}

// obituaryPatience is how long the others are told, again and again if they do
// not answer; after that they have waited out the lease.
const obituaryPatience = 2 * time.Second

// sendObituaries tells all others at once that the master which led term is dead.
func sendObituaries(f *conf.File, q quorum, key []byte, term uint64, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), obituaryPatience)
	defer cancel()
	var wg sync.WaitGroup
	for _, addr := range gossipSeeds(f, q) {
		wg.Go(func() {
			for ctx.Err() == nil {
				err := gossip.SendObituary(ctx, addr, f.Cluster.Name, key, q.id, term)
				if err == nil {
					return
				}
				log.Debug("an obituary was not taken", "by", addr, "err", err)
				select {
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	wg.Wait()
}
