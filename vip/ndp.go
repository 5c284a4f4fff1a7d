package vip

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Neighbour discovery (RFC 4861) as IPv6 packets without the Ethernet header:
// the IPv6 header of 40 bytes, 8 bytes of ICMPv6, the target address, and the
// option with a link-layer address.
const (
	ip6Header       = 40
	ndpSize         = ip6Header + 8 + 16
	icmp6           = 58
	neighbourAsk    = 135
	neighbourTell   = 136
	flagOverride    = 0x20000000
	optionTargetMAC = 2
)

var (
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
)

// ndpPacket builds an ICMPv6 packet of kind about target. Hop limit 255 proves
// to the receiver that no router has passed it on.
func ndpPacket(kind byte, flags uint32, src, dst, target netip.Addr, option []byte) []byte {
	b := make([]byte, ndpSize, ndpSize+len(option))
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(ndpSize-ip6Header+len(option)))
	b[6], b[7] = icmp6, 255
	s, d, t := src.As16(), dst.As16(), target.As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	b[40] = kind
	binary.BigEndian.PutUint32(b[44:], flags)
	copy(b[48:], t[:])
	b = append(b, option...)
	binary.BigEndian.PutUint16(b[42:], checksum6(b))
	return b
}

// checksum6 is ICMPv6's checksum over the pseudo header and the message, whose
// checksum field must be zero. Its result is what belongs there.
func checksum6(b []byte) uint16 {
	sum := uint32(len(b)-ip6Header) + icmp6
	for i := 8; i+1 < len(b); i += 2 { // addresses and message lie one behind the other
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// claimNDP is the unsolicited advertisement to all nodes that says "addr is at
// me", overriding what they know.
func claimNDP(me net.HardwareAddr, addr netip.Addr) []byte {
	return ndpPacket(neighbourTell, flagOverride, addr, allNodes, addr, append([]byte{optionTargetMAC, 1}, me...))
}

// probeNDP asks who has addr as a host does that wants to take it (RFC 4862):
// from the unspecified address, so that a holder answers to all nodes.
func probeNDP(addr netip.Addr) (packet []byte, to net.HardwareAddr) {
	a := addr.As16()
	group := netip.MustParseAddr("ff02::1:ff00:0").As16()
	copy(group[13:], a[13:])
	return ndpPacket(neighbourAsk, 0, netip.IPv6Unspecified(), netip.AddrFrom16(group), addr, nil),
		net.HardwareAddr{0x33, 0x33, group[12], group[13], group[14], group[15]}
}

// parseNDP reads the target of a neighbour advertisement and the link-layer
// address that it gives, nil if none; false: it is something else.
func parseNDP(b []byte) (target netip.Addr, mac net.HardwareAddr, ok bool) {
	if len(b) < ndpSize || b[0]>>4 != 6 || b[6] != icmp6 || b[7] != 255 || b[40] != neighbourTell {
		return netip.Addr{}, nil, false
	}
	for rest := b[ndpSize:]; len(rest) >= 8 && rest[1] > 0 && len(rest) >= 8*int(rest[1]); rest = rest[8*int(rest[1]):] {
		if rest[0] == optionTargetMAC {
			mac = net.HardwareAddr(rest[2:8])
		}
	}
	return netip.AddrFrom16([16]byte(b[48:64])), mac, true
}
