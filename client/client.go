package client

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/link"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

// Client is one session with a cluster. All its methods, and those of the Files
// and Dirs it opens, may be called from any goroutine.
type Client struct {
	cfg     Config
	log     *slog.Logger
	met     *counters
	start   time.Time
	ctx     context.Context // over when the client is closed
	cancel  context.CancelFunc
	closing atomic.Bool
	notify  atomic.Pointer[notifierBox]

	ses      *session
	table    *table
	cache    *cache
	maps     *cache // where blocks lie, see short.go
	short    *shortcuts
	servers  *servers
	budget   *budget
	batches  chan struct{} // Commits in work
	locks    atomic.Uint64 // last token of a waiting lock
	lockbook lockBook
	early    *early
	space    spaceWatch

	runMu sync.Mutex
	wg    sync.WaitGroup // all goroutines
	over  bool           // no more of them; guarded by runMu

	taskMu sync.Mutex
	tasks  map[*node]int64 // with something to do in the background, and from when on

	laterMu  sync.Mutex
	released map[inode.Ino]struct{} // no longer open here, to be told
}

// Connect opens a session and returns when a master has granted it. Masters
// that cannot be reached are tried until ctx is over; a wrong key, protocol
// version or path fails at once.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	if len(cfg.Masters) == 0 {
		return nil, status.Errorf(status.Invalid, "no master is configured")
	}
	cfg = cfg.withDefaults()
	c := &Client{
		cfg: cfg, log: cfg.Log, met: newCounters(cfg.Metrics), start: time.Now(),
		cache: newCache(cfg.CacheBytes, blockSize), maps: newCache(mapBytes, windowSize), short: newShortcuts(cfg.NoShort), budget: newBudget(cfg.WriteBuffer),
		batches: make(chan struct{}, batches), tasks: make(map[*node]int64), released: make(map[inode.Ino]struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.budget.over = c.ctx.Done()
	c.table = newTable(c, cfg.Inodes)
	c.servers = &servers{c: c, m: make(map[string]*server)}
	if cfg.Notify != nil {
		c.SetNotifier(cfg.Notify)
	}
	c.ses = newSession(c)
	if err := c.openEarly(ctx); err != nil {
		c.stop()
		return nil, err
	}
	c.gauges(cfg.Metrics)
	if err := c.ses.open(ctx); err != nil {
		c.stop()
		c.early.close(true)
		return nil, err
	}
	c.spawn(c.background)
	c.spawn(c.releaser)
	c.spawn(c.early.send)
	c.spawn(c.early.giveBackIdle)
	return c, nil
}

func (cfg Config) withDefaults() Config {
	if cfg.Path == "" {
		cfg.Path = "/"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.NewSet()
	}
	if cfg.WriteBuffer <= 0 {
		cfg.WriteBuffer = 256 << 20
	}
	if cfg.ReadAhead <= 0 {
		cfg.ReadAhead = 16 << 20
	}
	if cfg.CacheBytes <= 0 {
		cfg.CacheBytes = 128 << 20
	}
	if cfg.Inodes <= 0 {
		cfg.Inodes = 256 << 10
	}
	if cfg.MaxDirty <= 0 {
		cfg.MaxDirty = time.Second
	}
	return cfg
}

func (c *Client) linkConfig(want wire.Role) link.Config {
	cfg := link.Config{
		Key: c.cfg.Key, Role: wire.RoleMount, Want: want, Client: "varve " + c.cfg.Version, Log: c.log, Metrics: c.cfg.Metrics,
	}
	if want == wire.RoleChunkd {
		cfg.IdleTimeout = serverIdle
	}
	return cfg
}

// Root is the inode of Config.Path.
func (c *Client) Root() inode.Ino { return inode.Ino(c.ses.root.Load()) }

// Close writes and commits what is unwritten, ends the session and waits for
// every goroutine. Its error is the first that lost data, or that ctx was over
// before all was written. Files that are still open are of no use afterwards.
func (c *Client) Close(ctx context.Context) error {
	if c.closing.Swap(true) {
		return nil
	}
	err := c.quiesce(ctx)
	c.releaseAll()
	e := c.ses.end(ctx)
	if err == nil && e != nil {
		c.log.Warn("the session was not closed at the master", "err", e)
	}
	c.stop()
	c.early.close(e == nil)
	return err
}

// stop ends all goroutines and waits for them.
func (c *Client) stop() {
	c.runMu.Lock()
	c.over = true
	c.runMu.Unlock()
	c.cancel()
	c.ses.shut()
	c.servers.shut()
	for _, n := range c.table.all() {
		n.mu.Lock()
		n.cond.Broadcast()
		n.mu.Unlock()
		n.unpin()
	}
	c.wg.Wait()
}

// spawn runs f in a goroutine that Close waits for; false: the client is closed.
func (c *Client) spawn(f func()) bool {
	c.runMu.Lock()
	defer c.runMu.Unlock()
	if c.over {
		return false
	}
	c.wg.Go(f)
	return true
}

// now is monotonic time in nanoseconds.
func (c *Client) now() int64 { return int64(time.Since(c.start)) }

// sleep returns false when ctx or the client was over first.
func (c *Client) sleep(ctx context.Context, d time.Duration) bool {
	Waits(ctx)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	return false
}

func (c *Client) closedError() error { return status.Errorf(status.Closed, "the client is closed") }

// ctxError is the error of the dictionary for a context that is over.
func ctxError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return status.Timeout
	}
	return status.Interrupted
}
