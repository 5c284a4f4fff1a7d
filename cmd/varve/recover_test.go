package main

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/master"
	"github.com/varvefs/varve/master/image"
	"github.com/varvefs/varve/master/journal"
)

// stopped is the directory of a master that has run and stopped.
func stopped(t *testing.T, id uint64) string {
	t.Helper()
	dir := t.TempDir()
	m, err := master.Start(master.Config{
		Dir: dir, ID: id, Key: make([]byte, 32), Name: "m", ClientAddr: "127.0.0.1:0", ServerAddr: "127.0.0.1:0",
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err == nil {
		err = m.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func runCommand(c *cobra.Command, args ...string) (string, error) {
	var out bytes.Buffer
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(io.Discard)
	err := c.Execute()
	return out.String(), err
}

// Without --yes recover says what it would do and fails; nothing is changed. With, it
// keeps the number of the directory.
func TestRecoverSaysFirst(t *testing.T) {
	dir := stopped(t, 7)
	members := filepath.Join(dir, "log", "members")
	before, err := os.ReadFile(members)
	if err != nil {
		t.Fatal(err)
	}
	out, err := runCommand(recoverCommand(), "--dir", dir)
	if err == nil || !strings.Contains(out, "of voter 7") || !strings.Contains(out, "it would be that of a single master, number 7") {
		t.Errorf("%v\n%s", err, out)
	}
	if after, err := os.ReadFile(members); err != nil || !bytes.Equal(before, after) {
		t.Errorf("it has changed the membership: %v", err)
	}
	out, err = runCommand(recoverCommand(), "--dir", dir, "--yes", "--epoch", "70000")
	if err != nil || !strings.Contains(out, "single master, number 7") || !strings.Contains(out, "epoch 70001 follows") {
		t.Errorf("%v\n%s", err, out)
	}
	if n, err := master.Number(dir); n != 7 || err != nil {
		t.Errorf("number %d, %v", n, err)
	}
	if _, err := runCommand(recoverCommand(), "--dir", t.TempDir(), "--yes"); err == nil {
		t.Error("an empty directory was recovered")
	}
}

func TestRecoverText(t *testing.T) {
	r := &master.Recovery{Image: image.Meta{Index: 900, Term: 6}, Survivor: journal.Survivor{
		Number: 3, ID: 3, Last: 1003, LastTerm: 7, Committed: 1002, Term: 8, NewTerm: 1009,
		Members: journal.Members{List: []journal.Member{{ID: 1, Addr: "m1:9419"}, {ID: 2, Addr: "m2:9419"}, {ID: 3}, {ID: 5, Addr: "m5:9419", Learner: true}}},
	}}
	const want = `directory:  /d, of voter 3
voters:     1 at m1:9419; 2 at m2:9419; 3 (this one); 5 at m5:9419, which did not vote yet
last entry: index 1003 of epoch 7; index 1002 is the last that is known here to have been committed
last image: index 900 of epoch 6; the changelog has what came after it
would be kept: everything up to index 1003
would be lost: whatever voters 1 and 2 acknowledged behind it
epoch 1009 would follow 8: chunkservers obey it, and refuse the old masters
it would be that of a single master, number 3
`
	var b bytes.Buffer
	recoverText(&b, "/d", r, false)
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}

// inspect changelog takes a master's directory and the changelog's in it.
func TestInspectChangelog(t *testing.T) {
	dir := stopped(t, 1)
	var all []string
	for _, d := range []string{dir, filepath.Join(dir, "log")} {
		out, err := runCommand(inspectCommand(), "changelog", d)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if last := lines[len(lines)-1]; !strings.HasPrefix(last, "last entry: term 1, index ") {
			t.Errorf("the last line is %q", last)
		}
		all = append(all, out)
	}
	if all[0] != all[1] {
		t.Errorf("they differ:\n%s\n%s", all[0], all[1])
	}
}
