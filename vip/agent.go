package vip

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/vishvananda/netlink"
)

// Config says which addresses to manage where. Addresses is required.
type Config struct {
	// Addresses with the length of their prefix; /32 and /128 are the usual ones.
	Addresses []netip.Prefix
	// Interface that gets them; empty: the one that has an address in the first
	// one's network.
	Interface string
	// Lifetime that the kernel enforces, in whole seconds; default and minimum 2 s.
	Lifetime time.Duration
	Log      *slog.Logger // nil: slog.Default()
	Metrics  *metrics.Set // nil: a set of its own
}

// Event is news that the agent's owner should hear.
type Event struct {
	// Foreign: another host answers for Addr although this one holds it.
	Foreign bool
	// Expired: the time of Hold ran out and the addresses were dropped.
	Expired bool
	Addr    netip.Addr
	MAC     net.HardwareAddr // of the other host
}

// Agent manages the addresses of one host.
type Agent struct {
	cfg        Config
	dev        *device
	cmds       chan command
	claims     chan claim
	linkUp     chan struct{}
	events     chan Event
	stop       chan struct{}
	done       chan struct{}
	endLink    chan struct{}
	background sync.WaitGroup // the readers of the network
	once       sync.Once

	foreign *metrics.Counter

	// Owned by run.
	own     *Owner
	settled time.Duration            // until then the host before may have the addresses still
	doubted bool                     // somebody answered for one before
	alarmed map[claim2]time.Duration // when a foreign claim was last reported
}

// claim2 is a claim that can be a map's key.
type claim2 struct{ addr, mac string }

type command struct {
	until time.Duration // 0: drop
	done  chan error
}

const (
	probeEvery  = time.Second
	alarmEvery  = 10 * time.Second // a foreign claim that stays is reported this often
	longestNap  = 100 * time.Millisecond
	leastLife   = 2 * time.Second
	renewFactor = 4 // renewals within a lifetime
	maxAlarmed  = 256
)

// Open finds the interface, removes the addresses if a former life left them
// there, and starts the agent, which holds nothing yet. It must be called in the
// network namespace that the agent is for.
func Open(cfg Config) (*Agent, error) {
	if len(cfg.Addresses) == 0 {
		return nil, errors.New("no virtual address is configured")
	}
	for i, p := range cfg.Addresses {
		if !p.IsValid() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("virtual address %v is not ADDRESS/BITS", p)
		}
		cfg.Addresses[i] = p
	}
	cfg.Lifetime = max(cfg.Lifetime.Round(time.Second), leastLife)
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.NewSet()
	}
	dev, err := openDevice(cfg.Interface, cfg.Addresses)
	if err != nil {
		return nil, fmt.Errorf("virtual address: %w", err)
	}
	found, err := dev.sweep(cfg.Addresses)
	if err != nil {
		dev.close()
		return nil, fmt.Errorf("virtual address: %w", err)
	}
	if len(found) > 0 {
		cfg.Log.Warn("removed virtual addresses left from a former life", "addresses", found)
	}
	a := &Agent{
		cfg: cfg, dev: dev, cmds: make(chan command), claims: make(chan claim, 16), linkUp: make(chan struct{}, 1),
		events: make(chan Event, 16), stop: make(chan struct{}), done: make(chan struct{}), endLink: make(chan struct{}),
		alarmed: map[claim2]time.Duration{},
		foreign: cfg.Metrics.GetOrCreateCounter("varve_vip_foreign_claims_total"),
		own:     NewOwner(cfg.Addresses, cfg.Lifetime, dev, cfg.Log.With("interface", dev.link.Attrs().Name), cfg.Metrics),
	}
	if err := a.watch(); err != nil {
		dev.close()
		return nil, fmt.Errorf("virtual address: %w", err)
	}
	go a.run()
	return a, nil
}

// watch starts the readers.
func (a *Agent) watch() error {
	updates := make(chan netlink.LinkUpdate, 16)
	if err := netlink.LinkSubscribe(updates, a.endLink); err != nil {
		return fmt.Errorf("subscribe to link changes: %w", err)
	}
	a.background.Add(1)
	go a.watchLink(updates)
	if a.dev.arp != nil {
		a.background.Add(1)
		go a.watchARP(a.dev.arp)
	}
	if a.dev.ndp != nil {
		a.background.Add(1)
		go a.watchNDP(a.dev.ndp)
	}
	return nil
}

// Interface is where the addresses go.
func (a *Agent) Interface() string { return a.dev.link.Attrs().Name }

// Events delivers news; the oldest are lost when nobody reads.
func (a *Agent) Events() <-chan Event { return a.events }

// Hold takes the addresses, or keeps them, until the given BootTime, at which
// they are dropped unless Hold was called again.
func (a *Agent) Hold(until time.Duration) error {
	if until <= 0 {
		panic("BUG: an address is held until a time of the boot clock")
	}
	return a.command(until)
}

// Drop takes the addresses away; they are gone when it returns without error.
func (a *Agent) Drop() error { return a.command(0) }

func (a *Agent) command(until time.Duration) error {
	c := command{until: until, done: make(chan error, 1)}
	select {
	case a.cmds <- c:
		return <-c.done
	case <-a.done:
		return net.ErrClosed
	}
}

// Close drops the addresses and ends the agent.
func (a *Agent) Close() error {
	err := a.Drop()
	a.once.Do(func() {
		close(a.stop)
		<-a.done
		close(a.endLink)
		a.dev.close()
		a.background.Wait()
	})
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// run is the owner of the agent's state. It never sleeps longer than
// longestNap: Go's timers stand still while the host is suspended, the boot clock does not.
func (a *Agent) run() {
	defer close(a.done)
	nap := time.NewTimer(longestNap)
	defer nap.Stop()
	for {
		select {
		case <-a.stop:
			return
		case c := <-a.cmds:
			if c.until == 0 {
				c.done <- a.own.Drop()
			} else {
				c.done <- a.hold(BootTime(), c.until)
			}
		case c := <-a.claims:
			a.claimed(BootTime(), c)
		case <-a.linkUp:
			if a.own.Held() {
				a.cfg.Log.Info("the network interface came up, announcing the virtual addresses again", "interface", a.Interface())
				a.own.Shout(BootTime())
			}
		case <-nap.C:
		}
		nap.Reset(a.work(BootTime()))
	}
}

// work does what is due and says how long to sleep.
func (a *Agent) work(now time.Duration) time.Duration {
	if a.doubted && now >= a.settled {
		a.doubted = false
		a.own.Shout(now) // neighbours may have believed the host before
	}
	next, over := a.own.Work(now)
	if over {
		a.tell(Event{Expired: true})
	}
	return max(next-BootTime(), time.Microsecond)
}

func (a *Agent) hold(now, until time.Duration) error {
	had := a.own.Held()
	if err := a.own.Hold(now, until); err != nil || had {
		return err
	}
	clear(a.alarmed)
	a.settled, a.doubted = now+a.cfg.Lifetime+probeEvery, false
	a.cfg.Log.Info("took the virtual addresses", "addresses", a.cfg.Addresses, "interface", a.Interface())
	return nil
}

// claimed handles what a neighbour said about one of our addresses. A host that
// died with them answers until its kernel has let them expire: that is no reason to
// call anybody. Whoever answers later than that, to a question asked later, is.
func (a *Agent) claimed(now time.Duration, c claim) {
	if !a.own.Held() {
		return // then somebody else should have it
	}
	if now < a.settled {
		a.doubted = true
		return
	}
	key := claim2{c.addr.String(), c.mac.String()}
	if last, ok := a.alarmed[key]; ok && now < last+alarmEvery {
		return
	}
	if len(a.alarmed) >= maxAlarmed {
		clear(a.alarmed)
	}
	a.alarmed[key] = now
	a.foreign.Inc()
	a.cfg.Log.Error("another host answers for the virtual address; take it away there, or mounts may reach the wrong host",
		"addr", c.addr, "its hardware address", c.mac.String())
	a.own.say.restart(now)
	a.tell(Event{Foreign: true, Addr: c.addr, MAC: c.mac})
}

func (a *Agent) tell(e Event) {
	for {
		select {
		case a.events <- e:
			return
		default:
		}
		select {
		case <-a.events:
		default:
		}
	}
}
