package chunkd

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

const (
	retryFirst   = 50 * time.Millisecond
	retryLongest = 2 * time.Second
	callTimeout  = 10 * time.Second // of a call to a master
	defaultBeat  = time.Second
)

// agent represents this server at one master, for as long as the server runs.
type agent struct {
	s    *Server
	addr string
	link link.Config
	wake chan struct{} // urgent news has come

	passing sync.Mutex // held by pass, over its calls; taken before mu

	mu     sync.Mutex
	listen bool // news is collected: a registration is under way or done
	live   bool // the master has the whole report
	news   news
}

// news is what the master does not know yet.
type news struct {
	made    []chunk.ID // copies that appeared
	raised  []chunk.ID // copies that have a new version
	gone    []chunk.ID // copies that were removed by order
	lost    []chunk.ID
	damaged []chunk.ID
}

// tell adds news if the master listens; a later registration reports all anyway.
func (a *agent) tell(add func(*news), urgent bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.listen {
		return
	}
	add(&a.news)
	if urgent {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}

func (a *agent) take() news {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.news
	a.news = news{}
	return n
}

func (a *agent) set(listen, live bool) {
	a.mu.Lock()
	a.listen, a.live, a.news = listen, live, news{}
	a.mu.Unlock()
}

func (a *agent) registered() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.live
}

// run keeps the server registered until it stops.
func (a *agent) run() {
	defer a.s.wg.Done()
	wait := retryFirst
	said := ""
	for a.s.ctx.Err() == nil {
		begin := time.Now()
		err := a.session(a.s.ctx)
		a.set(false, false)
		if a.s.ctx.Err() != nil {
			return
		}
		if time.Since(begin) > retryLongest {
			wait, said = retryFirst, ""
		}
		if err.Error() != said {
			said = err.Error()
			a.s.log.Warn("not connected to a master, trying again", "master", a.addr, "err", err)
		}
		select {
		case <-a.s.ctx.Done():
		case <-time.After(wait/2 + rand.N(wait)):
		}
		wait = min(2*wait, retryLongest)
	}
}

// session is one connection: register, report, then beat until it ends.
func (a *agent) session(ctx context.Context) error {
	orderCtx, cancel := context.WithCancel(ctx)
	book := &orderBook{ctx: orderCtx}
	c, err := link.Dial(ctx, "tcp", a.addr, a.link, link.HandlerFunc(func(c *link.Conn, r *link.Request) { a.s.serveOrder(a, book, c, r) }))
	if err != nil {
		cancel()
		return err
	}
	defer func() {
		c.Close()
		cancel()
		book.close()
	}()
	beat, err := a.register(ctx, c)
	if err != nil {
		return err
	}
	if err := a.reportAll(ctx, c); err != nil {
		return err
	}
	a.mu.Lock()
	a.live = true
	a.mu.Unlock()
	a.s.log.Info("registered", "master", a.addr, "server", a.s.shelf.server)
	t := time.NewTicker(beat)
	defer t.Stop()
	rates := a.s.rates()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.Done():
			return c.Err()
		case <-a.wake:
			err = a.pass(ctx, c)
		case <-t.C:
			if err = a.pass(ctx, c); err == nil {
				err = a.call(ctx, c, rates.beat())
			}
		}
		if err != nil {
			return err
		}
	}
}

func (a *agent) call(ctx context.Context, c *link.Conn, m wire.Message) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.Call(ctx, m, nil, nil)
}

func (a *agent) register(ctx context.Context, c *link.Conn) (beat time.Duration, err error) {
	s := a.s
	s.mu.Lock()
	cluster := s.shelf.cluster
	s.mu.Unlock()
	m := wire.Register{
		Server: s.shelf.server, Addr: a.dataAddr(c), HTTP: s.cfg.HTTP, Pid: uint32(os.Getpid()), Version: s.cfg.Version,
		Labels: s.cfg.Labels, Cluster: cluster, Epoch: s.fence.high.Load(), Disks: s.diskStates(),
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var reply wire.RegisterReply
	if err := c.Call(ctx, &m, nil, &reply); err != nil {
		return 0, err
	}
	if err := s.join(reply.Cluster); err != nil {
		return 0, err
	}
	if err := s.fence.admit(reply.Epoch); err != nil && status.CodeOf(err) != status.OldEpoch {
		return 0, err // a deposed master is no reason to hang up: its orders are refused
	}
	if s.cfg.Beat > 0 {
		return s.cfg.Beat, nil
	}
	if reply.BeatMillis == 0 {
		return defaultBeat, nil
	}
	return time.Duration(reply.BeatMillis) * time.Millisecond, nil
}

// dataAddr is where clients are to find the data port. Without a configured
// address it is the one that the master is reached from.
func (a *agent) dataAddr(c *link.Conn) string {
	if a.s.cfg.Advertise != "" {
		return a.s.cfg.Advertise
	}
	host, port, err := net.SplitHostPort(a.s.Addr().String())
	if err != nil {
		return a.s.Addr().String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		if local, ok := c.LocalAddr().(*net.TCPAddr); ok {
			host = local.IP.String()
		}
	}
	return net.JoinHostPort(host, port)
}

// join takes on the cluster's identity at the first registration and refuses
// another one later.
func (s *Server) join(cluster string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.shelf.cluster {
	case cluster:
		return nil
	case "":
		s.log.Info("disks join a cluster", "cluster", cluster)
		return s.shelf.setCluster(cluster)
	}
	return status.Errorf(status.Invalid, "the master is of cluster %s, the disks belong to %s", cluster, s.shelf.cluster)
}

// reportAll lists all copies. News is collected from before the listing on, so
// that nothing falls in between.
func (a *agent) reportAll(ctx context.Context, c *link.Conn) error {
	a.set(true, false)
	var all []wire.Copy
	for _, d := range a.s.shelf.alive() {
		all = append(all, d.chunks()...)
	}
	for {
		n := min(len(all), reportBatch)
		if err := a.call(ctx, c, &wire.Report{Copies: all[:n], Last: n == len(all)}); err != nil {
			return err
		}
		if all = all[n:]; len(all) == 0 {
			break
		}
	}
	if ids := a.s.brokenChunks(); len(ids) > 0 {
		a.tell(func(n *news) { n.damaged = append(n.damaged, ids...) }, true)
	}
	return nil
}

// describe makes one report's worth of copies, and returns what is left over.
func (s *Server) describe(ids []chunk.ID) (copies []wire.Copy, rest []chunk.ID) {
	k := min(len(ids), reportBatch)
	for _, id := range ids[:k] {
		if _, info, err := s.shelf.find(id); err == nil {
			copies = append(copies, wire.Copy{Chunk: id, Version: info.Version, Length: info.Length})
		}
	}
	return copies, ids[k:]
}

// pass tells the master the news. When it returns, the master has all that was
// news when it was called.
func (a *agent) pass(ctx context.Context, c *link.Conn) error {
	a.passing.Lock()
	defer a.passing.Unlock()
	n := a.take()
	for len(n.made)+len(n.raised)+len(n.gone) > 0 {
		var r wire.Report
		r.Copies, n.made = a.s.describe(n.made)
		r.Raised, n.raised = a.s.describe(n.raised)
		g := min(len(n.gone), reportBatch)
		r.Gone, n.gone = n.gone[:g], n.gone[g:]
		if err := a.call(ctx, c, &r); err != nil {
			return err
		}
	}
	for len(n.lost)+len(n.damaged) > 0 {
		l, d := min(len(n.lost), reportBatch), min(len(n.damaged), reportBatch)
		if err := a.call(ctx, c, &wire.Trouble{Lost: n.lost[:l], Damaged: n.damaged[:d]}); err != nil {
			return err
		}
		n.lost, n.damaged = n.lost[l:], n.damaged[d:]
	}
	return nil
}
