package lan

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestHostsAndFaults(t *testing.T) {
	if err := Needs("nft"); err != nil {
		t.Skip(err)
	}
	l, err := New("10.77.1.0/24")
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	a, err := l.Host("a", "10.77.1.1", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b, err := l.Host("b", "10.77.1.2", dir)
	if err != nil {
		t.Fatal(err)
	}
	reach := func(want bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; {
			// Nobody listens: a host that is there refuses, one that is not lets the time run out.
			out, err := a.Run("timeout", "0.5", "bash", "-c", "</dev/tcp/10.77.1.2/9")
			if strings.Contains(out, "refused") == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("reachable should be %v: %v\n%s", want, err, out)
			}
		}
	}
	reach(true)
	if err := l.SetFaults(Fault{From: a, To: b}); err != nil {
		t.Skip("no bridge rules here: ", err)
	}
	reach(false)
	if err := l.SetFaults(); err != nil {
		t.Fatal(err)
	}
	reach(true)

	if out, err := b.Run("sh", "-c", "hostname; echo 10.77.1.1 friend >> /etc/hosts; echo $$"); err != nil || !strings.HasPrefix(out, "b\n") {
		t.Fatal(out, err)
	}
	sleeper := exec.Command("sleep", "1000")
	if err := b.Start(sleeper); err != nil {
		t.Fatal(err)
	}
	b.PowerOff()
	if err := sleeper.Wait(); err == nil {
		t.Error("a process survived the power off")
	}
	reach(false)
	if err := b.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if out, err := b.Run("getent", "hosts", "friend"); err != nil || !strings.HasPrefix(out, "10.77.1.1") {
		t.Errorf("a file did not survive: %s %v", out, err)
	}
	reach(true)
}
