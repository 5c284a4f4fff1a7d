package system

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPrograms lets real programs live on one mount and compares what they leave.
func TestPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("programs on a mount take a minute; -short leaves them out")
	}
	c := start(t)
	for _, p := range []struct {
		name   string
		tools  []string
		script string
	}{
		{"tar and diff", []string{"tar", "diff"}, `
			mkdir $M/src && tar cf - -C $GOROOT/src cmd/go cmd/compile net os runtime | tar xf - -C $M/src
			for d in cmd/go cmd/compile net os runtime; do diff -r $GOROOT/src/$d $M/src/$d; done
			rm -rf $M/src && test -z "$(ls -A $M)"`},
		{"git", []string{"git"}, `
			mkdir $M/git && cd $M/git && git init -q . && cp -r $GOROOT/src/net $GOROOT/src/os .
			git -c user.name=v -c user.email=v@example.org add . && git -c user.name=v -c user.email=v@example.org commit -qm one
			git gc -q && git fsck --strict && git status --porcelain | wc -l | grep -qx 0
			cd / && rm -rf $M/git`},
		{"sqlite", []string{"sqlite3"}, `
			{ echo 'create table t(a integer primary key, b text);'
			  for i in $(seq 1 100); do echo 'begin;'; for j in $(seq 1 100); do echo "insert into t(b) values('row $i $j');"; done; echo 'commit;'; done
			  echo 'pragma integrity_check; select count(*) from t;'; } | sqlite3 $M/t.db | tail -2 | tr '\n' ' ' | grep -qx 'ok 10000 '
			rm $M/t.db*`},
		{"fio buffered", []string{"fio"}, `
			fio --name=a --filename=$M/f --size=64m --bs=4k-1m --rw=randwrite --verify=crc32c --verify_state_save=0 --do_verify=1 --verify_fatal=1 --output=/dev/null
			rm $M/f`},
		{"fio direct", []string{"fio"}, `
			fio --name=a --filename=$M/f --size=64m --bs=4k-256k --rw=randwrite --direct=1 --ioengine=libaio --iodepth=8 --verify=crc32c --verify_state_save=0 --do_verify=1 --verify_fatal=1 --output=/dev/null
			rm $M/f`},
		{"fio mmap", []string{"fio"}, `
			fio --name=a --filename=$M/f --size=32m --bs=4k --rw=randwrite --ioengine=mmap --verify=crc32c --verify_state_save=0 --do_verify=1 --verify_fatal=1 --output=/dev/null
			rm $M/f`},
		{"rsync", []string{"rsync"}, `
			rsync -a $GOROOT/src/net $M/ && rsync -acn --out-format='%n' $GOROOT/src/net $M/ | { ! grep -v '/$'; }
			rm -rf $M/net`},
		{"dbench", []string{"dbench"}, `dbench -D $M -t 5 4 > /dev/null && rm -rf $M/clients`},
	} {
		t.Run(p.name, func(t *testing.T) {
			needTool(t, p.tools...)
			outer := c.t
			c.t = t
			defer func() { c.t = outer }()
			c.sh("GOROOT=" + goroot(t) + "\n" + p.script)
		})
	}
	c.healed(time.Minute)
}

func goroot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Clean(strings.TrimSpace(string(out)))
}
