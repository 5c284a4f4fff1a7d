// Mutate shows that the tests would notice if the segment store broke, or what failover
// rests on. It copies the module to a temporary directory, breaks one thing there at a
// time, and runs the tests that should notice: they must fail. "make mutate" runs it; it
// takes some minutes.
//
//	go run ./test/mutate [-only NAME] [-list]
//
// The names of mutations about failover begin with "ha-".
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func main() {
	only := flag.String("only", "", "part of the names of the mutations to try")
	list := flag.Bool("list", false, "print the mutations and check that each can be applied")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, *only, *list)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, list bool) error {
	if _, err := os.Stat("go.mod"); err != nil {
		return fmt.Errorf("run it at the root of the module: %w", err)
	}
	if list {
		return check(".", func(m *mutation) { fmt.Printf("%-28s %s: %s\n", m.name, m.file, m.why) })
	}
	dir, err := os.MkdirTemp("", "varve-mutate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := copyTree(dir); err != nil {
		return err
	}
	if err := check(dir, func(*mutation) {}); err != nil {
		return err
	}
	var alive []string
	for _, m := range all() {
		if !strings.Contains(m.name, only) {
			continue
		}
		began := time.Now()
		by, err := m.try(ctx, dir)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if by == "" {
			alive = append(alive, m.name)
			by = "NOTHING"
		}
		fmt.Printf("%-28s caught by %s (%v)\n", m.name, by, time.Since(began).Round(100*time.Millisecond))
	}
	if len(alive) > 0 {
		return fmt.Errorf("no test notices: %s", strings.Join(alive, ", "))
	}
	return nil
}

// check makes sure that every mutation has its one place in the tree at root.
func check(root string, each func(*mutation)) error {
	var errs []error
	for _, m := range all() {
		each(&m.mutation)
		_, err := m.mutant(root)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// mutant is the contents of the mutation's file with the change made.
func (m *mutation) mutant(root string) ([]byte, error) {
	src, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(src, []byte(m.old)); n != 1 {
		return nil, fmt.Errorf("%s: %q is %d times in %s, not once: the code has changed, change the mutation with it", m.name, m.old, n, m.file)
	}
	return bytes.Replace(src, []byte(m.old), []byte(m.with), 1), nil
}

var failure = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)|^((?:panic|fatal error|SIG\w+): [^\n]*)`)

// try breaks the copy at dir, runs the tests, quick ones first, and mends it. It returns
// the first test that failed, "" if none did.
func (m *aimed) try(ctx context.Context, dir string) (by string, err error) {
	path := filepath.Join(dir, m.file)
	good, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	bad, err := m.mutant(dir)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.WriteFile(path, good, 0o600)) }()
	if out, err := exec.CommandContext(ctx, "go", "-C", dir, "build", "./"+filepath.Dir(m.file)).CombinedOutput(); err != nil {
		return "", fmt.Errorf("it does not compile:\n%s", out)
	}
	for _, args := range m.tests {
		out, err := test(ctx, dir, args)
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if err == nil {
			continue
		}
		hit := failure.FindSubmatch(out)
		if hit == nil && bytes.Contains(out, []byte("[build failed]")) {
			return "", fmt.Errorf("the tests do not run:\n%s", out)
		}
		if hit == nil { // it died in its own way
			line, _, _ := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
			return string(line), nil
		}
		return string(hit[1]) + string(hit[2]), nil
	}
	return "", nil
}

// storeTests are the tests of package segment, quick ones first.
var storeTests = [][]string{
	{"./segment", "-short", "-run", "Test(Cleaner|Cut|FrameE|First|Fr|Fo|Lost|Pins|Scrub|Se|Torn|Wit|Wri)"},
	{"./segment", "-short"},
	{"./segment"},
}

// test runs go test: a package and further arguments.
func test(ctx context.Context, dir string, args []string) ([]byte, error) {
	all := append([]string{"test", "-count=1", "-failfast", "-timeout=10m", "-vet=off"}, args[1:]...)
	c := exec.CommandContext(ctx, "go", append(all, args[0])...)
	c.Dir = dir
	c.Env = append(os.Environ(), "VARVE_SIM_FROM=1", "VARVE_SIM_TO=400")
	return c.CombinedOutput()
}

// copyTree copies the Go files, module files and test data below the current directory.
func copyTree(to string) error {
	return filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); path != "." && strings.HasPrefix(n, ".") || n == "bin" {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, path), 0o700)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, path), b, 0o600)
	})
}
