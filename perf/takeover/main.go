// Command takeover repeats one kind of failover on the six-machine plan
// (test/plan), in one running cluster, and says how long callers were held up
// and where the time went. Its callers wait for the master with every change (a
// mount with dirsync): otherwise a mount that is alone in a directory
// goes ahead of the changelog and hardly notices.
//
//	takeover --what kill --rounds 50 --out figures.jsonl      measure, and append a line a round
//	takeover --table figures.jsonl                            show the medians and the tails
//	takeover --slow 200 --table figures.jsonl                 and the trace of what took longer, in ms
//
// It needs root, nft and /dev/fuse. The voters' journals are in the directory
// --dir, which should be on a disk whose syncs are honest; how long they take
// meanwhile is measured beside the rest.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/varvefs/varve/perf"
	"github.com/varvefs/varve/test/lan"
	"github.com/varvefs/varve/test/plan"
)

var (
	what    = flag.String("what", "kill", "kind of failover: "+strings.Join(kindNames(), ", "))
	rounds  = flag.Int("rounds", 50, "how often")
	limit   = flag.Duration("limit", 150*time.Second, "begin no round after this time")
	binary  = flag.String("binary", "bin/varve", "the varve binary")
	dir     = flag.String("dir", "/var/tmp", "where the machines' files are kept meanwhile")
	out     = flag.String("out", "", "file to append a line of JSON a round to; empty: standard output")
	show    = flag.String("table", "", "show the figures of this file instead")
	slow    = flag.Float64("slow", 0, "with --table: show the traces of stalls from so many ms on")
	workers = flag.Int("workers", 2, "callers that change names")
	verbose = flag.Bool("verbose", false, "trace what raft does, too")
	calm    = flag.Duration("calm", window+200*time.Millisecond, "pause after all is well again, before the next round")
)

func main() {
	flag.Parse()
	err := func() error {
		if *show != "" {
			return table(*show)
		}
		return run()
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "takeover:", err)
		os.Exit(1)
	}
}

// result is one failover.
type result struct {
	What   string    `json:"what"`
	At     time.Time `json:"at"`
	Stall  float64   `json:"stall_ms"`  // longest of a caller that changes names, that touches the first window
	Later  float64   `json:"later_ms"`  // the same after it: the other voter comes back
	Before float64   `json:"before_ms"` // the same before the strike: what the machine does by itself
	Data   float64   `json:"data_ms"`   // longest of a caller that reads and writes
	Sync   float64   `json:"sync_ms"`   // longest sync of the disk meanwhile
	Median float64   `json:"sync_median_ms"`
	Trace  []event   `json:"trace"`
	struck span
}

// span is a time in which a failover took place.
type span struct{ from, to time.Time }

// bench is a running cluster under load.
type bench struct {
	*plan.Plan
	dir string
	bin string
}

func run() error {
	k, ok := kinds[*what]
	if !ok {
		return fmt.Errorf("unknown kind %q; there are %s", *what, strings.Join(kindNames(), ", "))
	}
	if err := lan.Needs("nft"); err != nil {
		return err
	}
	home, err := os.MkdirTemp(*dir, "takeover-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	if err := os.Chmod(home, 0o755); err != nil {
		return err
	}
	b := &bench{dir: home, bin: filepath.Join(home, "varve")} // where the user that the masters run as can reach it
	if said, err := exec.Command("cp", *binary, b.bin).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, said)
	}
	if b.Plan, err = plan.New(plan.Options{Packaging: "packaging", Binary: b.bin, Dir: home, Replace: replace()}); err != nil {
		return err
	}
	defer b.Close()
	if err := b.Start(); err != nil {
		return fmt.Errorf("%w\n%s", err, b.Logs())
	}
	results, err := b.measure(k)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, b.Logs())
	}
	return save(results)
}

// replace makes the daemons say what raft does, for the traces.
func replace() map[string]string {
	if !*verbose {
		return nil
	}
	return map[string]string{"[cluster]\n": "[cluster]\nlog = \"debug\"\n"}
}

// measure runs the load, and strikes again and again.
func (b *bench) measure(k kind) ([]result, error) {
	if _, err := b.Mount("load", "-o", "dirsync"); err != nil {
		return nil, err
	}
	record := filepath.Join(b.dir, "record.json")
	load := exec.Command(b.bin, "perf", "failover", "--dir", "/mnt/load", "--record", record, "--workers", fmt.Sprint(*workers), "--keep", "500", "--data", "1", "--duration", "1h")
	var said strings.Builder
	load.Stdout, load.Stderr = &said, &said
	if err := b.Hosts["client"].Start(load); err != nil {
		return nil, err
	}
	defer load.Process.Kill()
	disk, err := watchDisk(filepath.Join(b.dir, "probe"))
	if err != nil {
		return nil, err
	}
	defer disk.end()
	var results []result
	begun := time.Now()
	for len(results) < *rounds && time.Since(begun) < *limit {
		r, err := b.round(k)
		if err != nil {
			return nil, fmt.Errorf("round %d of %s: %w\n%s", len(results)+1, *what, err, said.String())
		}
		results = append(results, r)
	}
	load.Process.Signal(os.Interrupt)
	if err := load.Wait(); err != nil {
		return nil, fmt.Errorf("load: %w: %s", err, said.String())
	}
	rec, err := perf.ReadFailoverRecord(record)
	if err != nil {
		return nil, err
	}
	if rec.Failed > 0 {
		return nil, fmt.Errorf("%d calls failed: %s", rec.Failed, rec.Error)
	}
	for i := range results {
		end := results[i].struck.from.Add(window)
		if i+1 < len(results) && results[i+1].struck.from.Before(end) {
			end = results[i+1].struck.from
		}
		b.judge(&results[i], end, rec, disk)
	}
	return results, nil
}

// round waits until all is well, strikes, and waits again.
func (b *bench) round(k kind) (result, error) {
	active, standby, err := b.healthy()
	if err != nil {
		return result{}, err
	}
	time.Sleep(*calm)
	r := result{What: *what, At: time.Now()}
	r.struck.from = r.At
	if err := k(b, active, standby); err != nil {
		return r, err
	}
	time.Sleep(time.Until(r.At.Add(window))) // asking costs time of the processor
	_, _, err = b.healthy()
	r.struck.to = time.Now()
	return r, err
}

// judge fills in what is known when the load has ended. A stall that begins after
// end is not the strike's.
func (b *bench) judge(r *result, end time.Time, rec *perf.FailoverRecord, disk *diskWatch) {
	gap := perf.Longest(rec.Stalls, r.struck.from, end)
	r.Stall, r.Data = gap.Millis, perf.Longest(rec.Data, r.struck.from, end).Millis
	r.Later = perf.Longest(after(rec.Stalls, end), end, r.struck.to).Millis
	r.Before = perf.Longest(rec.Stalls, r.struck.from.Add(-window), r.struck.from.Add(-50*time.Millisecond)).Millis
	until := r.struck.from.Add(2 * time.Second)
	if gap.Millis > 0 && gap.End().After(until) {
		until = gap.End()
	}
	r.Median, r.Sync = disk.between(r.struck.from.Add(-time.Second), until)
	r.Trace = b.trace(r.struck.from, until)
	if gap.Millis > 0 {
		r.Trace = merge(r.Trace, r.struck.from, event{Where: "client", What: "last reply before the stall"}, gap.From)
		r.Trace = merge(r.Trace, r.struck.from, event{Where: "client", What: "first reply after it"}, gap.End())
	}
}

// window is the time after the strike in which a stall must have begun to be its
// consequence, beyond the election timeout.
const window = time.Second

// after is the gaps that begin after a time.
func after(gaps []perf.FailoverGap, at time.Time) (list []perf.FailoverGap) {
	for _, g := range gaps {
		if g.From.After(at) {
			list = append(list, g)
		}
	}
	return list
}

// healthy waits until a master leads and holds the address and all voters are up
// to date, and names the machines of leader and standby.
func (b *bench) healthy() (active, standby string, err error) {
	err = b.Await(time.Minute, "a leader with the virtual address, and all voters up to date", func() bool {
		said, err := b.Varve("client", "status", "--json")
		var st struct {
			Masters []struct {
				Name, Role string
				Down       bool
				Lag        uint64
			}
			Servers []struct{ State string }
		}
		if err != nil || json.Unmarshal([]byte(said), &st) != nil || len(st.Masters) != 3 || len(st.Servers) != 2 {
			return false
		}
		active, standby = "", ""
		for _, m := range st.Masters {
			switch {
			case m.Down || m.Lag > 100:
				return false
			case m.Role == "leader":
				active = m.Name
			case m.Role == "standby":
				standby = m.Name
			}
		}
		for _, s := range st.Servers {
			if s.State != "up" {
				return false
			}
		}
		held := b.Holders()
		return active != "" && standby != "" && len(held) == 1 && held[0] == active
	})
	return active, standby, err
}

func save(results []result) error {
	w := os.Stdout
	if *out != "" {
		f, err := os.OpenFile(*out, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		w = f
	}
	var errs error
	enc := json.NewEncoder(w)
	for i := range results {
		errs = errors.Join(errs, enc.Encode(&results[i]))
	}
	return errs
}
