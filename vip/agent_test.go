package vip

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/varvefs/varve/test/lan"
)

// holderVariable makes the test binary a process that holds the address for
// ever, to be killed or stopped.
const holderVariable = "VARVE_VIP_TEST_HOLD"

func TestMain(m *testing.M) {
	if os.Getenv(holderVariable) == "" {
		os.Exit(m.Run())
	}
	a, err := Open(Config{Addresses: vips})
	for err == nil {
		if err = a.Hold(BootTime() + time.Minute); err == nil {
			fmt.Println("held")
			time.Sleep(10 * time.Second)
		}
	}
	fmt.Println(err)
	os.Exit(1)
}

var vips = []netip.Prefix{netip.MustParsePrefix("10.77.2.100/32"), netip.MustParsePrefix("fd77:2::100/128")}

// host is a machine with a handle to look at its addresses from outside.
type host struct {
	*lan.Host
	route *netlink.Handle
	t     *testing.T
}

func hosts(t *testing.T, n int) (all []*host) {
	t.Helper()
	if err := lan.Needs(); err != nil {
		t.Skip(err)
	}
	l, err := lan.New("10.77.2.0/24")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(l.Close)
	for i := range n {
		lh, err := l.Host(fmt.Sprintf("h%d", i), fmt.Sprintf("10.77.2.%d", i+1), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		h := &host{Host: lh, t: t}
		if _, err := h.Run("ip", "addr", "add", fmt.Sprintf("fd77:2::%d/64", i+1), "dev", "eth0", "nodad"); err != nil {
			t.Skip("no IPv6 here: ", err)
		}
		if err := h.Do(func() (err error) { h.route, err = netlink.NewHandle(unix.NETLINK_ROUTE); return }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.route.Close)
		all = append(all, h)
	}
	return all
}

// holds counts the virtual addresses on the host.
func (h *host) holds() (n int) {
	h.t.Helper()
	link, err := h.route.LinkByName("eth0")
	if err != nil {
		h.t.Fatal(err)
	}
	list, err := h.route.AddrList(link, unix.AF_UNSPEC)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, a := range list {
		if ip, _ := netip.AddrFromSlice(a.IP); contains(vips, ip.Unmap()) {
			n++
		}
	}
	return n
}

func (h *host) open() *Agent {
	h.t.Helper()
	var a *Agent
	if err := h.Do(func() (err error) { a, err = Open(Config{Addresses: vips}); return }); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { a.Close() })
	return a
}

// neighbour gives the hardware address at which the host sees addr.
func (h *host) neighbour(addr netip.Addr) string {
	out, err := h.Run("ip", "neigh", "show", addr.String())
	if err != nil {
		h.t.Fatal(err)
	}
	words := strings.Fields(out)
	for i := range words {
		if words[i] == "lladdr" {
			return words[i+1]
		}
	}
	return ""
}

// resolve makes the host ask where addr is.
func (h *host) resolve(addr netip.Addr) {
	h.Run("timeout", "0.3", "bash", "-c", "</dev/tcp/"+addr.String()+"/9")
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within 30 s: ", what)
		}
	}
}

func TestTakeAndDrop(t *testing.T) {
	all := hosts(t, 3)
	a, b, client := all[0], all[1], all[2]
	first, second := a.open(), b.open()
	if err := first.Hold(BootTime() + time.Minute); err != nil {
		t.Fatal(err)
	}
	if a.holds() != len(vips) || b.holds() != 0 {
		t.Fatalf("held %d and %d addresses", a.holds(), b.holds())
	}
	for _, p := range vips {
		eventually(t, "the client finds the address", func() bool {
			client.resolve(p.Addr())
			return client.neighbour(p.Addr()) == first.dev.mac.String()
		})
	}
	if err := first.Drop(); err != nil {
		t.Fatal(err)
	}
	if a.holds() != 0 {
		t.Fatal("an address is there after Drop")
	}
	if err := second.Hold(BootTime() + time.Minute); err != nil {
		t.Fatal(err)
	}
	// The client asks nobody: the announcements alone must tell it.
	for _, p := range vips {
		eventually(t, "the client learns that the address moved", func() bool {
			return client.neighbour(p.Addr()) == second.dev.mac.String()
		})
	}
}

// The agent drops the address when the time of Hold is over, not later than it
// could notice, and renews it until then for longer than the kernel's lifetime.
func TestHoldEnds(t *testing.T) {
	h := hosts(t, 1)[0]
	a := h.open()
	until := BootTime() + 3*time.Second
	if err := a.Hold(until); err != nil {
		t.Fatal(err)
	}
	var last time.Duration
	eventually(t, "the address expires", func() bool {
		now := BootTime()
		if h.holds() == 0 {
			return true
		}
		last = now
		return false
	})
	if last < until-500*time.Millisecond || last > until+time.Second {
		t.Errorf("the address was last seen %v after the end of the right", last-until)
	}
	if e := <-a.Events(); !e.Expired {
		t.Errorf("told %+v", e)
	}
	if err := a.Hold(until); err == nil {
		t.Error("took the address with a right that had ended")
	}
}

// Whatever becomes of the holder's process, the kernel takes the address away
// within its lifetime; the next agent removes what a former life left.
func TestKernelTakesItAway(t *testing.T) {
	for _, c := range []struct {
		what string
		sig  syscall.Signal
	}{{"killed", syscall.SIGKILL}, {"stopped", syscall.SIGSTOP}} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			h := hosts(t, 1)[0]
			p := exec.Command(os.Args[0])
			p.Env = append(os.Environ(), holderVariable+"=1")
			p.Stdout, p.Stderr = os.Stderr, os.Stderr
			if err := h.Start(p); err != nil {
				t.Fatal(err)
			}
			defer func() { p.Process.Kill(); p.Wait() }()
			eventually(t, "the process holds the address", func() bool { return h.holds() == len(vips) })
			p.Process.Signal(c.sig)
			begin := time.Now()
			eventually(t, "the kernel takes the address away", func() bool { return h.holds() == 0 })
			if d := time.Since(begin); d > 4*time.Second { // 2.1 s on an idle machine
				t.Errorf("it took %v", d)
			}
		})
	}
}

func TestStaleAddressIsRemovedAtStart(t *testing.T) {
	h := hosts(t, 1)[0]
	for _, stale := range []string{"10.77.2.100/24", "fd77:2::100/64"} {
		if _, err := h.Run("ip", "addr", "add", stale, "dev", "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	h.open()
	if n := h.holds(); n != 0 {
		t.Errorf("%d stale addresses are still there", n)
	}
}

func TestForeignClaim(t *testing.T) {
	all := hosts(t, 2)
	a := all[0].open()
	if err := a.Hold(BootTime() + time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, p := range vips {
		// Without nodad the kernel itself would refuse the IPv6 one.
		if _, err := all[1].Run("sh", "-c", "ip addr add "+p.String()+" dev eth0 nodad || ip addr add "+p.String()+" dev eth0"); err != nil {
			t.Fatal(err)
		}
	}
	want := map[netip.Addr]bool{vips[0].Addr(): true, vips[1].Addr(): true}
	timeout := time.After(30 * time.Second)
	for len(want) > 0 {
		select {
		case e := <-a.Events():
			if !e.Foreign || e.MAC.String() == a.dev.mac.String() {
				t.Fatalf("told %+v", e)
			}
			delete(want, e.Addr)
		case <-timeout:
			t.Fatalf("no foreign claim was seen for %v", want)
		}
	}
}

// An address that somebody takes away by hand is back with the next renewal.
func TestRemovedByHand(t *testing.T) {
	h := hosts(t, 1)[0]
	a := h.open()
	if err := a.Hold(BootTime() + time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Run("ip", "addr", "del", vips[0].String(), "dev", "eth0"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is back", func() bool { return h.holds() == len(vips) })
}
