// Command oldway builds, out of Debian's packages, the deployment that Varve
// replaces: MooseFS CE with keepalived, a metalogger, and unison started by
// inotify, on six machines (namespaces on one bridge), as the usual guides
// describe it. It kills the active master under the load of 'varve perf
// failover' and measures how long the mount stalled and how many acknowledged
// changes were lost. perf/oldway.sh installs what it needs and runs it.
//
// With --varve it does the same with the shipped configuration of Varve on the
// same six machines, so that both columns come from one machine and one load.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/varvefs/varve/perf"
	"github.com/varvefs/varve/test/lan"
)

// result is one round.
type result struct {
	What     string  `json:"what"`     // what was done to the active master
	StallMs  float64 `json:"stall_ms"` // longest stall of a caller
	Done     int     `json:"done"`     // changes acknowledged
	Failed   int     `json:"failed"`   // changes answered with an error
	Lost     int     `json:"lost"`     // acknowledged to be there, and were not
	Returned int     `json:"returned"` // acknowledged to be gone, and were there
	Note     string  `json:"note,omitempty"`
}

var (
	rounds  = flag.Int("rounds", 3, "rounds of each kind")
	work    = flag.Duration("work", 60*time.Second, "length of the load; the master is killed after a quarter of it")
	binary  = flag.String("binary", "bin/varve", "the varve binary, for the load")
	keep    = flag.String("keep", "", "directory for the machines' files; empty: a temporary one")
	workers = flag.Int("workers", 4, "callers of the load")
	pace    = flag.Duration("pace", 2*time.Millisecond, "pause of a caller between two changes")
	ownWay  = flag.Bool("varve", false, "measure Varve instead")
	onlyFor = flag.String("what", "", "only this: kill or poweroff")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "oldway:", err)
		os.Exit(1)
	}
}

// deployment is six running machines.
type deployment interface {
	// mount mounts on the client's machine below /mnt/NAME.
	mount(name string) (dir string, err error)
	// strike kills the active master's process, or switches its machine off.
	strike(what string) error
	client() *lan.Host
	logs() string
	close()
}

// pause is how long after the load the machines are left alone, so that those
// that lag behind may catch up.
const pause = 3 * time.Second

// measure runs the load on the client's machine, strikes, and looks for what was acknowledged.
func measure(d deployment, bin, dir, what string) (*result, error) {
	at, err := d.mount("load")
	if err != nil {
		return nil, err
	}
	record := filepath.Join(dir, "record.json")
	load := exec.Command(bin, "perf", "failover", "--dir", at, "--record", record, "--duration", work.String(), "--workers", fmt.Sprint(*workers), "--pace", pace.String())
	var said strings.Builder
	load.Stdout, load.Stderr = &said, &said
	if err := d.client().Start(load); err != nil {
		return nil, err
	}
	time.Sleep(*work / 4)
	struck := time.Now()
	if err := d.strike(what); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- load.Wait() }()
	select {
	case err = <-ended:
	case <-time.After(*work + 2*time.Minute):
		load.Process.Kill()
		err = errors.New("the load hangs")
	}
	if err != nil {
		return nil, fmt.Errorf("load: %w: %s", err, said.String())
	}
	time.Sleep(pause)
	r, err := perf.ReadFailoverRecord(record)
	if err != nil {
		return nil, err
	}
	fresh, err := d.mount("check")
	if err != nil {
		return nil, err
	}
	out, err := d.client().Run("timeout", "120", bin, "perf", "failover", "--dir", fresh, "--record", record, "--check")
	if err != nil {
		return nil, err
	}
	var found perf.FailoverCheck
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		return nil, err
	}
	return &result{What: what, StallMs: r.Worst(struck, time.Now()), Done: r.Done, Failed: r.Failed, Lost: len(found.Lost), Returned: len(found.Returned), Note: r.Error}, nil
}

// table prints the figures as a row of BENCHMARKS.md for each kind.
func table(all []result) {
	fmt.Println("| what | rounds | stall p50 / max ms | changes acknowledged | errors | acknowledged and lost |")
	fmt.Println("|---|---|---|---|---|---|")
	for _, what := range []string{"kill", "poweroff"} {
		var stalls []float64
		var done, failed int
		var lost []string
		for _, r := range all {
			if r.What == what {
				stalls = append(stalls, r.StallMs)
				done, failed = done+r.Done, failed+r.Failed
				lost = append(lost, fmt.Sprint(r.Lost+r.Returned))
			}
		}
		if len(stalls) == 0 {
			continue
		}
		slices.Sort(stalls)
		fmt.Printf("| %s | %d | %.0f / %.0f | %d | %d | %s |\n", what, len(stalls), stalls[len(stalls)/2], stalls[len(stalls)-1], done, failed, strings.Join(lost, ", "))
	}
}

func run() error {
	bin, err := filepath.Abs(*binary)
	if err != nil {
		return err
	}
	if _, err := os.Stat(bin); err != nil {
		return fmt.Errorf("%w; run 'make build' first", err)
	}
	var all []result
	for _, what := range []string{"kill", "poweroff"} {
		if *onlyFor != "" && *onlyFor != what {
			continue
		}
		for i := range *rounds {
			r, err := round(bin, what)
			if err != nil {
				return fmt.Errorf("round %d of %s: %w", i+1, what, err)
			}
			b, _ := json.Marshal(r)
			fmt.Fprintf(os.Stderr, "%s\n", b)
			all = append(all, *r)
		}
	}
	table(all)
	return nil
}

func round(bin, what string) (*result, error) {
	dir := *keep
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("/var/tmp", "oldway-"); err != nil {
			return nil, err
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
	}
	var d deployment
	var err error
	if *ownWay {
		d, err = startVarve(dir, bin)
	} else {
		d, err = startMoose(dir)
	}
	if err != nil {
		return nil, err
	}
	defer d.close()
	r, err := measure(d, bin, dir, what)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, d.logs())
	}
	return r, nil
}
