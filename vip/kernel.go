package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// BootTime is the clock of all times of this package: it goes on while the host
// sleeps, and nobody can set it.
func BootTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("BUG: no CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(t.Nano())
}

// device is the network interface with the sockets to manage it. They belong to
// the network namespace of the thread that called openDevice.
type device struct {
	route *netlink.Handle
	link  netlink.Link
	mac   net.HardwareAddr
	arp   *packet.Conn // nil without IPv4 addresses
	ndp   *packet.Conn // nil without IPv6 addresses
}

func openDevice(name string, addrs []netip.Prefix) (d *device, err error) {
	d = &device{}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.route, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if name == "" {
		if name, err = d.find(addrs[0].Addr()); err != nil {
			return nil, err
		}
	}
	if d.link, err = d.route.LinkByName(name); err != nil {
		return nil, fmt.Errorf("network interface %s: %w", name, err)
	}
	d.mac = d.link.Attrs().HardwareAddr
	if len(d.mac) != 6 {
		return d, nil // loopback or a tunnel: there are no neighbours to tell
	}
	ifi := &net.Interface{Index: d.link.Attrs().Index, Name: name, HardwareAddr: d.mac, MTU: d.link.Attrs().MTU}
	for _, a := range addrs {
		if a.Addr().Is4() && d.arp == nil {
			d.arp, err = packet.Listen(ifi, packet.Datagram, unix.ETH_P_ARP, nil)
		}
		if a.Addr().Is6() && d.ndp == nil {
			d.ndp, err = packet.Listen(ifi, packet.Datagram, unix.ETH_P_IPV6, &packet.Config{Filter: advertisements()})
		}
		if err != nil {
			return nil, fmt.Errorf("open a packet socket on %s (it needs CAP_NET_RAW): %w", name, err)
		}
	}
	return d, nil
}

// advertisements lets only neighbour advertisements through, so that the host's
// other IPv6 traffic costs nothing here.
func advertisements() []bpf.RawInstruction {
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmp6, SkipTrue: 3},
		bpf.LoadAbsolute{Off: ip6Header, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: neighbourTell, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return program
}

// find gives the interface that has an address in the same network as addr.
func (d *device) find(addr netip.Addr) (string, error) {
	links, err := d.route.LinkList()
	if err != nil {
		return "", fmt.Errorf("list the network interfaces: %w", err)
	}
	for _, l := range links {
		list, err := d.route.AddrList(l, unix.AF_UNSPEC)
		if err != nil {
			continue // the interface is gone again
		}
		for _, a := range list {
			if ones, bits := a.Mask.Size(); ones < bits && a.IPNet.Contains(addr.AsSlice()) {
				return l.Attrs().Name, nil
			}
		}
	}
	return "", fmt.Errorf("no network interface has an address in the network of %s; name one with vip-interface", addr)
}

func (d *device) close() {
	if d.route != nil {
		d.route.Close()
	}
	if d.arp != nil {
		d.arp.Close()
	}
	if d.ndp != nil {
		d.ndp.Close()
	}
}

// kernelAddr is p as netlink wants it. With no preferred lifetime the kernel
// never chooses it as the source of connections that this host opens.
func kernelAddr(p netip.Prefix, lifetime time.Duration) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	a.ValidLft = int(lifetime / time.Second)
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // asking first whether it is free takes a second
	}
	return a
}

// Add takes an address, or renews its lifetime.
func (d *device) Add(p netip.Prefix, lifetime time.Duration) error {
	if err := d.route.AddrReplace(d.link, kernelAddr(p, lifetime)); err != nil {
		return fmt.Errorf("add %s to %s (it needs CAP_NET_ADMIN): %w", p, d.link.Attrs().Name, err)
	}
	return nil
}

// Remove drops an address; that it is not there is no error.
func (d *device) Remove(p netip.Prefix) (had bool, err error) {
	err = d.route.AddrDel(d.link, kernelAddr(p, 0))
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("remove %s from %s: %w", p, d.link.Attrs().Name, err)
	}
	return true, nil
}

// sweep removes every trace of the addresses from all interfaces, with whatever
// prefix length and lifetime they have.
func (d *device) sweep(addrs []netip.Prefix) (found []string, err error) {
	links, err := d.route.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	for _, l := range links {
		list, err := d.route.AddrList(l, unix.AF_UNSPEC)
		if err != nil {
			continue // the interface is gone again
		}
		for _, a := range list {
			have, ok := netip.AddrFromSlice(a.IP)
			if !ok || !contains(addrs, have.Unmap()) {
				continue
			}
			if err := d.route.AddrDel(l, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return found, fmt.Errorf("remove %s, left from a former life, from %s: %w", a.IPNet, l.Attrs().Name, err)
			}
			found = append(found, a.IPNet.String()+" on "+l.Attrs().Name)
		}
	}
	return found, nil
}

func contains(addrs []netip.Prefix, a netip.Addr) bool {
	for _, p := range addrs {
		if p.Addr() == a {
			return true
		}
	}
	return false
}

// Announce tells the neighbours that addr is here.
func (d *device) Announce(addr netip.Addr) error {
	if addr.Is6() && d.ndp != nil {
		_, err := d.ndp.WriteTo(claimNDP(d.mac, addr), &packet.Addr{HardwareAddr: allNodesMAC})
		return err
	}
	if addr.Is6() || d.arp == nil {
		return nil
	}
	var errs error
	for _, b := range claimsARP(d.mac, addr) {
		_, err := d.arp.WriteTo(b, &packet.Addr{HardwareAddr: broadcast})
		errs = errors.Join(errs, err)
	}
	return errs
}

// Probe asks whether somebody else has addr; watch sees the answer.
func (d *device) Probe(addr netip.Addr) error {
	if addr.Is6() && d.ndp != nil {
		b, to := probeNDP(addr)
		_, err := d.ndp.WriteTo(b, &packet.Addr{HardwareAddr: to})
		return err
	}
	if addr.Is6() || d.arp == nil {
		return nil
	}
	_, err := d.arp.WriteTo(probeARP(d.mac, addr), &packet.Addr{HardwareAddr: broadcast})
	return err
}
