package gossip

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Config says who this node is and whom to look for.
type Config struct {
	ID      string   // persistent identity of the node
	Cluster string   // all nodes have the same
	Key     []byte   // of the cluster
	Bind    string   // HOST:PORT to listen on, TCP and UDP
	Addr    string   // address that others reach this node at, never a virtual one; empty: the one that routes to the first seed
	Seeds   []string // HOST:PORT of nodes to join; with Voter: of all other voters
	Voter   bool     // also a member of the voters' pool
	Meta    Meta

	// Obituary is called for every obituary that arrives (obituary.go), from any
	// goroutine; nil: they are dropped. It must not block for long.
	Obituary func(voter, term uint64)

	Rejoin  time.Duration // how often missing seeds are looked for; default 5 s
	Log     *slog.Logger  // nil: slog.Default()
	Metrics *metrics.Set  // nil: a set of its own
}

// Kind is what an event is about.
type Kind uint8

// Kinds of events.
const (
	Up       Kind = iota + 1 // a node is there
	Changed                  // it says something else about itself
	Down                     // it left or is believed dead
	Conflict                 // another living node has the name of a known one
)

func (k Kind) String() string { return [...]string{"", "up", "changed", "down", "conflict"}[k] }

// Event is news about a node.
type Event struct {
	Kind   Kind
	Voters bool // seen in the voters' pool
	Member Member
	Other  string // Conflict: the address of the other one
}

// eventQueue is how many events may wait; memberlist's callbacks cannot. More
// are dropped and counted: Members has the truth.
const eventQueue = 1024

// Node is this node's part in the gossip.
type Node struct {
	cfg    Config
	key    []byte
	mux    *mux
	all    *pool
	voters *pool // nil if this is none
	events chan Event
	stop   chan struct{}
	done   sync.WaitGroup
	once   sync.Once

	lost, conflicts, joins *metrics.Counter

	mu   sync.Mutex
	meta Meta
}

// poolKey derives the key of the gossip from the cluster's, so that neither
// tells anything about the other.
func poolKey(clusterKey []byte) []byte {
	key, err := hkdf.Key(sha256.New, clusterKey, nil, "varve gossip", 32)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return key
}

func allLabel(cluster string) string    { return "varve " + cluster }
func votersLabel(cluster string) string { return "varve voters " + cluster }
func askLabel(cluster string) string    { return "varve ask " + cluster }

// Start listens and begins to look for the seeds; it does not wait for them.
func Start(cfg Config) (*Node, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.NewSet()
	}
	if cfg.Rejoin <= 0 {
		cfg.Rejoin = 5 * time.Second
	}
	n := &Node{
		cfg: cfg, key: poolKey(cfg.Key), meta: cfg.Meta,
		events: make(chan Event, eventQueue), stop: make(chan struct{}),
		lost:      cfg.Metrics.GetOrCreateCounter("varve_gossip_lost_events_total"),
		conflicts: cfg.Metrics.GetOrCreateCounter("varve_gossip_name_conflicts_total"),
		joins:     cfg.Metrics.GetOrCreateCounter("varve_gossip_joins_total"),
	}
	if err := n.start(); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	return n, nil
}

func (n *Node) start() error {
	own, err := n.ownAddress()
	if err != nil {
		return err
	}
	logger := memberLog(n.cfg.Log)
	all, voters := allLabel(n.cfg.Cluster), votersLabel(n.cfg.Cluster)
	if n.mux, err = listenMux(n.cfg.Bind, logger, n.services(), all, voters); err != nil {
		return fmt.Errorf("%w; choose another address with the setting gossip or stop what uses it", err)
	}
	if n.all, err = newPool(n, all, own, patient(), logger); err == nil && n.cfg.Voter {
		n.voters, err = newPool(n, voters, own, hasty(), logger)
	}
	if err != nil {
		n.Close()
		return err
	}
	n.cfg.Metrics.GetOrCreateGauge("varve_gossip_members", func() float64 { return float64(n.all.list.NumMembers()) })
	n.done.Add(1)
	go n.seek()
	return nil
}

// ownAddress is what others are told.
func (n *Node) ownAddress() (netip.Addr, error) {
	if n.cfg.Addr != "" {
		a, err := netip.ParseAddr(n.cfg.Addr)
		if err != nil {
			return a, fmt.Errorf("own address %q: %w", n.cfg.Addr, err)
		}
		return a.Unmap(), nil
	}
	if host, _, err := net.SplitHostPort(n.cfg.Bind); err == nil {
		if a, err := netip.ParseAddr(host); err == nil && !a.IsUnspecified() {
			return a.Unmap(), nil
		}
	}
	for _, seed := range n.cfg.Seeds {
		c, err := net.Dial("udp", seed) // sends nothing; asks the kernel for the route
		if err != nil {
			continue
		}
		a := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		c.Close()
		return a, nil
	}
	return netip.Addr{}, errors.New("cannot tell which of this host's addresses others reach; set one with gossip-address")
}

// Addr is where the node listens.
func (n *Node) Addr() string {
	return net.JoinHostPort(n.all.own.String(), fmt.Sprint(n.mux.net.GetAutoBindPort()))
}

// Events delivers news. It should be read promptly; what does not fit is dropped.
func (n *Node) Events() <-chan Event { return n.events }

// Done is closed when the node closes.
func (n *Node) Done() <-chan struct{} { return n.stop }

func (n *Node) tell(e Event) {
	select {
	case n.events <- e:
	default:
		n.lost.Inc()
	}
}

// Members are all nodes believed alive, this one among them, by name.
func (n *Node) Members() []Member { return n.all.members() }

// Voters are the nodes of the voters' pool; none where this node is not in it.
func (n *Node) Voters() []Member {
	if n.voters == nil {
		return nil
	}
	return n.voters.members()
}

// SetMeta changes what this node says about itself.
func (n *Node) SetMeta(m Meta) {
	n.mu.Lock()
	same := m == n.meta
	n.meta = m
	n.mu.Unlock()
	if same {
		return
	}
	n.all.update()
	if n.voters != nil {
		n.voters.update()
	}
}

func (n *Node) currentMeta() Meta {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.meta
}

// seek joins the seeds that are missing, at first often, then as a habit.
func (n *Node) seek() {
	defer n.done.Done()
	pause := 100 * time.Millisecond
	for {
		n.all.join(n.cfg.Seeds)
		if n.voters != nil {
			n.voters.join(n.cfg.Seeds)
		}
		select {
		case <-n.stop:
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, n.cfg.Rejoin)
	}
}

// Close says good-bye and ends.
func (n *Node) Close() error {
	n.once.Do(func() {
		close(n.stop)
		n.done.Wait()
		for _, p := range []*pool{n.voters, n.all} {
			if p != nil {
				p.close()
			}
		}
		if n.mux != nil {
			n.mux.close()
		}
	})
	return nil
}

func sortMembers(m []Member) []Member {
	slices.SortFunc(m, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return m
}
