package vip

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/vishvananda/netlink"
)

// kernel is a device that keeps addresses for their lifetime, by a clock of the test.
type kernel struct {
	now   *time.Duration
	until time.Duration // the address is gone then
	adds  int

	announced int
}

func (k *kernel) Add(_ netip.Prefix, life time.Duration) error {
	k.until = *k.now + life
	k.adds++
	return nil
}

func (k *kernel) Remove(netip.Prefix) (bool, error) {
	had := k.has()
	k.until = 0
	return had, nil
}

func (k *kernel) has() bool                 { return k.until > *k.now }
func (k *kernel) Probe(netip.Addr) error    { return nil }
func (k *kernel) Announce(netip.Addr) error { k.announced++; return nil }

// While the host before may have an address still, nobody is called because it
// answers for it; the neighbours are told again when that is over. Later it is a conflict.
func TestClaims(t *testing.T) {
	now := time.Hour
	k := &kernel{now: &now}
	p := netip.MustParsePrefix("192.0.2.1/32")
	quiet, set := slog.New(slog.DiscardHandler), metrics.NewSet()
	a := &Agent{
		cfg: Config{Lifetime: leastLife, Log: quiet}, dev: &device{link: &netlink.Dummy{}}, events: make(chan Event, 16), alarmed: map[claim2]time.Duration{},
		foreign: set.GetOrCreateCounter("foreign"), own: NewOwner([]netip.Prefix{p}, leastLife, k, quiet, set),
	}
	if err := a.hold(now, now+time.Minute); err != nil {
		t.Fatal(err)
	}
	other := claim{p.Addr(), net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	for begun := now; now < begun+leastLife; now += 500 * time.Millisecond {
		a.claimed(now, other)
		a.work(now)
	}
	if len(a.events) > 0 {
		t.Errorf("an alarm while the address may live on where it was: %+v", <-a.events)
	}
	now += probeEvery
	said := k.announced
	if a.work(now); k.announced == said {
		t.Error("the neighbours are not told again")
	}
	a.claimed(now, other)
	if len(a.events) != 1 || !(<-a.events).Foreign {
		t.Error("no alarm when another host has the address")
	}
}

// An address is held until the right to it ends and not a moment longer, renewed
// until then, dropped at once when told to, and never taken with a right that is over.
func TestOwner(t *testing.T) {
	now := time.Hour
	k := &kernel{now: &now}
	o := NewOwner([]netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, leastLife, k, slog.New(slog.DiscardHandler), metrics.NewSet())
	if err := o.Hold(now, now); err == nil || k.has() {
		t.Error("an address is taken with a right that is over")
	}
	until := now + 5*time.Second
	if err := o.Hold(now, until); err != nil || !k.has() {
		t.Fatal("the address is not there", err)
	}
	for now < until {
		next, over := o.Work(now)
		if over || !k.has() || next <= now || next > until {
			t.Fatalf("%v before the end: over %v, there %v, next in %v", until-now, over, k.has(), next-now)
		}
		now = next
	}
	if _, over := o.Work(now); !over || k.has() || o.Held() {
		t.Errorf("the right is over: noticed %v, there %v", over, k.has())
	}
	if k.adds < 9 { // four in a lifetime
		t.Errorf("added %d times in 5 s", k.adds)
	}
	if err := o.Hold(now, now+time.Second); err != nil || o.Drop() != nil || k.has() || o.Held() {
		t.Error("a dropped address is there", err)
	}
	o.Work(now + time.Millisecond)
	if k.has() {
		t.Error("a dropped address is renewed")
	}
}
