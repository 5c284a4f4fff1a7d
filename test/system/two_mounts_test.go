package system

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/varvefs/varve/conf"
)

// second mounts the cluster once more, until unmount is called or the test ends.
func (c *cluster) second(args ...string) string {
	c.t.Helper()
	dir := filepath.Join(c.t.TempDir(), "second")
	if err := os.Mkdir(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	c.varve(append([]string{"mount", dir}, args...)...)
	c.t.Cleanup(func() { c.unmount(dir) })
	return dir
}

// unmount takes dir from the tree, if it is still there, and waits for its process: umount(2)
// does not, and what a killed program left unwritten needs a cluster that is still up.
func (c *cluster) unmount(dir string) {
	c.t.Helper()
	if err := syscall.Unmount(dir, 0); err != nil && err != syscall.EINVAL {
		c.t.Errorf("unmount %s: %v", dir, err)
	}
	c.until(time.Minute, "the process of "+dir+" ends", func() bool { return c.mountOf(dir) == 0 })
}

// mountOf is the process that serves dir, or 0.
func (c *cluster) mountOf(dir string) int {
	for _, pid := range c.processes("mount") {
		if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); slices.Contains(strings.Split(string(b), "\x00"), dir) {
			return pid
		}
	}
	return 0
}

// TestTwoMounts: what is done on one mount is seen on the other at once.
func TestTwoMounts(t *testing.T) {
	needTool(t, "flock")
	c := start(t)
	other := c.second()
	c.sh("O=" + other + `
		ls $M $O; test ! -e $O/a
		for i in $(seq 50); do echo $i > $M/a; grep -qx $i $O/a; echo $i.$i >> $O/a; test "$(tail -1 $M/a)" = $i.$i; done
		mv $M/a $O/b; test ! -e $M/a; test -e $M/b; test ! -e $O/a
		rm $O/b; test ! -e $M/b
		mkdir $M/d; touch $O/d/x; test "$(ls $M/d)" = x; chmod 600 $M/d/x; test "$(stat -c %a $O/d/x)" = 600
		ln $M/d/x $M/d/y; test "$(stat -c %h $O/d/x)" = 2
		exec 9> $M/lock; flock -n 9; ! flock -n $O/lock true; exec 9>&-; flock -n $O/lock true`)
	c.sh("O=" + other + `
		for m in $M $M $M $M $O $O $O $O; do n=$((${n:-0}+1)); (for i in $(seq 200); do echo "$n $i" >> $m/log; done) & done; wait
		test $(wc -l < $M/log) = 1600; test $(sort -u $O/log | wc -l) = 1600`)
}

// TestMountHelper: called as mount(8) calls mount.TYPE, the binary mounts, and the
// mount has the name that the line of fstab has.
func TestMountHelper(t *testing.T) {
	c := start(t)
	f, err := conf.Load(filepath.Join(c.dir, "client.toml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.sh("mkdir $M/sub; echo here > $M/sub/a")
	dir, source := filepath.Join(t.TempDir(), "dir"), f.Cluster.Masters[0]+":/sub"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	helper := exec.Command(program)
	helper.Args = []string{"/sbin/mount.varve", source, dir, "-v", "-o", "rw,noexec,_netdev", "--config", filepath.Join(c.dir, "client.toml")}
	if out, err := helper.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { c.unmount(dir) })
	c.sh("D=" + dir + " S=" + source + `
		grep -qx here $D/a
		grep -q "^$S $D fuse.varve rw,nosuid,nodev,noexec" /proc/mounts`)
}
