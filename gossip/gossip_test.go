package gossip

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/varvefs/varve/test/lan"
)

var testKey = []byte("0123456789abcdef0123456789abcdef")

// node starts a node on loopback, or as the change to its configuration says.
func node(t *testing.T, id string, voter bool, seeds []string, change func(*Config)) *Node {
	t.Helper()
	cfg := Config{
		ID: id, Cluster: "test", Key: testKey, Bind: "127.0.0.1:0", Seeds: seeds, Voter: voter, Rejoin: 200 * time.Millisecond,
		Meta: Meta{Role: Master, Host: id, Clients: 9421}, Log: slog.New(slog.DiscardHandler),
	}
	if !voter {
		cfg.Meta = Meta{Role: Chunkd, Host: id, Data: 9422}
	}
	if change != nil {
		change(&cfg)
	}
	n, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within a minute: ", what)
		}
	}
}

func ids(members []Member) string {
	var all []string
	for _, m := range members {
		all = append(all, m.ID)
	}
	return strings.Join(all, " ")
}

// await waits for an event.
func await(t *testing.T, n *Node, what string, is func(Event) bool) Event {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case e := <-n.Events():
			if is(e) {
				return e
			}
		case <-timeout:
			t.Fatal("not told within a minute: ", what)
		}
	}
}

func TestTwoPoolsOnOnePort(t *testing.T) {
	a := node(t, "a", true, []string{"127.0.0.1:1"}, nil)
	b := node(t, "b", true, []string{a.Addr()}, nil)
	c := node(t, "c", false, []string{b.Addr()}, nil)
	for _, n := range []*Node{a, b, c} {
		eventually(t, "all know all", func() bool { return ids(n.Members()) == "a b c" })
	}
	eventually(t, "voters know voters", func() bool { return ids(a.Voters()) == "a b" && ids(b.Voters()) == "a b" })
	if v := c.Voters(); v != nil {
		t.Error("who is no voter has voters: ", v)
	}

	b.SetMeta(Meta{Role: Master, Host: "b", Clients: 9421, Epoch: 7, Leads: true})
	await(t, c, "b leads", func(e Event) bool { return e.Kind == Changed && e.Member.Meta.Leads && e.Member.Meta.Epoch == 7 })

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	members, err := Ask(ctx, c.Addr(), "test", testKey)
	if err != nil || ids(members) != "a b c" {
		t.Errorf("asked for the members: %v, %v", members, err)
	}
	if m := members[1]; m.At(m.Meta.Clients) != "127.0.0.1:9421" || !m.Meta.Leads {
		t.Errorf("b is %+v", m)
	}

	b.Close()
	await(t, a, "b left", func(e Event) bool { return e.Kind == Down && e.Member.ID == "b" })
	eventually(t, "b is gone", func() bool { return ids(a.Members()) == "a c" && ids(a.Voters()) == "a" })
}

// Another key or another cluster's name: neither joins nor answers.
func TestStrangers(t *testing.T) {
	a := node(t, "a", true, []string{"127.0.0.1:1"}, nil)
	key := node(t, "key", true, []string{a.Addr()}, func(c *Config) { c.Key = []byte("another key") })
	name := node(t, "name", true, []string{a.Addr()}, func(c *Config) { c.Cluster = "other" })
	friend := node(t, "friend", true, []string{a.Addr()}, nil)
	eventually(t, "the friend joins", func() bool { return ids(a.Voters()) == "a friend" && ids(friend.Members()) == "a friend" })
	for _, n := range []*Node{key, name} {
		if len(n.Members()) != 1 {
			t.Error("a stranger knows ", ids(n.Members()))
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := Ask(ctx, a.Addr(), "test", []byte("another key")); err == nil || !strings.Contains(err.Error(), "another cluster key") {
		t.Errorf("asked with another key: %v", err)
	}
	if _, err := Ask(ctx, a.Addr(), "other", testKey); err == nil {
		t.Error("asked for another cluster and got an answer")
	}
}

func TestNameConflict(t *testing.T) {
	a := node(t, "a", false, []string{"127.0.0.1:1"}, nil)
	node(t, "twin", false, []string{a.Addr()}, nil)
	eventually(t, "the first twin joins", func() bool { return ids(a.Members()) == "a twin" })
	node(t, "twin", false, []string{a.Addr()}, nil)
	e := await(t, a, "conflict", func(e Event) bool { return e.Kind == Conflict })
	if e.Member.ID != "twin" || e.Other == "" || e.Other == fmt.Sprintf("%s:%d", e.Member.Addr, e.Member.Port) {
		t.Errorf("told %+v", e)
	}
}

// Voters that were cut off from each other give each other up within seconds,
// and find each other again when the network heals.
func TestPartition(t *testing.T) {
	if err := lan.Needs("nft"); err != nil {
		t.Skip(err)
	}
	l, err := lan.New("10.77.3.0/24")
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	var hosts []*lan.Host
	var views []*bufio.Reader
	for i := range 3 {
		h, err := l.Host(fmt.Sprintf("v%d", i), fmt.Sprintf("10.77.3.%d", i+1), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		p := exec.Command(os.Args[0])
		p.Env = append(os.Environ(), nodeVariable+"="+h.Name)
		p.Stderr = os.Stderr
		out, err := p.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Start(p); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Process.Kill(); p.Wait() })
		hosts, views = append(hosts, h), append(views, bufio.NewReader(out))
	}
	sees := func(i int, want string) {
		t.Helper()
		for begin := time.Now(); time.Since(begin) < time.Minute; {
			line, err := views[i].ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if strings.TrimSpace(line) == want {
				t.Logf("v%d sees %q after %v", i, want, time.Since(begin).Round(time.Millisecond))
				return
			}
		}
		t.Fatalf("v%d never sees %q", i, want)
	}
	const all = "v0 v1 v2"
	for i := range views {
		sees(i, all)
	}
	if err := l.SetFaults(lan.Isolate(hosts[0])...); err != nil {
		t.Skip("no bridge rules here: ", err)
	}
	sees(1, "v1 v2")
	sees(2, "v1 v2")
	sees(0, "v0")
	if err := l.SetFaults(); err != nil {
		t.Fatal(err)
	}
	for i := range views {
		sees(i, all)
	}
}

// nodeVariable makes the test binary a voter of that name, which prints whom it
// sees, and again whenever that changes. A process is needed since memberlist dials from any thread.
const nodeVariable = "VARVE_GOSSIP_TEST_NODE"

func TestMain(m *testing.M) {
	name := os.Getenv(nodeVariable)
	if name == "" {
		os.Exit(m.Run())
	}
	n, err := Start(Config{
		ID: name, Cluster: "test", Key: testKey, Bind: "0.0.0.0:9426", Voter: true, Rejoin: 500 * time.Millisecond,
		Seeds: []string{"10.77.3.1:9426", "10.77.3.2:9426", "10.77.3.3:9426"}, Meta: Meta{Role: Master, Host: name},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		if _, err := fmt.Println(ids(n.Voters())); err != nil {
			os.Exit(0)
		}
		<-n.Events()
	}
}

func TestObituary(t *testing.T) {
	type death struct{ voter, term uint64 }
	got := make(chan death, 1)
	a := node(t, "a", true, []string{"127.0.0.1:1"}, func(c *Config) { c.Obituary = func(voter, term uint64) { got <- death{voter, term} } })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := SendObituary(ctx, a.Addr(), "test", []byte("another key"), 1, 7); err == nil {
		t.Error("an obituary with another key was taken")
	}
	if err := SendObituary(ctx, a.Addr(), "other", testKey, 1, 7); err == nil {
		t.Error("an obituary of another cluster was taken")
	}
	if err := SendObituary(ctx, a.Addr(), "test", testKey, 2, 9); err != nil {
		t.Error(err)
	}
	if d := <-got; d != (death{2, 9}) {
		t.Errorf("heard of %+v", d)
	}
}

func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	first, err := Identity(dir, Chunkd)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Identity(dir, Chunkd)
	if err != nil || again != first || !strings.HasPrefix(first, "chunkd-") {
		t.Errorf("%q, then %q, %v", first, again, err)
	}
}

func TestMetaFits(t *testing.T) {
	m := Meta{Role: Master, Host: strings.Repeat("h", 600), Version: strings.Repeat("\x00", 600), Voter: 1<<64 - 1, Raft: 65535, Servers: 65535, Clients: 65535,
		Data: 65535, HTTP: 65535, Epoch: 1<<64 - 1, Leads: true, Index: 1<<64 - 1, Load: 255, Total: 1<<64 - 1, Free: 1<<64 - 1}
	got, err := decodeMeta(m.encode())
	if err != nil || got.Free != m.Free || got.Epoch != m.Epoch {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzMeta(f *testing.F) {
	f.Add(Meta{Role: Master, Epoch: 3}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeMeta(b); err == nil {
			if _, err := decodeMeta(m.encode()); err != nil {
				t.Error(err)
			}
		}
	})
}

func FuzzAnswer(f *testing.F) {
	key, question := poolKey(testKey), make([]byte, questionSize)
	f.Add(sealer(key).Seal(nil, nil, []byte("[]"), question))
	f.Fuzz(func(t *testing.T, b []byte) { openAnswer(key, question, b) })
}

func FuzzObituary(f *testing.F) {
	f.Add(obituarySealer(testKey).Seal(nil, nil, make([]byte, 16), []byte("test")))
	f.Fuzz(func(t *testing.T, b []byte) { openObituary(b, "test", testKey) })
}
