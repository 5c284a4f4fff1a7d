package lan

import (
	"fmt"
	"strings"
)

// Fault is traffic that does not arrive, in one direction.
type Fault struct {
	From, To *Host // nil: any host
	Percent  int   // of the frames that are lost; 0 means all
	UDP      bool  // only UDP over IPv4
}

// Cut is the faults that separate the hosts of a from those of b, both ways.
func Cut(a, b []*Host) []Fault {
	var f []Fault
	for _, x := range a {
		for _, y := range b {
			f = append(f, Fault{From: x, To: y}, Fault{From: y, To: x})
		}
	}
	return f
}

// Isolate is the faults that cut a host off from all others.
func Isolate(h *Host) []Fault { return []Fault{{From: h}, {To: h}} }

// SetFaults replaces all faults; none heals the network. It needs nft, and
// works on the bridge, so that ARP is lost as well.
func (l *LAN) SetFaults(faults ...Fault) error {
	var b strings.Builder
	b.WriteString("table bridge faults {}\nflush table bridge faults\ndelete table bridge faults\n")
	b.WriteString("table bridge faults {\n chain forward {\n  type filter hook forward priority 0;\n")
	for _, f := range faults {
		b.WriteString("  ")
		if f.From != nil {
			fmt.Fprintf(&b, "iifname %q ", f.From.port())
		}
		if f.To != nil {
			fmt.Fprintf(&b, "oifname %q ", f.To.port())
		}
		if f.UDP {
			b.WriteString("ether type ip ip protocol udp ")
		}
		if f.Percent > 0 && f.Percent < 100 {
			fmt.Fprintf(&b, "numgen random mod 100 < %d ", f.Percent)
		}
		b.WriteString("drop\n")
	}
	b.WriteString(" }\n}\n")
	l.faults = faults
	return l.bridge.pipe(b.String(), "nft", "-f", "-")
}

// Faults are those that were set last.
func (l *LAN) Faults() []Fault { return l.faults }
