package ha

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/varvefs/varve/test/plan"
	"github.com/varvefs/varve/wire"
)

// clinic is a plan whose voters die for good.
type clinic struct {
	*plan.Plan
	t   *testing.T
	bin string
	mnt string // the client's mount, as this process sees it
}

const (
	loggerDir = "/var/lib/varve/metalogger"
)

func admit(t *testing.T) *clinic {
	t.Helper()
	p, _, bin := launch(t, 0)
	c := &clinic{Plan: p, t: t, bin: bin}
	var err error
	c.mnt, err = p.Mount("one")
	c.must(err)
	return c
}

func (c *clinic) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// sh runs a line of the documents on a host.
func (c *clinic) sh(host, line string) string {
	c.t.Helper()
	line = strings.ReplaceAll(line, "varve master", c.bin+" master")
	out, err := c.Hosts[host].Run("timeout", "30", "sh", "-c", line)
	if err != nil {
		c.t.Fatalf("%s: %s: %v\n%s", host, line, err, out)
	}
	return out
}

// kill ends voters without a word.
func (c *clinic) kill(hosts ...string) {
	c.t.Helper()
	for _, host := range hosts {
		u := c.Unit(host, unitOf(host))
		child := u.Child()
		u.Signal(syscall.SIGKILL)
		if child != 0 {
			syscall.Kill(child, syscall.SIGKILL)
		}
		c.must(u.Wait(patience))
	}
}

func unitOf(host string) string {
	if host == "metalogger" {
		return "varve-metalogger"
	}
	return "varve-master"
}

func (c *clinic) run(hosts ...string) {
	c.t.Helper()
	for _, host := range hosts {
		c.must(c.StartUnit(host, unitOf(host)))
	}
}

// configure writes cluster.voters on hosts.
func (c *clinic) configure(voters string, hosts ...string) {
	c.t.Helper()
	for _, host := range hosts {
		c.sh(host, fmt.Sprintf("sed -i 's/^voters = .*/voters = [%s]/' /etc/varve/varve.toml", voters))
	}
}

// status waits until the cluster's status is as it should be.
func (c *clinic) status(what string, ok func(*wire.Status) bool) {
	c.t.Helper()
	var out string
	err := c.Await(2*time.Minute, what, func() bool {
		var s wire.Status
		var err error
		out, err = c.Varve("client", "status", "--json")
		return err == nil && json.Unmarshal([]byte(out), &s) == nil && ok(&s)
	})
	if err != nil {
		c.t.Fatalf("%v\n%s", err, out)
	}
}

// whole says that these voters are there, one leads, and both chunkservers are up.
func whole(ids ...uint64) func(*wire.Status) bool {
	return func(s *wire.Status) bool {
		here, leads := map[uint64]bool{}, false
		for _, m := range s.Masters {
			here[m.ID] = !m.Down && m.Lag != nil && *m.Lag == 0 && m.Role != "unknown"
			leads = leads || m.Role == "leader"
		}
		up := 0
		for _, k := range s.Servers {
			if k.State == "up" {
				up++
			}
		}
		for _, id := range ids {
			leads = leads && here[id]
		}
		return leads && len(here) == len(ids) && up == 2
	}
}

// write makes a file that is on the disks, read looks for it.
func (c *clinic) write(name string) {
	c.t.Helper()
	f, err := os.Create(filepath.Join(c.mnt, name))
	c.must(err)
	_, err = f.WriteString(strings.Repeat(name, 10_000))
	c.must(err)
	c.must(f.Sync())
	c.must(f.Close())
}

func (c *clinic) read(names ...string) {
	c.t.Helper()
	for _, name := range names {
		out, err := c.Hosts["client"].Run("timeout", "60", "cat", "/mnt/one/"+name)
		if err != nil || out != strings.Repeat(name, 10_000) {
			c.t.Fatalf("%s: %v, %d bytes", name, err, len(out))
		}
	}
}

// TestOneVoterIsLeft follows docs/deployment.md: the membership has changed since the last
// image, all voters stop, one directory is left, and becomes three voters again. Then a
// backup is put back that is older than what the chunkservers have seen.
func TestOneVoterIsLeft(t *testing.T) {
	c := admit(t)
	c.status("all are there", whole(1, 2, 3))
	c.write("first")

	// The metalogger's directory is emptied and comes back under its old number: it says so once.
	c.kill("metalogger")
	c.sh("metalogger", "rm -r "+loggerDir)
	c.run("metalogger")
	text := func(host string) string {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(c.bin), host+"-"+unitOf(host)+".log"))
		c.must(err)
		return string(b)
	}
	c.must(c.Await(time.Minute, "the metalogger says what to do", func() bool { return strings.Contains(text("metalogger"), "varve master remove 3") }))
	at := text("metalogger")
	c.must(c.Await(time.Minute, "the others say so too", func() bool { return strings.Contains(text("master1"), "has lost its log") }))
	if more := strings.Count(text("metalogger"), "\n") - strings.Count(at, "\n"); more > 10 || strings.Contains(text("metalogger"), "unpromotable") {
		t.Errorf("%d more lines in the metalogger's log", more)
	}
	c.kill("metalogger")
	c.configure(`"1=master1:9419", "2=master2:9419", "4=metalogger:9419"`, "metalogger")
	c.sh("client", "varve master remove 3")
	c.sh("metalogger", "rm -r "+loggerDir)
	c.run("metalogger")
	c.sh("client", "varve master add 4 metalogger:9419")
	c.status("voter 4 is there", whole(1, 2, 4))
	c.write("second")

	// All stop. The masters' directories are lost.
	c.kill("master1", "master2", "metalogger")
	c.sh("master1", "rm -r "+masterDir)
	c.sh("master2", "rm -r "+masterDir)
	from, to := c.Hosts["metalogger"].Root()+loggerDir, c.Hosts["master1"].Root()+masterDir
	put := func() {
		t.Helper()
		os.RemoveAll(to)
		if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		c.sh("master1", "chown -R nobody: "+masterDir)
	}
	put()
	out, err := c.Hosts["master1"].Run(c.bin, "master", "recover", "--dir", masterDir)
	for _, want := range []string{"of voter 4", "4 at metalogger:9419 (this one)", "last image: index ", "voters 1 and 2 acknowledged", "number 4", "nothing was changed"} {
		if err == nil || !strings.Contains(out+err.Error(), want) {
			t.Errorf("without --yes recover does not say %q: %v\n%s", want, err, out)
		}
	}
	t.Log(c.sh("master1", "varve master recover --dir "+masterDir+" --epoch 5000 --yes"))
	c.configure("", "master1")
	c.run("master1")
	c.status("it goes on alone", whole(4))
	c.read("first", "second")
	c.write("third")

	// Three again, under new numbers.
	c.three(4, 5, 6)
	c.read("first", "second", "third")
	c.write("fourth")
	c.kill("master1")
	c.status("another one leads", func(s *wire.Status) bool {
		for _, m := range s.Masters {
			if m.ID == 5 && m.Role == "leader" {
				return true
			}
		}
		return false
	})
	c.read("fourth")

	// A backup is put back, which knows nothing of epoch 5000.
	c.kill("master2", "metalogger")
	from = c.Hosts["metalogger"].Root() + loggerDir + ".first"
	put()
	c.sh("master1", "varve master recover --dir "+masterDir+" --yes")
	c.configure("", "master1")
	c.run("master1")
	remedy := ""
	c.status("it says that it is older than what the chunkservers obey", func(s *wire.Status) bool {
		for _, p := range s.Problems {
			if _, text, ok := strings.Cut(p, "--epoch "); ok && strings.Contains(p, "2 chunkservers are refused") {
				fmt.Sscan(text, &remedy)
			}
		}
		return remedy != ""
	})
	c.kill("master1")
	c.sh("master1", "varve master recover --dir "+masterDir+" --yes --epoch "+remedy)
	c.run("master1")
	c.status("the chunkservers obey it", whole(4))
}

// three makes a cluster of three voters of the single master on master1.
func (c *clinic) three(one, two, three uint64) {
	c.t.Helper()
	c.configure(fmt.Sprintf(`"%d=master1:9419", "%d=master2:9419", "%d=metalogger:9419"`, one, two, three), "master1", "master2", "metalogger")
	c.kill("master1")
	c.sh("metalogger", fmt.Sprintf("mv %s %s.first", loggerDir, loggerDir))
	c.run("master1", "master2", "metalogger")
	c.status("it leads", func(s *wire.Status) bool {
		for _, m := range s.Masters {
			if m.ID == one && m.Role == "leader" {
				return true
			}
		}
		return false
	})
	c.sh("client", fmt.Sprintf("varve master add %d master2:9419", two))
	c.sh("client", fmt.Sprintf("varve master add %d metalogger:9419", three))
	c.status("three are there, and vote", func(s *wire.Status) bool {
		return whole(one, two, three)(s) && !strings.Contains(strings.Join(s.Problems, " "), "does not vote yet")
	})
}
