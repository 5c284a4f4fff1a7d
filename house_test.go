// Package varve is only the root of the module: its tests hold the rules of the
// house. The table of rooms below is the architecture; a package that is not in
// it, or an import that it does not allow, fails.
package varve

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/varvefs/varve/"

// The size ratchet: no file and no function may be longer, unless listed.
const (
	maxFileLines = 800
	maxFuncLines = 80
)

// rooms maps a package to what it may import of ours. "x/..." is a room with
// all its inner rooms; a room may always import its own inner rooms.
var rooms = map[string][]string{
	"chunk": {}, "inode": {}, "status": {}, "codec": {}, "conf": {}, "buffer": {}, "owner": {},
	"wire":             {"chunk", "inode", "status", "codec"},
	"engine":           {"buffer"},
	"link":             {"chunk", "status", "wire", "buffer"},
	"vip":              {},
	"elect":            {},
	"elect/runner":     {"elect", "master/journal"},
	"gossip":           {},
	"guard":            {},
	"handover":         {},
	"segment":          {"chunk", "status", "codec", "engine/..."},
	"master/offheap":   {},
	"master/state":     {"chunk", "inode", "status", "codec", "master/offheap"},
	"master/journal":   {"chunk", "status", "codec", "engine/...", "owner"},
	"master/image":     {"chunk", "inode", "status", "codec", "owner", "master/state"},
	"master/placement": {"chunk", "status", "master/offheap"},
	"master/locks":     {"inode", "status"},
	"master/helm":      {"master/journal"},
	"master/voters":    {"status", "wire", "link", "master/journal"},
	"master/metalog":   {"wire", "master/image", "master/journal", "master/voters"},
	"master":           {"chunk", "inode", "status", "codec", "wire", "link", "owner", "master/..."},
	"chunkd":           {"chunk", "inode", "status", "wire", "link", "engine/...", "segment", "handover"},
	"client":           {"chunk", "inode", "status", "codec", "wire", "link", "buffer", "engine", "handover"},
	"admin":            {"chunk", "inode", "status", "wire", "link"},
	"fuse":             {"buffer", "chunk", "inode", "status", "wire", "client"},
	"web":              {"status", "wire", "admin"},
	"cmd/varve":        {"..."},
	"perf":             {"..."},
	"test":             {"..."},
}

// longFiles and longFuncs are the exceptions to the ratchet, each with its reason.
var (
	longFiles = map[string]string{}
	longFuncs = map[string]string{}
)

// impure are the exceptions to TestPure, each with its reason.
var impure = map[string]string{
	"master/state/pages.go": "sync/atomic: a frozen view is released by the goroutine that saved it",
}

// room finds the table's entry for a package: itself or the nearest house around it.
func room(pkg string) (string, bool) {
	for p := pkg; p != "."; p = filepath.Dir(p) {
		if _, ok := rooms[p]; ok {
			return p, true
		}
	}
	return "", false
}

func allowed(from, to string) bool {
	home, _ := room(from)
	list := append(slices.Clone(rooms[home]), home+"/...")
	if strings.HasSuffix(from, "_test") {
		return true
	}
	for _, a := range list {
		base, tree := strings.CutSuffix(a, "...")
		if to == a || to == strings.TrimSuffix(base, "/") && tree || tree && strings.HasPrefix(to, base) {
			return true
		}
	}
	return false
}

type source struct {
	path string // below the root
	pkg  string // directory below the root
	file *ast.File
	fset *token.FileSet
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); path != "." && (strings.HasPrefix(n, ".") || n == "testdata" || n == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, source{path, filepath.ToSlash(filepath.Dir(path)), f, fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestImports(t *testing.T) {
	for _, s := range sources(t) {
		if s.pkg == "." {
			continue
		}
		if _, ok := room(s.pkg); !ok {
			t.Errorf("%s: package %s is not in the table of rooms", s.path, s.pkg)
			continue
		}
		if strings.HasSuffix(s.path, "_test.go") {
			continue // a test may visit any room
		}
		for _, spec := range s.file.Imports {
			to, _ := strconv.Unquote(spec.Path.Value)
			if to, ours := strings.CutPrefix(to, module); ours && !allowed(s.pkg, to) {
				t.Errorf("%s: %s may not import %s", s.path, s.pkg, to)
			}
		}
	}
}

// TestPure holds the clock, the disk and the network out of the pure cores.
func TestPure(t *testing.T) {
	banned := []string{"time", "os", "net", "sync", "sync/atomic", "math/rand", "math/rand/v2", "log/slog"}
	for _, s := range sources(t) {
		if s.pkg != "master/state" && s.pkg != "master/placement" && s.pkg != "master/helm" && s.pkg != "elect" || strings.HasSuffix(s.path, "_test.go") {
			continue
		}
		for _, spec := range s.file.Imports {
			to, _ := strconv.Unquote(spec.Path.Value)
			if slices.Contains(banned, to) && !strings.HasPrefix(impure[s.path], to+":") {
				t.Errorf("%s: a pure core may not import %s", s.path, to)
			}
		}
	}
}

func TestPackageComments(t *testing.T) {
	comments := map[string]int{}
	for _, s := range sources(t) {
		if s.pkg == "." || strings.HasSuffix(s.path, "_test.go") {
			continue
		}
		n := 0
		if s.file.Doc != nil && (strings.HasPrefix(s.file.Doc.Text(), "Package ") || s.file.Name.Name == "main") {
			n = 1
		}
		comments[s.pkg] += n
	}
	for pkg, n := range comments {
		if n != 1 {
			t.Errorf("package %s has %d package comments, want 1", pkg, n)
		}
	}
}

func TestSizeRatchet(t *testing.T) {
	for _, s := range sources(t) {
		if n := s.fset.File(s.file.Pos()).LineCount(); n > maxFileLines && longFiles[s.path] == "" {
			t.Errorf("%s has %d lines, the limit is %d", s.path, n, maxFileLines)
		}
		if strings.HasSuffix(s.path, "_test.go") {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1
			if name := s.path + ":" + f.Name.Name; n > maxFuncLines && longFuncs[name] == "" {
				t.Errorf("%s has %d lines, the limit is %d", name, n, maxFuncLines)
			}
		}
	}
}

// TestBannedWords keeps rooms without a name and work without an end out of the tree.
func TestBannedWords(t *testing.T) {
	var names []string
	for _, s := range sources(t) {
		names = append(names, filepath.Base(s.pkg))
		b, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"TO" + "DO", "FIX" + "ME", "X" + "XX"} {
			if strings.Contains(string(b), word) {
				t.Errorf("%s contains %s", s.path, word)
			}
		}
	}
	sort.Strings(names)
	for _, bad := range []string{"util", "utils", "common", "base", "types", "helpers", "misc"} {
		if slices.Contains(names, bad) {
			t.Errorf("a package may not be called %s", bad)
		}
	}
}
