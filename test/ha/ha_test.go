package ha

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/varvefs/varve/perf"
	"github.com/varvefs/varve/test/lan"
	"github.com/varvefs/varve/test/plan"
	"github.com/varvefs/varve/test/rig"
)

// lengthVariable is how long TestLong runs, as a Go duration; empty: not at all.
const lengthVariable = "VARVE_HA"

func TestMain(m *testing.M) {
	if text := os.Getenv(loadVariable); text != "" {
		if err := runLoad(text); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// arena is a running plan with two mounts.
type arena struct {
	*nemesis
	t   *testing.T
	n   int    // of rounds
	bin string // varve
}

func start(t *testing.T) *arena {
	t.Helper()
	rig.NeedFuse(t)
	if err := lan.Needs("nft", "nsenter"); err != nil {
		t.Skip(err)
	}
	// Not below t.TempDir, which only root may enter: the masters run as nobody.
	dir, err := os.MkdirTemp("/var/tmp", "varve-ha-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "varve")
	build := exec.Command("go", "build", "-tags", "giouring", "-ldflags=-checklinkname=0", "-o", bin, "../../cmd/varve")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p, err := plan.New(plan.Options{Packaging: "../../packaging", Binary: bin, Dir: dir})
	if err != nil {
		t.Skip("no namespaces here: ", err)
	}
	t.Cleanup(p.Close)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.Logs())
		}
	})
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	a := &arena{nemesis: &nemesis{Plan: p, watch: watch(p), dir: dir}, t: t, bin: bin}
	t.Cleanup(a.watch.end)
	for _, name := range []string{"one", "two"} {
		if _, err := p.Mount(name); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// active waits until one master has the address and all voters are there, and
// gives the hosts of leader and standby.
func (a *arena) active() (active, standby string) {
	a.t.Helper()
	err := a.Await(2*time.Minute, "one holder of the virtual address, and all voters", func() bool {
		active = a.watch.holders()
		if active != "master1" && active != "master2" {
			return false
		}
		out, err := a.Varve("client", "status", "--json")
		var st struct {
			Masters []struct {
				Role string
				Down bool
				Lag  uint64
			}
		}
		if err != nil || json.Unmarshal([]byte(out), &st) != nil || len(st.Masters) != 3 {
			return false
		}
		roles := ""
		for _, m := range st.Masters {
			if m.Down || m.Lag > 1000 {
				return false
			}
			roles += m.Role + " "
		}
		return strings.Contains(roles, "leader") && strings.Contains(roles, "standby") && strings.Contains(roles, "metalogger")
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return active, map[string]string{"master1": "master2", "master2": "master1"}[active]
}

// round runs the load, strikes once, and checks everything.
func (a *arena) round(f fault, length time.Duration) {
	t := a.t
	t.Helper()
	a.n++
	active, standby := a.active()
	a.watch.take()
	home := fmt.Sprintf("round%d", a.n)
	record, history, stop := filepath.Join(a.dir, home+".json"), filepath.Join(a.dir, home+".history"), filepath.Join(a.dir, home+".stop")
	client := a.Hosts["client"]
	if _, err := client.Run("mkdir", "/mnt/one/"+home, "/mnt/one/"+home+"/load", "/mnt/one/"+home+"/fight"); err != nil {
		t.Fatal(err)
	}
	order, err := json.Marshal(loadOrder{Mounts: []string{"/mnt/one/" + home + "/fight", "/mnt/two/" + home + "/fight"}, Out: history, Stop: stop, Workers: 4, Seed: uint64(a.n)})
	if err != nil {
		t.Fatal(err)
	}
	fighters := exec.Command(os.Args[0])
	fighters.Env = append(os.Environ(), loadVariable+"="+string(order))
	load := exec.Command(a.bin, "perf", "failover", "--dir", "/mnt/one/"+home+"/load", "--record", record, "--workers", "2", "--duration", length.String())
	var said strings.Builder
	for _, c := range []*exec.Cmd{fighters, load} {
		c.Stderr = &said
		if err := client.Start(c); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(length / 4)
	struck := time.Now()
	if err := f.strike(a.nemesis, active, standby); err != nil {
		t.Fatalf("%s: %v", f.name, err)
	}
	loadErr := load.Wait()
	if err := os.WriteFile(stop, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := fighters.Wait(); err != nil || loadErr != nil {
		t.Fatalf("load: %v, %v\n%s", loadErr, err, said.String())
	}
	now, _ := a.active()
	a.check(f, home, record, history)
	r, err := perf.ReadFailoverRecord(record)
	if err != nil {
		t.Fatal(err)
	}
	overlap, overlaps := a.watch.take()
	limit := 50 * time.Millisecond // of the sampling, on a loaded machine
	if f.overlap {
		limit = kernelLifetime
	}
	if overlap > limit && f.name != byHandName {
		t.Errorf("%s: two hosts had the virtual address for %v", f.name, overlap)
	}
	t.Logf("%-42s %s -> %s, stall %5.0f ms, %d changes, %d failed, two holders %d times, at most %v",
		f.name, active, now, r.Worst(struck, time.Now()), r.Done, r.Failed, overlaps, overlap.Round(time.Millisecond))
	if r.Failed > 0 {
		t.Errorf("%s: a change failed: %s", f.name, r.Error)
	}
}

// check looks at what is left of the round's load, through the other mount.
func (a *arena) check(f fault, home, record, history string) {
	t := a.t
	t.Helper()
	client := a.Hosts["client"]
	out, err := client.Run("timeout", "120", a.bin, "perf", "failover", "--check", "--dir", "/mnt/two/"+home+"/load", "--record", record)
	if err != nil {
		t.Fatal(err)
	}
	var found perf.FailoverCheck
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatal(err)
	}
	if len(found.Lost)+len(found.Returned) > 0 {
		t.Errorf("%s: of the acknowledged changes %d are lost and %d undone: %v %v", f.name, len(found.Lost), len(found.Returned), found.Lost, found.Returned)
	}
	if err := conserved(client.Root() + "/mnt/two/" + home + "/fight"); err != nil {
		t.Errorf("%s: %v", f.name, err)
	}
	b, err := os.ReadFile(history)
	if err != nil {
		t.Fatal(err)
	}
	var events []event
	if err := json.Unmarshal(b, &events); err != nil {
		t.Fatal(err)
	}
	if err := linearizable(events, time.Minute); err != nil {
		t.Errorf("%s: %v", f.name, err)
		os.WriteFile(filepath.Join(os.TempDir(), "varve-ha-history.json"), b, 0o644)
	}
	if _, err := oneServerPerEpoch(a.dir); err != nil {
		t.Errorf("%s: %v", f.name, err)
	}
}

// A few of the faults, in every run of the tests.
func TestShort(t *testing.T) {
	a := start(t)
	for _, f := range faults {
		if f.short {
			a.round(f, 5*time.Second)
		}
	}
}

// All of them, again and again.
func TestLong(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv(lengthVariable))
	if err != nil {
		t.Skipf("set %s to a duration for the long round", lengthVariable)
	}
	only := os.Getenv(lengthVariable + "_ONLY")
	a := start(t)
	for end := time.Now().Add(length); time.Now().Before(end) && !t.Failed(); {
		for _, f := range faults {
			if time.Now().Before(end) && !t.Failed() && strings.Contains(f.name, only) {
				a.round(f, 8*time.Second)
			}
		}
	}
	n, err := oneServerPerEpoch(a.dir)
	t.Logf("%d rounds, %d epochs, %v", a.n, n, err)
}

// The checkers find what they look for.
func TestCheckers(t *testing.T) {
	good := []event{{Worker: 0, Kind: opCreate, Out: outYes, Call: 0, Return: 10}, {Worker: 1, Kind: opCreate, Out: outNo, Call: 20, Return: 30},
		{Worker: 0, Kind: opRemove, Out: outUnknown, Call: 40, Return: 50}, {Worker: 1, Kind: opLook, Out: outYes, Call: 60, Return: 70}, {Worker: 1, Kind: opLook, Out: outNo, Call: 80, Return: 90}}
	if err := linearizable(good, time.Minute); err != nil {
		t.Error(err)
	}
	lost := append(good[:2:2], event{Worker: 1, Kind: opLook, Out: outNo, Call: 40, Return: 50})
	if err := linearizable(lost, time.Minute); err == nil {
		t.Error("a lost create was not noticed")
	}
	twice := []event{{Worker: 0, Kind: opCreate, Out: outYes, Call: 0, Return: 10}, {Worker: 1, Kind: opCreate, Out: outYes, Call: 20, Return: 30}}
	if err := linearizable(twice, time.Minute); err == nil {
		t.Error("two exclusive creates of one path were not noticed")
	}
	dir := t.TempDir()
	for _, d := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range tokens {
			if (d == "a") == (i < 5) {
				if err := os.WriteFile(filepath.Join(dir, d, fmt.Sprint(i)), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := conserved(dir); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "b", "3"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := conserved(dir); err == nil {
		t.Error("a token that is there twice was not noticed")
	}
}
