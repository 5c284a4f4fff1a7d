package sim

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// number reads a number from the environment.
func number(name string, otherwise uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
		return n
	}
	return otherwise
}

// TestSeeds runs the seeds VARVE_SIM_FROM to VARVE_SIM_TO, without them some that
// nobody has chosen.
func TestSeeds(t *testing.T) {
	from := number("VARVE_SIM_FROM", uint64(time.Now().UnixNano()))
	to := number("VARVE_SIM_TO", from+199)
	if testing.Short() {
		to = min(to, from+49)
	}
	limit := time.Duration(number("VARVE_SIM_SECONDS", 12)) * time.Second
	var sum Stats
	begun := time.Now()
	ran := 0
	for seed := from; seed <= to; seed++ {
		if ran > 0 && os.Getenv("VARVE_SIM_TO") == "" && time.Since(begun) > limit {
			break // the machine is slow
		}
		ran++
		s, err := Run(Options{Seed: seed})
		if err != nil {
			t.Fatalf("%v\n\nthe end of what happened:\n%s", err, tail(seed))
		}
		sum.add(&s)
	}
	t.Logf("%d seeds from %d in %v: %+v", ran, from, time.Since(begun).Round(time.Millisecond), sum)
}

func (s *Stats) add(o *Stats) {
	s.Elections, s.Kills, s.PowerCuts, s.Pauses, s.Cuts = s.Elections+o.Elections, s.Kills+o.Kills, s.PowerCuts+o.PowerCuts, s.Pauses+o.Pauses, s.Cuts+o.Cuts
	s.Wiped, s.Handovers, s.Images, s.Fetched = s.Wiped+o.Wiped, s.Handovers+o.Handovers, s.Images+o.Images, s.Fetched+o.Fetched
	s.Acked, s.Reads, s.Resent, s.Withheld = s.Acked+o.Acked, s.Reads+o.Reads, s.Resent+o.Resent, s.Withheld+o.Withheld
	s.Overlap, s.Gap, s.Virtual = max(s.Overlap, o.Overlap), max(s.Gap, o.Gap), s.Virtual+o.Virtual
}

// traced is how many lines of a failed run are shown; VARVE_SIM_TRACE shows all.
const traced = 150

// tail runs a seed again and returns the end of its trace.
func tail(seed uint64) string {
	var b bytes.Buffer
	_, _ = Run(Options{Seed: seed, Trace: &b})
	lines := strings.Split(b.String(), "\n")
	if n := len(lines); n > traced && os.Getenv("VARVE_SIM_TRACE") == "" {
		lines = lines[n-traced:]
	}
	return strings.Join(lines, "\n")
}

// TestRepeats: a seed does the same every time, with and without a trace, or it
// would be no use.
func TestRepeats(t *testing.T) {
	for seed := uint64(1); seed <= 3; seed++ {
		one, err := Run(Options{Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		two, err := Run(Options{Seed: seed, Trace: new(bytes.Buffer)})
		if err != nil {
			t.Fatal(err)
		}
		if one != two {
			t.Errorf("seed %d: first %+v, then %+v", seed, one, two)
		}
	}
}
