package main

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/varvefs/varve/conf"
	"github.com/varvefs/varve/elect/runner"
	"github.com/varvefs/varve/gossip"
	"github.com/varvefs/varve/guard"
	"github.com/varvefs/varve/master/journal"
)

// electionConfig is what a voter's part in elections is made of.
type electionConfig struct {
	f       *conf.File
	q       quorum
	key     []byte
	dir     string // the role's, for the node's identity
	bind    string // of gossip
	meta    gossip.Meta
	journal *journal.Log
	line    *guard.Line  // nil without a supervisor
	ready   func() error // nil: it never serves
	log     *slog.Logger
	set     *metrics.Set
}

// election is a voter's gossip and the machine that decides for it. A nil one is
// that of a single master without virtual addresses.
type election struct {
	cfg   electionConfig
	run   *runner.Runner
	node  *gossip.Node // nil without gossip
	stop  chan struct{}
	ended chan struct{}
}

// leavePatience bounds the hand-over before a stop.
const leavePatience = 3 * time.Second

// voterLog keeps a metalogger's own way of handing over.
type voterLog struct{ *journal.Log }

func (voterLog) Handover(uint64, string) {}

func startElection(cfg electionConfig) (*election, error) {
	if len(cfg.q.voters) <= 1 && len(cfg.f.Master.VIP) == 0 {
		return nil, nil
	}
	e := &election{cfg: cfg, stop: make(chan struct{}), ended: make(chan struct{})}
	rc := runner.Config{
		Self: cfg.q.id, Masters: e.masters(nil), Timeout: cfg.journal.ElectionTimeout(), Log: cfg.journal,
		Addresses: cfg.line, Virtual: len(cfg.f.Master.VIP) > 0, Logger: cfg.log, Metrics: cfg.set,
	}
	if cfg.ready != nil {
		rc.Ready = func() bool { return cfg.ready() == nil }
	} else {
		rc.Log = voterLog{cfg.journal}
	}
	e.run = runner.Start(rc)
	if err := e.startGossip(); err != nil {
		e.run.Close()
		return nil, err
	}
	go e.watch()
	return e, nil
}

// startGossip joins the others, if there are any.
func (e *election) startGossip() error {
	if len(e.cfg.q.voters) <= 1 || e.cfg.bind == "" {
		return nil
	}
	id, err := gossip.Identity(e.cfg.dir, e.cfg.meta.Role)
	if err != nil {
		return err
	}
	e.cfg.meta.Voter, e.cfg.meta.Raft, e.cfg.meta.Version = e.cfg.q.id, gossip.PortOf(e.cfg.q.voters[e.cfg.q.id]), version
	e.node, err = gossip.Start(gossip.Config{
		ID: id, Cluster: e.cfg.f.Cluster.Name, Key: e.cfg.key, Bind: e.cfg.bind, Addr: ownHost(e.cfg.q), Seeds: gossipSeeds(e.cfg.f, e.cfg.q),
		Voter: true, Meta: e.cfg.meta, Obituary: e.run.Died, Log: e.cfg.log, Metrics: e.cfg.set,
	})
	return err
}

// ownHost is the address by which other voters reach this one, "" if it is a
// name that cannot be resolved now.
func ownHost(q quorum) string {
	host, _, err := net.SplitHostPort(q.voters[q.id])
	if err != nil {
		return ""
	}
	if net.ParseIP(host) != nil {
		return host
	}
	ips, err := net.LookupHost(host)
	if err != nil || len(ips) == 0 {
		return ""
	}
	return outward(ips)
}

// outward is the first address that other hosts can reach: Debian's /etc/hosts has a
// host's own name at 127.0.1.1, too.
func outward(ips []string) string {
	for _, ip := range ips {
		if a := net.ParseIP(ip); a != nil && !a.IsLoopback() {
			return ip
		}
	}
	return ips[0]
}

// gossipPort is the usual one.
const gossipPort = 9426

// gossipSeeds are where the others gossip: as configured, else the voters' hosts.
func gossipSeeds(f *conf.File, q quorum) []string {
	if len(f.Cluster.Seeds) > 0 {
		return f.Cluster.Seeds
	}
	var seeds []string
	for _, addr := range q.voters {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			seeds = append(seeds, net.JoinHostPort(host, strconv.Itoa(gossipPort)))
		}
	}
	slices.Sort(seeds)
	return seeds
}

// voters are those that the changelog counts as such, this one in any case. A
// changelog that has not begun has those of the settings.
func (e *election) voters() (ids []uint64) {
	members := e.cfg.journal.Members().List
	for _, m := range members {
		if !m.Learner {
			ids = append(ids, m.ID)
		}
	}
	if len(members) == 0 {
		ids = slices.Collect(maps.Keys(e.cfg.q.voters))
	}
	if !slices.Contains(ids, e.cfg.q.id) {
		ids = append(ids, e.cfg.q.id)
	}
	slices.Sort(ids)
	return ids
}

// masters are the voters not known to be metaloggers.
func (e *election) masters(known []gossip.Member) (ids []uint64) {
	for _, id := range e.voters() {
		meta := e.cfg.meta.Role == gossip.Metalogger && id == e.cfg.q.id
		for _, m := range known {
			meta = meta || id != e.cfg.q.id && m.Meta.Voter == id && m.Meta.Role == gossip.Metalogger
		}
		if !meta {
			ids = append(ids, id)
		}
	}
	return ids
}

// known are the voters that gossip has heard of.
func (e *election) known() []gossip.Member {
	if e.node == nil {
		return nil
	}
	return e.node.Voters()
}

// watch keeps the machine's list of masters and this node's description up to date.
func (e *election) watch() {
	defer close(e.ended)
	t := time.NewTicker(time.Second)
	defer t.Stop()
	var events <-chan gossip.Event
	if e.node != nil {
		events = e.node.Events()
	}
	var masters []uint64
	for {
		if now := e.masters(e.known()); !slices.Equal(now, masters) {
			masters = now
			e.run.SetMasters(now)
		}
		select {
		case <-e.stop:
			return
		case ev := <-events:
			level := slog.LevelInfo
			if ev.Kind == gossip.Changed {
				level = slog.LevelDebug
			}
			e.cfg.log.Log(context.Background(), level, "gossip: "+ev.Kind.String(), "node", ev.Member.ID, "role", ev.Member.Meta.Role, "host", ev.Member.Meta.Host, "addr", ev.Member.Addr, "voters", ev.Voters)
		case <-t.C:
			if e.node == nil {
				continue
			}
			s := e.cfg.journal.Status()
			m := e.cfg.meta
			m.Epoch, m.Leads, m.Index = s.Term, s.Leader == s.ID && e.cfg.ready != nil && e.cfg.ready() == nil, s.Applied
			e.node.SetMeta(m)
		}
	}
}

// leave hands leadership over before a stop.
func (e *election) leave() {
	if e == nil || len(e.voters()) <= 1 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leavePatience)
	defer cancel()
	e.run.Leave(ctx)
}

func (e *election) close() {
	if e == nil {
		return
	}
	close(e.stop)
	<-e.ended
	e.run.Close()
	if e.node != nil {
		e.node.Close()
	}
}

func portOf(a net.Addr) uint16 { return gossip.PortOf(a.String()) }
