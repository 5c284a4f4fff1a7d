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

	taken, dropped, expired, foreign, announced *metrics.Counter

	// Owned by run.
	held    bool
	until   time.Duration // the addresses are dropped then
	renewAt time.Duration // the kernel's lifetime is renewed then
	probeAt time.Duration
	say     schedule
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
		alarmed:   map[claim2]time.Duration{},
		taken:     cfg.Metrics.GetOrCreateCounter("varve_vip_taken_total"),
		dropped:   cfg.Metrics.GetOrCreateCounter("varve_vip_dropped_total"),
		expired:   cfg.Metrics.GetOrCreateCounter("varve_vip_expired_total"),
		foreign:   cfg.Metrics.GetOrCreateCounter("varve_vip_foreign_claims_total"),
		announced: cfg.Metrics.GetOrCreateCounter("varve_vip_announcements_total"),
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
				c.done <- a.drop()
			} else {
				c.done <- a.hold(BootTime(), c.until)
			}
		case c := <-a.claims:
			a.claimed(BootTime(), c)
		case <-a.linkUp:
			if a.held {
				a.cfg.Log.Info("the network interface came up, announcing the virtual addresses again", "interface", a.Interface())
				a.renewAt = 0
				a.say.restart(BootTime())
			}
		case <-nap.C:
		}
		nap.Reset(a.work(BootTime()))
	}
}

// work does what is due and says how long to sleep.
func (a *Agent) work(now time.Duration) time.Duration {
	if !a.held {
		return longestNap
	}
	if now >= a.until {
		a.expired.Inc()
		a.cfg.Log.Warn("the right to the virtual addresses ran out", "late", now-a.until)
		if err := a.drop(); err != nil {
			a.cfg.Log.Error("cannot drop the virtual addresses, the kernel will within "+a.cfg.Lifetime.String(), "err", err)
			a.held = false // never renew
		}
		a.tell(Event{Expired: true})
		return longestNap
	}
	if now >= a.renewAt {
		if err := a.add(now); err != nil {
			a.cfg.Log.Error("cannot renew the virtual addresses", "err", err)
		}
	}
	if now >= a.probeAt {
		a.probeAt = now + probeEvery
		a.each("ask about", a.dev.probe)
	}
	if now >= a.say.at() {
		a.say.done(now)
		a.announced.Inc()
		a.each("announce", a.dev.announce)
	}
	next := min(a.until, a.renewAt, a.probeAt, a.say.at())
	return max(min(next-BootTime(), longestNap), time.Microsecond)
}

// each does something with all addresses and logs what fails.
func (a *Agent) each(what string, do func(netip.Addr) error) {
	for _, p := range a.cfg.Addresses {
		if err := do(p.Addr()); err != nil {
			a.cfg.Log.Warn("cannot "+what+" a virtual address", "addr", p.Addr(), "err", err)
		}
	}
}

func (a *Agent) hold(now, until time.Duration) error {
	if until <= now {
		return fmt.Errorf("the right to the virtual addresses ended %v ago", now-until)
	}
	a.until = until
	if a.held {
		return nil
	}
	if err := a.add(now); err != nil {
		return errors.Join(err, a.drop()) // of several addresses all or none
	}
	a.held = true
	a.taken.Inc()
	a.probeAt = now
	a.say.restart(now)
	clear(a.alarmed)
	a.cfg.Log.Info("took the virtual addresses", "addresses", a.cfg.Addresses, "interface", a.Interface())
	return nil
}

// add puts all addresses on the interface with a fresh lifetime.
func (a *Agent) add(now time.Duration) error {
	a.renewAt = now + a.cfg.Lifetime/renewFactor
	for _, p := range a.cfg.Addresses {
		if err := a.dev.add(p, a.cfg.Lifetime); err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) drop() error {
	var errs error
	had := false
	for _, p := range a.cfg.Addresses {
		was, err := a.dev.remove(p)
		had = had || was
		errs = errors.Join(errs, err)
	}
	if errs == nil {
		a.held = false
	}
	if had {
		a.dropped.Inc()
		a.cfg.Log.Info("dropped the virtual addresses", "addresses", a.cfg.Addresses, "interface", a.Interface())
	}
	return errs
}

// claimed handles what a neighbour said about one of our addresses.
func (a *Agent) claimed(now time.Duration, c claim) {
	if !a.held {
		return // then somebody else should have it
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
	a.say.restart(now)
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
