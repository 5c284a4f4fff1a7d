package status

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestDictionary holds the codes, their numbers and their errnos: they are on
// the wire, so a line may be added at the end, none changed.
func TestDictionary(t *testing.T) {
	var b strings.Builder
	for c := OK; c < codes; c++ {
		if c.Sentence() == "" || c.String() == "" {
			t.Errorf("code %d has no entry", c)
		}
		fmt.Fprintf(&b, "%d %s %d\n", c, c, int(c.Errno()))
	}
	const name = "testdata/codes.txt"
	if os.Getenv("REWRITE") != "" {
		if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the dictionary has changed (REWRITE=1 accepts it):\n%s", b.String())
	}
}

func TestErrors(t *testing.T) {
	err := fmt.Errorf("open: %w", Errorf(NotFound, "/a/b"))
	if !errors.Is(err, NotFound) || errors.Is(err, Exists) {
		t.Error("errors.Is does not find the code")
	}
	for _, x := range []struct {
		err    error
		code   Code
		detail string
	}{
		{nil, OK, ""},
		{NotFound, NotFound, ""},
		{Errorf(NoSpace, "disk %d", 3), NoSpace, "disk 3"},
		{err, NotFound, "open: /a/b: no such file or directory"},
		{syscall.EEXIST, Exists, "file exists"},
		{&os.PathError{Op: "open", Path: "x", Err: syscall.ENOTDIR}, NotDir, "open x: not a directory"},
		{errors.New("strange"), Unknown, "strange"},
	} {
		if CodeOf(x.err) != x.code || DetailOf(x.err) != x.detail {
			t.Errorf("%v: %v, %q; want %v, %q", x.err, CodeOf(x.err), DetailOf(x.err), x.code, x.detail)
		}
	}
	if Errno(err) != syscall.ENOENT || Code(60000).Errno() != syscall.EIO {
		t.Error("wrong errno")
	}
}
