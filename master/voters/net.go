// Package voters connects those who hold the changelog: masters and
// metaloggers. It carries raft's messages between their logs, tells each what
// the others are, and moves images from those who have them to those who need
// them.
//
// master and metalog start a Net before their log, give it to journal.Open as
// Transport, and attach the log when it is open. A Net dials every other voter
// and listens for them; what it sends leaves on the connection it dialled, what
// it gets comes on theirs. Images travel on connections of their own, so that
// votes and heartbeats never wait behind them.
//
// Net.mu guards the table of peers and what they last said; peer.mu its
// connection. Both are leaves: no callback, I/O or other lock under them.
package voters

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

const (
	maxBatch   = 1 << 20  // bytes of messages in one notice, if there is more than one
	maxBacklog = 32 << 20 // bytes waiting for one peer above which messages are dropped
	beatEvery  = time.Second
	// Trouble is told with every beat; it is over when it was not told twice.
	troubleLasts = 2*beatEvery + beatEvery/2
	retryFirst   = 20 * time.Millisecond
	retryLast    = 500 * time.Millisecond
	idle         = 2 * time.Second // after which a silent connection is dead
)

// Config says who this voter is and where the others are.
type Config struct {
	ID     uint64
	Own    string            // host:port at which the others reach this one
	Listen string            // host:port for other voters
	Peers  map[uint64]string // host:port of the others
	Key    []byte            // of the cluster
	// Self describes this voter; it is asked every second, from any goroutine.
	Self func() wire.VoterBeat
	// Heard is told of every beat of another voter; may be nil. It must not block.
	Heard   func(wire.VoterBeat)
	Images  Images // nil: none to give
	Version string
	Log     *slog.Logger
	Metrics *metrics.Set
}

// Beat is what another voter last said, and when.
type Beat struct {
	wire.VoterBeat
	At        time.Time
	Connected bool   // this side reaches it
	Trouble   string // what an operator should see to; empty: nothing
	Due       uint64 // what this log knew to be committed a beat before: who keeps up has applied it. 0: not known

	committed   uint64    // what it knew to be committed at committedAt
	committedAt time.Time // when a beat was heard
	troubled    time.Time // when Trouble was heard
}

// Net is this voter's connections to the others.
type Net struct {
	cfg    Config
	srv    *link.Server
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	dropped,
	sent *metrics.Counter

	mu     sync.Mutex
	log    *journal.Log // nil until Attach
	peers  map[uint64]*peer
	beats  map[uint64]Beat
	said   map[uint64]string // what was logged of a voter
	guests map[uint64]int    // invited voters
}

// peer is the way to one other voter.
type peer struct {
	net    *Net
	id     uint64
	cancel context.CancelFunc

	mu   sync.Mutex
	addr string
	conn *link.Conn // nil: not connected
}

// Start listens and begins to connect.
func Start(cfg Config) (*Net, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.NewSet()
	}
	n := &Net{cfg: cfg, peers: map[uint64]*peer{}, beats: map[uint64]Beat{}, said: map[uint64]string{}, guests: map[uint64]int{}}
	n.dropped = cfg.Metrics.GetOrCreateCounter("varve_voters_dropped_messages_total")
	n.sent = cfg.Metrics.GetOrCreateCounter("varve_voters_sent_messages_total")
	n.ctx, n.cancel = context.WithCancel(context.Background())
	var err error
	n.srv, err = link.Listen(cfg.Listen, n.linkConfig(), link.Only(link.HandlerFunc(n.serve), wire.RoleVoter))
	if err != nil {
		n.cancel()
		return nil, fmt.Errorf("port for other voters: %w", err)
	}
	for id, addr := range cfg.Peers {
		n.Add(id, addr)
	}
	n.wg.Go(n.beat)
	return n, nil
}

func (n *Net) linkConfig() link.Config {
	return link.Config{
		Key: n.cfg.Key, Role: wire.RoleVoter, Want: wire.RoleVoter, Client: "varve " + n.cfg.Version,
		Log: n.cfg.Log, Metrics: n.cfg.Metrics, IdleTimeout: idle,
	}
}

// Addr is where other voters are served.
func (n *Net) Addr() net.Addr { return n.srv.Addr() }

// Attach gives the messages of others to log from now on; before, they are lost.
func (n *Net) Attach(log *journal.Log) {
	n.mu.Lock()
	n.log = log
	n.mu.Unlock()
	n.Follow(log.Members())
	n.found()
	n.Tell()
}

// Add begins to connect to a voter, or goes on at a new address.
func (n *Net) Add(id uint64, addr string) {
	if id == n.cfg.ID || addr == "" {
		return
	}
	n.mu.Lock()
	old := n.peers[id]
	if old != nil && old.address() == addr {
		n.mu.Unlock()
		return
	}
	p := &peer{net: n, id: id, addr: addr}
	ctx, cancel := context.WithCancel(n.ctx)
	p.cancel = cancel
	n.peers[id] = p
	n.mu.Unlock()
	if old != nil {
		old.end()
	}
	n.wg.Go(func() { p.run(ctx) })
}

// Remove ends the connection to a voter.
func (n *Net) Remove(id uint64) {
	n.mu.Lock()
	p := n.peers[id]
	delete(n.peers, id)
	delete(n.beats, id)
	n.mu.Unlock()
	if p != nil {
		p.end()
	}
}

// Close ends all connections.
func (n *Net) Close() {
	n.cancel()
	n.srv.Close()
	n.wg.Wait()
}

// Send implements journal.Transport.
func (n *Net) Send(msgs []*raftpb.Message) {
	for len(msgs) > 0 {
		to := msgs[0].GetTo()
		k := 1
		for k < len(msgs) && msgs[k].GetTo() == to {
			k++
		}
		n.sendTo(to, msgs[:k])
		msgs = msgs[k:]
	}
}

// sendTo sends messages to one voter, as few notices as fit.
func (n *Net) sendTo(to uint64, msgs []*raftpb.Message) {
	conn := n.conn(to)
	if conn == nil || conn.Backlog() > maxBacklog {
		n.dropped.Add(len(msgs))
		return
	}
	out := &wire.Raft{From: n.cfg.ID, To: to}
	size := 0
	flush := func() {
		if len(out.Messages) > 0 {
			conn.Notify(out)
			n.sent.Add(len(out.Messages))
		}
		out.Messages, size = nil, 0
	}
	for _, m := range msgs {
		b, err := proto.Marshal(m)
		if err != nil {
			panic("BUG: raft made a message that cannot be encoded: " + err.Error())
		}
		if size+len(b) > maxBatch {
			flush()
		}
		out.Messages = append(out.Messages, b)
		size += len(b)
	}
	flush()
}

func (n *Net) conn(id uint64) *link.Conn {
	n.mu.Lock()
	p := n.peers[id]
	n.mu.Unlock()
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn
}

// Beats lists what the other voters last said, by ID. One that never said
// anything has only its number and address.
func (n *Net) Beats() []Beat {
	n.mu.Lock()
	peers := make([]*peer, 0, len(n.peers))
	list := make([]Beat, 0, len(n.peers))
	for _, p := range n.peers {
		peers = append(peers, p)
	}
	slices.SortFunc(peers, func(a, b *peer) int { return int(a.id) - int(b.id) })
	for _, p := range peers {
		b := n.beats[p.id]
		b.ID = p.id
		list = append(list, b)
	}
	n.mu.Unlock()
	for i, p := range peers {
		p.mu.Lock()
		list[i].Connected = p.conn != nil
		if list[i].Raft == "" {
			list[i].Raft = p.addr
		}
		p.mu.Unlock()
	}
	return list
}

// Tell sends a beat to all now, for news that should not wait for the next.
func (n *Net) Tell() {
	b := n.self()
	var trouble wire.VoterTrouble
	if log := n.attached(); log != nil {
		trouble.Text = log.Status().Trouble
	}
	n.mu.Lock()
	peers := make([]*peer, 0, len(n.peers))
	for _, p := range n.peers {
		peers = append(peers, p)
	}
	n.mu.Unlock()
	for _, p := range peers {
		p.mu.Lock()
		conn := p.conn
		p.mu.Unlock()
		if conn != nil {
			conn.Notify(&b)
			if trouble.Text != "" {
				conn.Notify(&trouble)
			}
		}
	}
}

func (n *Net) beat() {
	t := time.NewTicker(beatEvery)
	defer t.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-t.C:
			n.Tell()
		}
	}
}

func (p *peer) address() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr
}

// end stops run and closes the connection.
func (p *peer) end() {
	p.cancel()
}

// run keeps the connection until ctx is over.
func (p *peer) run(ctx context.Context) {
	n := p.net
	wait := retryFirst
	said := ""
	for ctx.Err() == nil {
		conn, err := link.Dial(ctx, "tcp", p.address(), n.linkConfig(), nil)
		if err != nil {
			if text := err.Error(); text != said && ctx.Err() == nil {
				said = text
				n.cfg.Log.Info("voters: not connected, trying again", "voter", p.id, "addr", p.address(), "err", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(wait/2 + rand.N(wait)):
			}
			wait = min(2*wait, retryLast)
			continue
		}
		wait, said = retryFirst, ""
		n.cfg.Log.Info("voters: connected", "voter", p.id, "addr", p.address())
		b := n.self()
		conn.Notify(&b)
		p.set(conn)
		select {
		case <-ctx.Done():
		case <-conn.Done():
			n.cfg.Log.Info("voters: connection lost", "voter", p.id, "err", conn.Err())
		}
		p.set(nil)
		conn.Close()
	}
}

func (p *peer) set(conn *link.Conn) {
	p.mu.Lock()
	p.conn = conn
	p.mu.Unlock()
}

// serve handles what other voters send. It runs on their read goroutines.
func (n *Net) serve(c *link.Conn, r *link.Request) {
	switch r.Kind {
	case wire.KindRaft:
		n.serveRaft(c, r)
	case wire.KindVoterBeat:
		var b wire.VoterBeat
		err := r.Decode(&b)
		r.Free()
		if err != nil {
			n.hostile(c, err)
			return
		}
		c.SetValue(&b)
		n.noteBeat(b)
	case wire.KindVoterTrouble:
		var t wire.VoterTrouble
		err := r.Decode(&t)
		r.Free()
		if err != nil {
			n.hostile(c, err)
			return
		}
		n.noteTrouble(c, t.Text)
	case wire.KindImageAsk, wire.KindImageRead:
		n.serveImage(r)
	default:
		r.Free()
		r.Fail(status.Errorf(status.Unsupported, "request of kind %#x", uint16(r.Kind)))
	}
}

func (n *Net) noteBeat(b wire.VoterBeat) {
	log := n.attached()
	var committed uint64
	if log != nil {
		committed = log.Status().Commit
	}
	n.mu.Lock()
	if _, known := n.peers[b.ID]; known {
		now, last := Beat{VoterBeat: b, At: time.Now()}, n.beats[b.ID]
		now.owe(&last, committed)
		if now.At.Sub(last.troubled) < troubleLasts {
			now.Trouble, now.troubled = last.Trouble, last.troubled
		}
		n.beats[b.ID] = now
	}
	n.mu.Unlock()
	n.found()
	if log != nil && n.admits(log, &b) {
		n.compare(log, &b)
	}
	if n.cfg.Heard != nil {
		n.cfg.Heard(b)
	}
}

// owe sets Due, with what this log knows to be committed now. Some voters tell a
// beat twice, having two numbers for this one: what was known at the first of
// the two cannot have been applied by the second.
func (b *Beat) owe(last *Beat, committed uint64) {
	switch {
	case last.Pid != b.Pid || last.Uptime > b.Uptime: // it has begun anew
		b.Due, b.committed, b.committedAt = committed, committed, b.At
	case b.At.Sub(last.committedAt) < beatEvery/2:
		b.Due, b.committed, b.committedAt = last.Due, last.committed, last.committedAt
	default:
		b.Due, b.committed, b.committedAt = last.committed, committed, b.At
	}
}

func (n *Net) noteTrouble(c *link.Conn, text string) {
	beat, _ := c.Value().(*wire.VoterBeat)
	if beat == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if b, known := n.beats[beat.ID]; known {
		b.Trouble, b.troubled = text, time.Now()
		n.beats[beat.ID] = b
	}
}

func (n *Net) serveRaft(c *link.Conn, r *link.Request) {
	var in wire.Raft
	err := r.Decode(&in)
	r.Free()
	if err == nil && in.To != n.cfg.ID {
		err = status.Errorf(status.BadMessage, "this is voter %d, the message is for %d: are the addresses of the voters right?", n.cfg.ID, in.To)
	}
	if err != nil {
		n.hostile(c, err)
		return
	}
	beat, _ := c.Value().(*wire.VoterBeat)
	log := n.attached()
	if log == nil || beat == nil || beat.ID != in.From || !n.admits(log, beat) {
		return
	}
	for _, b := range in.Messages {
		m := new(raftpb.Message)
		if err := proto.Unmarshal(b, m); err != nil || m.GetFrom() != in.From {
			n.hostile(c, status.Errorf(status.BadMessage, "a raft message that is none"))
			return
		}
		if err := log.Step(m); err != nil {
			n.cfg.Log.Debug("voters: message refused", "from", in.From, "err", err)
		}
	}
}

// hostile ends a connection whose other side talks nonsense.
func (n *Net) hostile(c *link.Conn, err error) {
	_, addr := c.Peer()
	n.cfg.Log.Warn("voters: closing a connection", "peer", addr, "err", err)
	c.Close()
}
