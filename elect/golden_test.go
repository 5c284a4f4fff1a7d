package elect

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestGolden plays the scripts in testdata. All times are milliseconds.
//
//	new self=2 masters=(1,2)
//	step at=100 term=5 leader=1 heard=90 [ready] [lease=600] [syncing=20] [longest] [peers=(2:0,3:7)]   peers with their lag; a lag of -1: silent
//	died voter=1 term=5 | handover [to=2] | stop
func TestGolden(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.Contains(path, "rapid") {
			t.Skip("not a script")
		}
		var m *Machine
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			number := func(key string) (n uint64) {
				if d.HasArg(key) {
					d.ScanArgs(t, key, &n)
				}
				return n
			}
			ms := func(key string) Nanos { return Nanos(number(key)) * 1e6 }
			switch d.Cmd {
			case "new":
				cfg := testConfig
				cfg.Self, cfg.Masters = number("self"), nil
				arg, _ := d.Arg("masters")
				for i := range arg.Vals {
					var id uint64
					arg.Scan(t, i, &id)
					cfg.Masters = append(cfg.Masters, id)
				}
				m = New(cfg)
			case "died":
				m.Died(Obituary{Voter: number("voter"), Term: number("term")})
			case "handover":
				m.Handover(number("to"))
			case "stop":
				m.Stop()
			case "step":
				v := View{Term: number("term"), Leader: number("leader"), Ready: d.HasArg("ready"),
					Lease: ms("lease"), Heard: ms("heard"), Syncing: ms("syncing"), Longest: d.HasArg("longest"), Peers: peersOf(t, d)}
				var b strings.Builder
				for _, a := range m.Step(ms("at"), v) {
					fmt.Fprintln(&b, a)
				}
				fmt.Fprintf(&b, "next at %d\n", m.Next()/1e6)
				return b.String()
			default:
				d.Fatalf(t, "unknown command %s", d.Cmd)
			}
			return ""
		})
	})
}

func peersOf(t *testing.T, d *datadriven.TestData) (peers []Peer) {
	arg, _ := d.Arg("peers")
	for _, text := range arg.Vals {
		var id uint64
		var lag int
		if _, err := fmt.Sscanf(text, "%d:%d", &id, &lag); err != nil {
			d.Fatalf(t, "peer %q: %v", text, err)
		}
		peers = append(peers, Peer{ID: id, Lag: uint64(max(lag, 0)), Active: lag >= 0})
	}
	return peers
}

const ms = 1e6

var testConfig = Config{
	Timeout: 500 * ms, Holdback: 300 * ms, Retry: 20 * ms, Voting: 200 * ms, Stall: 1000 * ms, Patience: 500 * ms,
}

// What stands in a log is how long the addresses are held, not a time of the boot clock.
func TestAt(t *testing.T) {
	a := Action{Do: Hold, Until: 40734715e6, Why: "leader of term 7"}
	if got := a.At(40734295e6); got != "hold the addresses for 420 ms: leader of term 7" {
		t.Error(got)
	}
}
