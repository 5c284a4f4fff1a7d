package vip

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// ARP for IPv4 on Ethernet (RFC 826), without the Ethernet header: hardware type
// 1, protocol 0x0800, lengths 6 and 4, operation, then sender and target, each
// as hardware and protocol address.
const (
	arpSize    = 28
	arpRequest = 1
	arpReply   = 2
)

type arp struct {
	op         uint16
	sender     net.HardwareAddr
	senderAddr netip.Addr
	target     net.HardwareAddr
	targetAddr netip.Addr
}

func (a *arp) append(b []byte) []byte {
	b = append(b, 0, 1, 8, 0, 6, 4)
	b = binary.BigEndian.AppendUint16(b, a.op)
	s, t := a.senderAddr.As4(), a.targetAddr.As4()
	b = append(append(b, a.sender...), s[:]...)
	return append(append(b, a.target...), t[:]...)
}

// parseARP reads a packet that came from the network; false: it is none of ours.
func parseARP(b []byte) (a arp, ok bool) {
	if len(b) < arpSize || string(b[:6]) != "\x00\x01\x08\x00\x06\x04" {
		return arp{}, false
	}
	a.op = binary.BigEndian.Uint16(b[6:])
	a.sender, a.target = net.HardwareAddr(b[8:14]), net.HardwareAddr(b[18:24])
	a.senderAddr, a.targetAddr = netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	return a, true
}

var (
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	nobody    = make(net.HardwareAddr, 6)
)

// claimsARP are the gratuitous request and the gratuitous reply that say "addr is at me".
func claimsARP(me net.HardwareAddr, addr netip.Addr) [][]byte {
	request := arp{op: arpRequest, sender: me, senderAddr: addr, target: nobody, targetAddr: addr}
	reply := arp{op: arpReply, sender: me, senderAddr: addr, target: broadcast, targetAddr: addr}
	return [][]byte{request.append(nil), reply.append(nil)}
}

// probeARP asks who has addr without claiming it (RFC 5227): the sender's
// address is zero, so that nobody's table changes.
func probeARP(me net.HardwareAddr, addr netip.Addr) []byte {
	a := arp{op: arpRequest, sender: me, senderAddr: netip.IPv4Unspecified(), target: nobody, targetAddr: addr}
	return a.append(nil)
}
