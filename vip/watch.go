package vip

import (
	"bytes"
	"net"
	"net/netip"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// claim is what a neighbour said: addr is at mac.
type claim struct {
	addr netip.Addr
	mac  net.HardwareAddr
}

// watchARP reads ARP until the socket is closed, and passes on what others say
// about our addresses. The agent may be slow: then claims are dropped, they come again.
func (a *Agent) watchARP(c *packet.Conn) {
	defer a.background.Done()
	b := make([]byte, 2048)
	for {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		if p, ok := parseARP(b[:n]); ok {
			a.heard(p.senderAddr, p.sender)
		}
	}
}

// watchNDP is watchARP for IPv6.
func (a *Agent) watchNDP(c *packet.Conn) {
	defer a.background.Done()
	b := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		target, mac, ok := parseNDP(b[:n])
		if !ok {
			continue
		}
		if mac == nil {
			mac = from.(*packet.Addr).HardwareAddr
		}
		a.heard(target, mac)
	}
}

func (a *Agent) heard(addr netip.Addr, mac net.HardwareAddr) {
	if !contains(a.cfg.Addresses, addr) || bytes.Equal(mac, a.dev.mac) {
		return
	}
	select {
	case a.claims <- claim{addr, bytes.Clone(mac)}:
	default:
	}
}

// watchLink tells the agent when the interface comes up: neighbours behind it
// may have changed.
func (a *Agent) watchLink(updates <-chan netlink.LinkUpdate) {
	defer a.background.Done()
	up := a.dev.link.Attrs().RawFlags&unix.IFF_RUNNING != 0
	for u := range updates {
		if u.Attrs().Index != a.dev.link.Attrs().Index {
			continue
		}
		now := u.Attrs().RawFlags&unix.IFF_RUNNING != 0
		if now && !up {
			select {
			case a.linkUp <- struct{}{}:
			default:
			}
		}
		up = now
	}
}
