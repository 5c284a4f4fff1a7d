package vip

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Device puts addresses where the host answers for them, and speaks to neighbours.
type Device interface {
	// Add takes an address for a lifetime, or renews that.
	Add(p netip.Prefix, lifetime time.Duration) error
	// Remove drops an address; that it is not there is no error.
	Remove(p netip.Prefix) (had bool, err error)
	// Probe asks whether somebody else has an address.
	Probe(netip.Addr) error
	// Announce tells the neighbours that an address is here.
	Announce(netip.Addr) error
}

// Owner is the part of an Agent that decides: it has no goroutine and no clock.
// All times are of one clock, BootTime in the Agent. It belongs to one goroutine.
type Owner struct {
	addresses []netip.Prefix
	lifetime  time.Duration
	dev       Device
	log       *slog.Logger

	held    bool
	until   time.Duration // the addresses are dropped then
	renewAt time.Duration // the kernel's lifetime is renewed then
	probeAt time.Duration
	say     schedule

	taken, dropped, expired, announced *metrics.Counter
}

// NewOwner makes one that holds nothing.
func NewOwner(addresses []netip.Prefix, lifetime time.Duration, dev Device, log *slog.Logger, set *metrics.Set) *Owner {
	return &Owner{
		addresses: addresses, lifetime: lifetime, dev: dev, log: log,
		taken:     set.GetOrCreateCounter("varve_vip_taken_total"),
		dropped:   set.GetOrCreateCounter("varve_vip_dropped_total"),
		expired:   set.GetOrCreateCounter("varve_vip_expired_total"),
		announced: set.GetOrCreateCounter("varve_vip_announcements_total"),
	}
}

// Held tells whether the addresses are held.
func (o *Owner) Held() bool { return o.held }

// Hold is Agent.Hold at now.
func (o *Owner) Hold(now, until time.Duration) error {
	if until <= now {
		return fmt.Errorf("the right to the virtual addresses ended %v ago", now-until)
	}
	o.until = until
	if o.held {
		return nil
	}
	if err := o.add(now); err != nil {
		return errors.Join(err, o.Drop()) // of several addresses all or none
	}
	o.held = true
	o.taken.Inc()
	o.probeAt = now
	o.say.restart(now)
	return nil
}

// Drop takes the addresses away; they are gone when it returns without error.
func (o *Owner) Drop() error {
	var errs error
	had := false
	for _, p := range o.addresses {
		was, err := o.dev.Remove(p)
		had = had || was
		errs = errors.Join(errs, err)
	}
	if errs == nil {
		o.held = false
	}
	if had {
		o.dropped.Inc()
		o.log.Info("dropped the virtual addresses", "addresses", o.addresses)
	}
	return errs
}

// Work does what is due at now. It returns when to call it next, and whether the
// right to the addresses ran out.
func (o *Owner) Work(now time.Duration) (next time.Duration, over bool) {
	if !o.held {
		return now + longestNap, false
	}
	if now >= o.until {
		o.expired.Inc()
		o.log.Warn("the right to the virtual addresses ran out", "late", now-o.until)
		if err := o.Drop(); err != nil {
			o.log.Error("cannot drop the virtual addresses, the kernel will within "+o.lifetime.String(), "err", err)
			o.held = false // never renew
		}
		return now + longestNap, true
	}
	if now >= o.renewAt {
		if err := o.add(now); err != nil {
			o.log.Error("cannot renew the virtual addresses", "err", err)
		}
	}
	if now >= o.probeAt {
		o.probeAt = now + probeEvery
		o.each("ask about", o.dev.Probe)
	}
	if now >= o.say.at() {
		o.say.done(now)
		o.announced.Inc()
		o.each("announce", o.dev.Announce)
	}
	return min(o.until, o.renewAt, o.probeAt, o.say.at(), now+longestNap), false
}

// Shout announces the addresses anew, and renews them.
func (o *Owner) Shout(now time.Duration) {
	o.renewAt = 0
	o.say.restart(now)
}

// each does something with all addresses and logs what fails.
func (o *Owner) each(what string, do func(netip.Addr) error) {
	for _, p := range o.addresses {
		if err := do(p.Addr()); err != nil {
			o.log.Warn("cannot "+what+" a virtual address", "addr", p.Addr(), "err", err)
		}
	}
}

// add puts all addresses on the interface with a fresh lifetime.
func (o *Owner) add(now time.Duration) error {
	o.renewAt = now + o.lifetime/renewFactor
	for _, p := range o.addresses {
		if err := o.dev.Add(p, o.lifetime); err != nil {
			return err
		}
	}
	return nil
}
