package ha

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/varvefs/varve/test/plan"
)

// What is done to the disks of voters. Each has one of its own, a small file
// system in a file (plan.Options.Disk).

// masterDir is where a master keeps its changelog.
const masterDir = "/var/lib/varve/master"

// patience is how long a voter may take to do what a fault asks of it.
const patience = time.Minute

// replaced waits until another host than the given one leads.
func (n *nemesis) replaced(host string) error {
	return n.Await(patience, "another master than "+host+" leads", func() bool { return n.elsewhere(host) })
}

// elsewhere says whether another master than host has the address.
func (n *nemesis) elsewhere(host string) bool {
	now := n.watch.holders()
	return now != host && (now == "master1" || now == "master2")
}

// freeze makes a master's disk hang: writes and syncs wait until it thaws.
func (n *nemesis) freeze(host string) error {
	h := n.Hosts[host]
	if _, err := h.Run("fsfreeze", "--freeze", masterDir); err != nil {
		return err
	}
	err := n.replaced(host)
	_, thaw := h.Run("fsfreeze", "--unfreeze", masterDir)
	return errors.Join(err, thaw)
}

// fill takes all room of a master's disk until it no longer leads. Its journal has the
// rest of a file and another one in reserve, up to 8,000 frames of 4 KiB, which the load
// has to fill first: on a starved machine that takes more than a minute.
func (n *nemesis) fill(host string) error {
	h := n.Hosts[host]
	const ballast = masterDir + "/ballast"
	if _, err := h.Run("sh", "-c", "fallocate -l $(df --output=avail -B1 "+masterDir+" | tail -1) "+ballast+"; dd if=/dev/zero of="+ballast+" bs=4k oflag=append conv=notrunc status=none || true"); err != nil {
		return err
	}
	err := n.Await(5*patience, "another master than "+host+" leads", func() bool { return n.elsewhere(host) })
	return errors.Join(err, os.Remove(h.Root()+ballast))
}

// stop kills a master and its supervisor.
func (n *nemesis) stop(host string) error {
	u := n.master(host)
	child := u.Child()
	u.Signal(syscall.SIGKILL)
	if child != 0 {
		syscall.Kill(child, syscall.SIGKILL)
	}
	return u.Wait(patience)
}

// cutTail stops a standby and takes the last pages off its changelog, as a disk
// that had not kept what it was told to sync.
func (n *nemesis) cutTail(host string) error {
	if err := n.stop(host); err != nil {
		return err
	}
	files, _ := filepath.Glob(n.Hosts[host].Root() + masterDir + "/log/*.wal")
	const page, most = 4096, 32
	for i := len(files) - 1; i >= 0; i-- { // the newest may be empty
		b, err := os.ReadFile(files[i])
		if err != nil {
			return err
		}
		end := 0
		for off := 0; off+page <= len(b) && !bytes.Equal(b[off:off+page], make([]byte, page)); off += page {
			end = off + page
		}
		if end <= (most+1)*page {
			continue
		}
		f, err := os.OpenFile(files[i], os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(make([]byte, most*page), int64(end-most*page))
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
		return n.StartUnit(host, "varve-master")
	}
	return fmt.Errorf("no file of the changelog of %s has %d frames", host, most)
}

// wipe empties a standby's directory, sees that it is not taken for the voter
// that it was, adds it anew as the documents say, and has it lead.
func (n *nemesis) wipe(active, host string) error {
	if err := n.stop(host); err != nil {
		return err
	}
	ignored := n.count("a voter has lost its log")
	if _, err := n.Hosts[host].Run("sh", "-c", "rm -rf "+masterDir+"/*"); err != nil {
		return err
	}
	if err := n.StartUnit(host, "varve-master"); err != nil {
		return err
	}
	if err := n.Await(patience, "the others see that a voter has lost its log", func() bool { return n.count("a voter has lost its log") > ignored }); err != nil {
		return err
	}
	if err := n.stop(host); err != nil {
		return err
	}
	old, err := n.number(host)
	if err != nil {
		return err
	}
	n.newest = max(n.newest, 3) + 1
	addr := host + ":9419"
	if err := n.Rewrite(fmt.Sprintf("%d=%s", old, addr), fmt.Sprintf("%d=%s", n.newest, addr)); err != nil {
		return err
	}
	if _, err := n.Varve("client", "master", "remove", fmt.Sprint(old)); err != nil {
		return err
	}
	if _, err := n.Hosts[host].Run("sh", "-c", "rm -rf "+masterDir+"/*"); err != nil {
		return err
	}
	if err := n.StartUnit(host, "varve-master"); err != nil {
		return err
	}
	if err := n.Await(patience, "the voter is added", func() bool {
		_, err = n.Varve("client", "master", "add", fmt.Sprint(n.newest), addr)
		return err == nil || strings.Contains(err.Error(), "exists")
	}); err != nil {
		return err
	}
	// A leader that has seen all this hands over to the new one like to any other.
	var errs error
	for range 3 { // on a starved machine the new one may give it back
		_, order := n.Varve("client", "master", "handover")
		err := n.Await(patience/4, "the new voter leads", func() bool { return n.elsewhere(active) })
		if err == nil {
			return nil
		}
		errs = errors.Join(errs, order, err)
	}
	return errs
}

// voterStatus is what 'varve status' says of a voter.
type voterStatus struct {
	ID    uint64
	Role  string
	Raft  string
	Down  bool
	Lag   uint64
	Epoch uint64
}

func (n *nemesis) voters() ([]voterStatus, error) {
	out, err := n.Varve("client", "status", "--json")
	if err != nil {
		return nil, err
	}
	var st struct{ Masters []voterStatus }
	return st.Masters, json.Unmarshal([]byte(out), &st)
}

// number is a host's among the voters.
func (n *nemesis) number(host string) (uint64, error) {
	list, err := n.voters()
	for _, v := range list {
		if strings.HasPrefix(v.Raft, host+":") {
			return v.ID, nil
		}
	}
	return 0, fmt.Errorf("no voter is on %s: %+v, %w", host, list, err)
}

// epoch is the one in which a master leads.
func (n *nemesis) epoch() (uint64, error) {
	list, err := n.voters()
	for _, v := range list {
		if v.Role == "leader" {
			return v.Epoch, nil
		}
	}
	return 0, fmt.Errorf("nobody leads: %+v, %w", list, err)
}

// count counts the lines of all logs that have text.
func (n *nemesis) count(text string) (lines int) {
	logs, _ := filepath.Glob(filepath.Join(n.dir, "*.log"))
	for _, name := range logs {
		b, _ := os.ReadFile(name)
		lines += bytes.Count(b, []byte(text))
	}
	return lines
}

// helper runs this binary on a host as what the variable makes of it.
func (n *nemesis) helper(host, variable string, order any) error {
	text, err := json.Marshal(order)
	if err != nil {
		return err
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), variable+"="+string(text))
	var said strings.Builder
	c.Stderr = &said
	if err := n.Hosts[host].Start(c); err != nil {
		return err
	}
	if err := c.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, said.String())
	}
	return nil
}

// disks says why voters cannot have disks of their own; empty: they can.
func disks() string {
	for _, p := range []string{"fsfreeze", "mkfs.ext4", "fallocate"} {
		if _, err := exec.LookPath(p); err != nil {
			return p + " is not installed"
		}
	}
	if err := plan.NeedsDisks(); err != nil {
		return err.Error()
	}
	return ""
}
