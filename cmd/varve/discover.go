package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/varvefs/varve/conf"
	"github.com/varvefs/varve/gossip"
)

// discoverPatience is how long the seeds may take to answer. They only add to
// what is configured.
const discoverPatience = 2 * time.Second

// discover adds to known the addresses of all masters that the seeds know of, at
// the port that port chooses. One seed that answers is enough.
func discover(ctx context.Context, f *conf.File, key []byte, known []string, port func(gossip.Meta) uint16, log *slog.Logger) []string {
	list := slices.Clone(known)
	ctx, cancel := context.WithTimeout(ctx, discoverPatience)
	defer cancel()
	for _, seed := range f.Cluster.Seeds {
		members, err := gossip.Ask(ctx, seed, f.Cluster.Name, key)
		if err != nil {
			log.Info("a seed does not tell where the masters are", "seed", seed, "err", err)
			continue
		}
		for _, m := range members {
			if addr := m.At(port(m.Meta)); m.Meta.Role == gossip.Master && addr != "" && !slices.Contains(list, addr) {
				list = append(list, addr)
			}
		}
		log.Info("found the masters", "seed", seed, "masters", list)
		break
	}
	return list
}

// startChunkdGossip makes a chunkserver known to the other nodes; nil if it is
// not configured.
func startChunkdGossip(f *conf.File, key []byte, data string, log *slog.Logger, set *metrics.Set) (*gossip.Node, error) {
	if f.Chunkd.Gossip == "" {
		return nil, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	// Its disks may be moved and replaced: what stays is the host and the port.
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", host, gossip.PortOf(data)))
	n, err := gossip.Start(gossip.Config{
		ID: "chunkd-" + hex.EncodeToString(sum[:8]), Cluster: f.Cluster.Name, Key: key, Bind: string(f.Chunkd.Gossip), Seeds: f.Cluster.Seeds,
		Meta: gossip.Meta{Role: gossip.Chunkd, Host: host, Version: version, Data: gossip.PortOf(data)}, Log: log, Metrics: set,
	})
	if err != nil {
		return nil, err
	}
	go func() { // for the log only: nothing here depends on who is there
		for {
			select {
			case e := <-n.Events():
				log.Debug("gossip: "+e.Kind.String(), "node", e.Member.ID)
			case <-n.Done():
				return
			}
		}
	}()
	return n, nil
}
