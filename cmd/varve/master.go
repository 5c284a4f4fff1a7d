package main

import (
	"os"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/spf13/cobra"
	"github.com/varvefs/varve/conf"
	"github.com/varvefs/varve/gossip"
	"github.com/varvefs/varve/guard"
	"github.com/varvefs/varve/master"
	"github.com/varvefs/varve/web"
)

func masterCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "master",
		Short: "run a master: holds the tree and the changelog",
		Args:  cobra.NoArgs,
	}
	s := addSettings(c, "master", "cluster")
	c.AddCommand(handoverCommand(), addCommand(), removeCommand(), recoverCommand())
	c.RunE = reporting(func(c *cobra.Command, _ []string) error {
		f, err := s.load(c)
		if err != nil {
			return err
		}
		return runMaster(c, f)
	})
	return c
}

// guarded tells whether the master runs below a supervisor: to have its death told, for
// virtual addresses, or because it is to run as another user than root.
func guarded(f *conf.File, q quorum) bool {
	return len(q.voters) > 1 || len(f.Master.VIP) > 0 || f.Master.User != "" && os.Geteuid() == 0
}

func runMaster(c *cobra.Command, f *conf.File) error {
	key, err := readKey(f.Cluster.KeyFile)
	if err != nil {
		return err
	}
	name, err := nameOr(f.Master.Name)
	if err != nil {
		return err
	}
	q, err := quorumOf(f, "master", f.Master.ID, string(f.Master.Raft))
	if err != nil {
		return err
	}
	if len(q.voters) == 0 && f.Master.ID == 0 { // alone: one of several that has survived the others keeps its number
		n, err := master.Number(f.Master.Dir)
		if err != nil {
			return err
		}
		q.id = max(n, 1)
	}
	if guarded(f, q) && os.Getenv(guard.Variable) == "" {
		return superviseMaster(c.Context(), f, q, key)
	}
	line, err := guard.Attach()
	if err != nil {
		return err
	}
	set := metrics.NewSet()
	log := logger(f.Cluster.Log)
	m, err := master.Start(master.Config{
		Dir: f.Master.Dir, Key: key, Name: name, Version: version,
		ClientAddr: string(f.Master.Clients), ServerAddr: string(f.Master.Chunkservers),
		ID: q.id, Peers: q.voters, RaftAddr: q.listen, HTTPAddr: string(f.Master.HTTP),
		Sync: f.Master.Sync, ImageEvery: time.Duration(f.Master.ImageEvery), ImagesKept: f.Master.ImagesKept,
		SessionLease: time.Duration(f.Master.SessionLease), RepairDelay: time.Duration(f.Master.RepairDelay),
		RepairPerServer: f.Master.RepairPerHost, MinCopies: f.Master.MinCopies,
		Concerns: line.Concerns, Metrics: set, Log: log,
	})
	if err != nil {
		return err
	}
	mon, err := startMonitor(string(f.Master.HTTP), set, m.Ready)
	if err != nil {
		m.Close()
		return err
	}
	el, err := startElection(electionConfig{
		f: f, q: q, key: key, dir: f.Master.Dir, bind: string(f.Master.Gossip), line: line, log: log, set: set,
		meta:    gossip.Meta{Role: gossip.Master, Host: name, Clients: portOf(m.ClientAddr()), Servers: portOf(m.ServerAddr()), HTTP: gossip.PortOf(mon.addr)},
		journal: m.Log(), ready: m.Ready,
	})
	if err != nil {
		mon.close()
		m.Close()
		return err
	}
	if el != nil {
		m.SetElections(el.run)
	}
	web.Register(mon.mux, m.Status)
	log.Info("master is ready", "clients", m.ClientAddr(), "chunkservers", m.ServerAddr(), "http", mon.addr, "dir", f.Master.Dir)
	tellParent(mon.addr, nil)
	select {
	case <-c.Context().Done():
		log.Info("master stops")
		el.leave()
	case <-m.Done():
	}
	el.close()
	mon.close()
	return m.Close()
}
