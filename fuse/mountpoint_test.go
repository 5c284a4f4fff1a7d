package fuse

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckMountpoint(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	full := filepath.Join(dir, "full")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(full, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	f := func(path string, o Options, want ...string) {
		t.Helper()
		err := CheckMountpoint(path, o)
		if len(want) == 0 {
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
			return
		}
		if err == nil {
			t.Errorf("%s is accepted", path)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: error %q does not say %q", path, err, w)
			}
		}
	}
	f("", Options{}, "no mount point")
	f(filepath.Join(dir, "none"), Options{}, "does not exist", "mkdir -p")
	f(file, Options{}, "not a directory")
	f(full, Options{}, "not empty", "-o nonempty")
	f(full, Options{NonEmpty: true})
	f(filepath.Join(full, "sub"), Options{})
	f("/proc", Options{}, "busy", "umount /proc")
}

func TestCheckMountpointFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	got, err := checkMountPoint(link, false)
	if want, _ := filepath.EvalSymlinks(target); err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func TestParseMountInfo(t *testing.T) {
	m, ok := parseMountInfo(`36 35 0:42 / /mnt/with\040blank rw,noatime master:1 shared:3 - fuse.varve varve#h:9421 rw,user_id=0`)
	want := mountInfo{minor: 42, point: "/mnt/with blank", fsType: "fuse.varve", source: "varve#h:9421"}
	if !ok || m != want {
		t.Errorf("parsed %+v, %v; want %+v", m, ok, want)
	}
	for _, line := range []string{"", "a b c", "1 2 3 / / rw - ext4", "1 2 a:b / / rw - ext4 /dev/x rw"} {
		if m, ok := parseMountInfo(line); ok {
			t.Errorf("%q is parsed as %+v", line, m)
		}
	}
}

func FuzzParseMountInfo(f *testing.F) {
	f.Add(`22 27 0:21 / /proc rw,relatime - proc proc rw`)
	f.Add(`36 35 98:0 /mnt1 /mnt\0402\ rw,noatime master:1 - ext3 /dev/root rw,errors=continue`)
	f.Fuzz(func(t *testing.T, line string) { parseMountInfo(line) })
}

func TestIsVarve(t *testing.T) {
	for _, path := range []string{"/", "/proc/self", t.TempDir()} {
		if is, err := IsVarve(path); err != nil || is {
			t.Errorf("%s is on a varve mount: %v, %v", path, is, err)
		}
	}
}

func TestCleanStaleLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	if err := CleanStale(dir); err != nil {
		t.Error(err)
	}
	if err := CleanStale(filepath.Join(dir, "none")); err != nil {
		t.Error(err)
	}
	if err := CleanStale("/proc"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Error(err)
	}
}
