package gossip

import (
	"bytes"
	"log"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// goodbye is how long a node waits until others have heard that it leaves or changed.
const goodbye = 500 * time.Millisecond

// maxLine is how much of memberlist's lines is logged; it likes to print what it got.
const maxLine = 200

// pool is one memberlist. Its methods with the prefix Notify, and NodeMeta, are
// memberlist's callbacks.
type pool struct {
	n      *Node
	own    netip.Addr
	voters bool
	list   *memberlist.Memberlist

	mu sync.Mutex // a leaf: memberlist calls back with its own locks held
	// known are the living members. Memberlist's own list gives pointers to what it
	// goes on changing, so that only what its callbacks show may be read.
	known map[string]Member
}

// patient are the timers of the pool of all nodes: a node that does not answer
// is given up after about six seconds.
func patient() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.TCPTimeout = 5 * time.Second
	return c
}

// hasty are those of the few voters: about one second. A starved node must not
// slow down its probes eightfold, as it would by default, just when it matters.
func hasty() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.ProbeInterval, c.ProbeTimeout = 200*time.Millisecond, 80*time.Millisecond
	c.SuspicionMult, c.SuspicionMaxTimeoutMult, c.AwarenessMaxMultiplier = 3, 3, 3
	c.GossipInterval, c.GossipToTheDeadTime = 50*time.Millisecond, 10*time.Second
	c.PushPullInterval, c.TCPTimeout = 10*time.Second, time.Second
	return c
}

func newPool(n *Node, label string, own netip.Addr, c *memberlist.Config, l *log.Logger) (*pool, error) {
	p := &pool{n: n, own: own, known: map[string]Member{}, voters: label == votersLabel(n.cfg.Cluster)}
	c.Name, c.Label, c.SecretKey, c.Logger = n.cfg.ID, label, n.key, l
	c.Transport, c.SkipInboundLabelCheck = n.mux.pools[label], true // the mux has checked and removed it
	c.AdvertiseAddr, c.AdvertisePort = own.String(), n.mux.net.GetAutoBindPort()
	c.BindPort = c.AdvertisePort
	c.DeadNodeReclaimTime = 30 * time.Second // a node that moved gets its name back
	c.Delegate, c.Events, c.Conflict, c.Alive = p, p, p, p
	var err error
	p.list, err = memberlist.Create(c)
	return p, err
}

func (p *pool) member(node *memberlist.Node) (Member, error) {
	a, _ := netip.AddrFromSlice(node.Addr)
	meta, err := decodeMeta(node.Meta)
	return Member{ID: node.Name, Addr: a.Unmap(), Port: node.Port, Meta: meta}, err
}

func (p *pool) members() []Member {
	p.mu.Lock()
	defer p.mu.Unlock()
	return sortMembers(slices.Collect(maps.Values(p.known)))
}

// join looks for seeds that are not members. A seed is an address, and may be a
// name or a virtual address; it is known by the addresses of members.
func (p *pool) join(seeds []string) {
	known := map[string]bool{}
	for _, m := range p.members() {
		known[m.At(m.Port)] = true
	}
	for _, seed := range seeds {
		if known[seed] {
			continue
		}
		if a, err := netip.ParseAddrPort(seed); err != nil && len(known) > 1 || err == nil && a == p.self() {
			continue // a name leads to some member, and this node has found its way in
		}
		if n, err := p.list.Join([]string{seed}); err != nil {
			p.n.cfg.Log.Debug("gossip: a seed does not answer", "seed", seed, "err", err)
		} else if n > 0 {
			p.n.joins.Inc()
		}
	}
}

func (p *pool) self() netip.AddrPort {
	return netip.AddrPortFrom(p.own, uint16(p.n.mux.net.GetAutoBindPort()))
}

func (p *pool) update() {
	if err := p.list.UpdateNode(goodbye); err != nil {
		p.n.cfg.Log.Debug("gossip: cannot announce what changed", "err", err)
	}
}

func (p *pool) close() {
	if p.list == nil {
		return
	}
	if err := p.list.Leave(goodbye); err != nil {
		p.n.cfg.Log.Debug("gossip: left without a good-bye", "err", err)
	}
	p.list.Shutdown()
}

// NodeMeta is what this node says about itself.
func (p *pool) NodeMeta(int) []byte { return p.n.currentMeta().encode() }

// NotifyMsg and the next three are for data of one's own, of which there is none.
func (p *pool) NotifyMsg([]byte)                  {}
func (p *pool) GetBroadcasts(int, int) [][]byte   { return nil }
func (p *pool) LocalState(bool) []byte            { return nil }
func (p *pool) MergeRemoteState(_ []byte, _ bool) {}

// NotifyAlive refuses nodes whose words cannot be read.
func (p *pool) NotifyAlive(node *memberlist.Node) error {
	_, err := decodeMeta(node.Meta)
	return err
}

// NotifyJoin, NotifyLeave and NotifyUpdate are called with memberlist's locks held.
func (p *pool) NotifyJoin(node *memberlist.Node)   { p.tell(Up, node) }
func (p *pool) NotifyUpdate(node *memberlist.Node) { p.tell(Changed, node) }
func (p *pool) NotifyLeave(node *memberlist.Node)  { p.tell(Down, node) }

func (p *pool) tell(k Kind, node *memberlist.Node) {
	m, err := p.member(node)
	p.mu.Lock()
	if k == Down || err != nil {
		delete(p.known, m.ID)
	} else {
		p.known[m.ID] = m
	}
	p.mu.Unlock()
	if m.ID != p.n.cfg.ID && (err == nil || k == Down) {
		p.n.tell(Event{Kind: k, Voters: p.voters, Member: m})
	}
}

// NotifyConflict is called when a node claims the name of one that lives elsewhere.
func (p *pool) NotifyConflict(existing, other *memberlist.Node) {
	p.n.conflicts.Inc()
	p.n.cfg.Log.Error("gossip: two nodes have the same identity; was a directory copied? remove the copy's identity and start it again",
		"id", existing.Name, "one", existing.Address(), "other", other.Address())
	m, err := p.member(existing)
	if err == nil {
		p.n.tell(Event{Kind: Conflict, Voters: p.voters, Member: m, Other: other.Address()})
	}
}

// memberLog turns memberlist's lines into records: "[WARN] memberlist: text".
func memberLog(l *slog.Logger) *log.Logger { return log.New(&lines{l}, "", 0) }

type lines struct{ log *slog.Logger }

func (w *lines) Write(b []byte) (int, error) {
	text := string(bytes.TrimSpace(b))
	level, rest, ok := strings.Cut(text, "] memberlist: ")
	if !ok {
		level, rest = "", text
	}
	switch strings.TrimPrefix(level, "[") {
	case "ERR", "ERROR":
		// Packets and peers that did not behave: no reason to wake anybody.
		w.log.Warn("gossip: " + rest[:min(len(rest), maxLine)])
	default:
		w.log.Debug("gossip: " + rest)
	}
	return len(b), nil
}
