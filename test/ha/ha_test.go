package ha

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/varvefs/varve/gossip"
	"github.com/varvefs/varve/perf"
	"github.com/varvefs/varve/test/lan"
	"github.com/varvefs/varve/test/plan"
	"github.com/varvefs/varve/test/rig"
)

// lengthVariable is how long TestLong runs, as a Go duration; empty: not at all.
const lengthVariable = "VARVE_HA"

func TestMain(m *testing.M) {
	for variable, run := range map[string]func(string) error{loadVariable: runLoad, forgeVariable: runForgery} {
		if text := os.Getenv(variable); text != "" {
			if err := run(text); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", variable, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
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

// launch builds the binary and starts the plan with it, below a new directory. disk
// is the size of the voters' disks in bytes, 0: they are on the host's.
func launch(t *testing.T, disk int64) (p *plan.Plan, dir, bin string) {
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
	bin = filepath.Join(dir, "varve")
	build := exec.Command("go", "build", "-tags", "giouring", "-ldflags=-checklinkname=0", "-o", bin, "../../cmd/varve")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p, err = plan.New(plan.Options{Packaging: "../../packaging", Binary: bin, Dir: dir, Disk: disk})
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
	return p, dir, bin
}

func start(t *testing.T) *arena {
	t.Helper()
	disk := int64(0)
	if disks() == "" {
		disk = 1 << 30
	}
	p, dir, bin := launch(t, disk)
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
		list, err := a.voters()
		if err != nil || len(list) != 3 {
			return false
		}
		roles := ""
		for _, m := range list {
			if m.Down || m.Lag > 1000 {
				return false
			}
			roles += m.Role + " "
		}
		return strings.Contains(roles, "leader") && strings.Contains(roles, "standby") && strings.Contains(roles, "metalogger")
	})
	if err != nil {
		list, also := a.voters()
		a.t.Fatalf("%v; %s has the address, the voters: %+v, %v", err, a.watch.holders(), list, also)
	}
	return active, map[string]string{"master1": "master2", "master2": "master1"}[active]
}

// load is what works on the mounts during a round.
type load struct {
	a               *arena
	home            string
	changes, fights *exec.Cmd
	said            strings.Builder
	record, history string
	stop            string // file that ends the fights
}

func (a *arena) load() *load {
	t := a.t
	t.Helper()
	l := &load{a: a, home: fmt.Sprintf("round%d", a.n)}
	base := filepath.Join(a.dir, l.home)
	l.record, l.history, l.stop = base+".json", base+".history", base+".stop"
	at := "/mnt/one/" + l.home
	if _, err := a.Hosts["client"].Run("mkdir", at, at+"/load", at+"/fight"); err != nil {
		t.Fatal(err)
	}
	order, err := json.Marshal(loadOrder{Mounts: []string{at + "/fight", "/mnt/two/" + l.home + "/fight"}, Out: l.history, Stop: l.stop, Workers: 4, Seed: uint64(a.n)})
	if err != nil {
		t.Fatal(err)
	}
	l.fights = exec.Command(os.Args[0])
	l.fights.Env = append(os.Environ(), loadVariable+"="+string(order))
	// Its directories are synced part of the time: a mount that is alone in one
	// goes ahead of the changelog otherwise, and does not notice who leads.
	l.changes = exec.Command(a.bin, "perf", "failover", "--dir", at+"/load", "--record", l.record, "--workers", "2", "--sync", "3", "--duration", "1h")
	for _, c := range []*exec.Cmd{l.fights, l.changes} {
		c.Stderr = &l.said
		if err := a.Hosts["client"].Start(c); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// proceeds waits until many more changes are made.
func (l *load) proceeds() {
	t := l.a.t
	t.Helper()
	count := func() (n int) {
		out, err := l.a.Hosts["client"].Run("timeout", "20", "sh", "-c", "ls /mnt/one/"+l.home+"/load/w* /mnt/one/"+l.home+"/fight/paths | wc -l")
		if _, scanned := fmt.Sscan(out, &n); err != nil || scanned != nil {
			return 0
		}
		return n
	}
	const many = 60
	first := 0
	err := l.a.Await(2*time.Minute, "the load goes on", func() bool {
		n := count()
		if first == 0 {
			first = n
		}
		return n > 0 && n >= first+many
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, l.said.String())
	}
}

// end stops the load and waits for it.
func (l *load) end() *perf.FailoverRecord {
	t := l.a.t
	t.Helper()
	if err := l.changes.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.stop, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.changes.Wait(), l.fights.Wait()); err != nil {
		t.Fatalf("load: %v\n%s", err, l.said.String())
	}
	r, err := perf.ReadFailoverRecord(l.record)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// round runs the load, strikes once, and checks everything.
func (a *arena) round(f fault) {
	t := a.t
	t.Helper()
	if why := disks(); f.disk && why != "" {
		t.Logf("%-42s left out: %s", f.name, why)
		return
	}
	a.n++
	active, standby := a.active()
	a.watch.take()
	l := a.load()
	l.proceeds()
	struck := time.Now()
	if err := f.strike(a.nemesis, active, standby); err != nil {
		t.Fatalf("%s: %v", f.name, err)
	}
	now, _ := a.active()
	l.proceeds()
	r := l.end()
	a.check(f, l.home, l.record, l.history)
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
	for _, bad := range []string{"panic:", "BUG:", "fatal error:"} {
		if n := a.count(bad); n > 0 {
			t.Errorf("%s: the logs have %d lines with %q", f.name, n, bad)
		}
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
			a.round(f)
		}
	}
}

// All of them, again and again, in an order that a seed repeats.
func TestLong(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv(lengthVariable))
	if err != nil {
		t.Skipf("set %s to a duration for the long round", lengthVariable)
	}
	only := os.Getenv(lengthVariable + "_ONLY")
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(lengthVariable + "_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the order of faults: %s_SEED=%d", lengthVariable, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	a := start(t)
	for end := time.Now().Add(length); time.Now().Before(end) && !t.Failed(); {
		for _, i := range random.Perm(len(faults)) {
			f := faults[i]
			if time.Now().Before(end) && !t.Failed() && strings.Contains(f.name, only) {
				a.round(f)
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

// The lies are so well made that memberlist believes them of others, and objects to its own.
func TestForgery(t *testing.T) {
	var said lockedText
	key := []byte("the key of this test, 32 bytes..")
	n, err := gossip.Start(gossip.Config{
		ID: "master-0123456789abcdef", Cluster: "varve", Key: key, Bind: "127.0.0.1:0", Voter: true, Seeds: []string{"127.0.0.1:1"},
		Meta: gossip.Meta{Role: gossip.Master}, Log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	c, err := net.Dial("udp", n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(said.String(), "Refuting a dead message"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not object to being called dead: ", said.String())
		}
		c.Write(deadMessage(key, "varve voters varve", "master-0123456789abcdef", uint32(1<<20+time.Now().Nanosecond()/1e6)))
	}
}

// lockedText is text that several goroutines write.
type lockedText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
