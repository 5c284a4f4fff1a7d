package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/spf13/cobra"
	"github.com/varvefs/varve/chunkd"
	"github.com/varvefs/varve/conf"
	"github.com/varvefs/varve/gossip"
	"github.com/varvefs/varve/segment"
)

func chunkdCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "chunkd",
		Short: "run a chunkserver: stores chunks",
		Args:  cobra.NoArgs,
	}
	s := addSettings(c, "chunkd")
	keyFile := c.Flags().String("key-file", "", "file with the cluster key (default: cluster.key-file of the configuration)")
	check := c.Flags().String("check", "", "check the store in this directory or on this device and exit; the chunkserver must not run, nothing is changed")
	asJSON := c.Flags().Bool("json", false, "with --check: print JSON")
	c.RunE = reporting(func(c *cobra.Command, _ []string) error {
		if *check != "" {
			return checkStore(c.OutOrStdout(), *check, *asJSON)
		}
		f, err := s.load(c)
		if err != nil {
			return err
		}
		if *keyFile != "" {
			f.Cluster.KeyFile = *keyFile
		}
		return runChunkd(c, f)
	})
	return c
}

// checkStore is 'varve chunkd --check DIR'.
func checkStore(out io.Writer, dir string, asJSON bool) error {
	var at, segments atomic.Uint32
	end := showProgress("checking "+dir, func() (done, whole uint64) { return uint64(at.Load()), uint64(segments.Load()) })
	rep, err := segment.Check(dir, func(n, of uint32) { at.Store(n); segments.Store(of) })
	end()
	if err != nil {
		return err
	}
	if asJSON {
		if err := json.NewEncoder(out).Encode(rep); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(out, "%s: disk %s of chunkserver %s, cluster %q\n", rep.Dir, rep.Disk, rep.Server, rep.Cluster)
		fmt.Fprintf(out, "%d chunks, %s of %s used, %d segments, checked in %.1f s\n", rep.Chunks, bytesText(rep.Live), bytesText(rep.Capacity), rep.Segments, rep.Took)
		for _, id := range rep.Damaged {
			fmt.Fprintf(out, "damaged: chunk %s\n", id)
		}
		for _, p := range rep.Problems {
			fmt.Fprintf(out, "damaged: %s\n", p)
		}
	}
	if rep.Damages > 0 {
		return fmt.Errorf("%s: %d damages found; start the chunkserver, it reports them and the master has the chunks copied anew", dir, rep.Damages)
	}
	return nil
}

func runChunkd(c *cobra.Command, f *conf.File) error {
	key, err := readKey(f.Cluster.KeyFile)
	if err != nil {
		return err
	}
	set := metrics.NewSet()
	log := logger(f.Cluster.Log)
	var server *chunkd.Server
	started := make(chan struct{})
	mon, err := startMonitor(string(f.Chunkd.HTTP), set, func() error {
		<-started
		return server.Ready()
	})
	if err != nil {
		return err
	}
	defer mon.close()
	server, err = chunkd.Start(chunkd.Config{
		Dirs: f.Chunkd.Dirs, Key: key, DataAddr: string(f.Chunkd.Listen), Advertise: string(f.Chunkd.Advertise),
		Masters: discover(c.Context(), f, key, f.Chunkd.Masters, func(m gossip.Meta) uint16 { return m.Servers }, log), HTTP: mon.addr, Labels: f.Chunkd.Labels, Version: version,
		Backend: f.Chunkd.Backend, Limit: uint64(f.Chunkd.Limit), Share: f.Chunkd.Share, Scrub: time.Duration(f.Chunkd.Scrub), NoLending: !f.Chunkd.Lend, Metrics: set, Log: log,
	})
	if err != nil {
		return err
	}
	close(started)
	node, err := startChunkdGossip(f, key, server.Addr().String(), log, set)
	if err != nil {
		server.Close()
		return err
	}
	if node != nil {
		defer node.Close()
	}
	log.Info("chunkserver is ready", "data", server.Addr(), "http", mon.addr, "dirs", f.Chunkd.Dirs)
	tellParent(mon.addr, nil)
	<-c.Context().Done()
	log.Info("chunkserver stops")
	begin := time.Now()
	err = server.Close()
	log.Info("chunkserver stopped", "took", time.Since(begin))
	return err
}
