package vip

import (
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var mac = net.HardwareAddr{2, 0, 10, 77, 0, 1}

func TestFrames(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.77.0.100"), netip.MustParseAddr("fd77::100")
	probe6, to := probeNDP(v6)
	for _, c := range []struct{ what, got, want string }{
		{"gratuitous request", hex.EncodeToString(claimsARP(mac, v4)[0]), "00010800060400010200" + "0a4d0001" + "0a4d0064" + "000000000000" + "0a4d0064"},
		{"gratuitous reply", hex.EncodeToString(claimsARP(mac, v4)[1]), "00010800060400020200" + "0a4d0001" + "0a4d0064" + "ffffffffffff" + "0a4d0064"},
		{"probe", hex.EncodeToString(probeARP(mac, v4)), "00010800060400010200" + "0a4d0001" + "00000000" + "000000000000" + "0a4d0064"},
		{"advertisement", hex.EncodeToString(claimNDP(mac, v6)), "6000000000203aff" + "fd770000000000000000000000000100" + "ff020000000000000000000000000001" +
			"8800" + "4d62" + "20000000" + "fd770000000000000000000000000100" + "02010200" + "0a4d0001"},
		{"solicitation", hex.EncodeToString(probe6), "6000000000183aff" + "00000000000000000000000000000000" + "ff0200000000000000000001ff000100" +
			"8700" + "7b30" + "00000000" + "fd770000000000000000000000000100"},
		{"its receiver", to.String(), "33:33:ff:00:01:00"},
	} {
		if c.got != c.want {
			t.Errorf("%s is\n%s, want\n%s", c.what, c.got, c.want)
		}
	}
	if target, from, ok := parseNDP(claimNDP(mac, v6)); !ok || target != v6 || from.String() != mac.String() {
		t.Error("an advertisement is not read back:", target, from, ok)
	}
	if _, _, ok := parseNDP(probe6); ok {
		t.Error("a solicitation is taken for an advertisement")
	}
}

// The checksum of what was built must come out as zero.
func TestChecksum(t *testing.T) {
	b := claimNDP(mac, netip.MustParseAddr("fe80::1234:5678:9abc:def1"))
	if sum := checksum6(b); sum != 0 {
		t.Errorf("the checksum leaves %#04x", sum)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(claimsARP(mac, netip.MustParseAddr("10.77.0.100"))[0])
	f.Add(claimNDP(mac, netip.MustParseAddr("fd77::100")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ok := parseARP(b); ok && !slices.Equal(a.append(nil), b[:arpSize]) {
			t.Error("ARP is not what was read")
		}
		parseNDP(b)
	})
}

func TestSchedule(t *testing.T) {
	const begin = 1000 * time.Second
	var s schedule
	s.restart(begin)
	var got []time.Duration
	for s.at() < begin+40*time.Second {
		got = append(got, s.at()-begin)
		s.done(s.at())
	}
	want := append(slices.Clone(burst), 20*time.Second, 35*time.Second)
	if !slices.Equal(got, want) {
		t.Errorf("announced after %v, want %v", got, want)
	}
	s.done(begin + time.Hour)
	if at := s.at(); at <= begin+time.Hour || at > begin+time.Hour+slow {
		t.Errorf("after an hour's sleep the next one is at %v", at-begin)
	}
}
