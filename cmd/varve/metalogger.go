package main

import (
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/spf13/cobra"
	"github.com/varvefs/varve/conf"
	"github.com/varvefs/varve/gossip"
	"github.com/varvefs/varve/master/metalog"
)

func metaloggerCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "metalogger",
		Short: "run a metalogger: keeps the changelog, and votes when a master has to be elected",
		Long: "Run a metalogger: the third vote beside two masters. It keeps the changelog and the images of the tree, but no tree,\n" +
			"and never serves. From its files alone a master can be started anew; see docs/ha.md.",
		Args: cobra.NoArgs,
	}
	s := addSettings(c, "metalogger", "cluster")
	c.RunE = reporting(func(c *cobra.Command, _ []string) error {
		f, err := s.load(c)
		if err != nil {
			return err
		}
		return runMetalogger(c, f)
	})
	return c
}

func runMetalogger(c *cobra.Command, f *conf.File) error {
	key, err := readKey(f.Cluster.KeyFile)
	if err != nil {
		return err
	}
	name, err := nameOr(f.Metalog.Name)
	if err != nil {
		return err
	}
	q, err := quorumOf(f, "metalogger", f.Metalog.ID, string(f.Metalog.Raft))
	if err != nil {
		return err
	}
	set := metrics.NewSet()
	log := logger(f.Cluster.Log)
	m, err := metalog.Start(metalog.Config{
		Dir: f.Metalog.Dir, Key: key, ID: q.id, Peers: q.voters, RaftAddr: q.listen, Name: name, Version: version,
		HTTP: string(f.Metalog.HTTP), Keep: time.Duration(f.Metalog.Keep), Sync: f.Metalog.Sync, Metrics: set, Log: log,
	})
	if err != nil {
		return err
	}
	mon, err := startMonitor(string(f.Metalog.HTTP), set, m.Ready)
	if err != nil {
		m.Close()
		return err
	}
	el, err := startElection(electionConfig{
		f: f, q: q, key: key, dir: f.Metalog.Dir, bind: string(f.Metalog.Gossip), log: log, set: set,
		meta: gossip.Meta{Role: gossip.Metalogger, Host: name, HTTP: gossip.PortOf(mon.addr)}, journal: m.Log(),
	})
	if err != nil {
		mon.close()
		m.Close()
		return err
	}
	log.Info("metalogger is ready", "voters", m.Addr(), "http", mon.addr, "dir", f.Metalog.Dir)
	tellParent(mon.addr, nil)
	select {
	case <-c.Context().Done():
		log.Info("metalogger stops")
	case <-m.Done():
	}
	el.close()
	mon.close()
	return m.Close()
}
