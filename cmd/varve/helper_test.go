package main

import (
	"net"
	"path/filepath"
	"testing"
)

func TestHelperNames(t *testing.T) {
	for _, name := range []string{"mount.varve", "mount.mfsmount", "mount.fuse.mfsmount"} {
		if use := rootFor(name).Name(); use != name {
			t.Errorf("%s runs %s", name, use)
		}
	}
	for name, want := range map[string]string{"mfsmount": "mfsmount", "varve": "varve", "mount": "varve"} {
		if use := rootFor(name).Name(); use != want {
			t.Errorf("%s runs %s, not %s", name, use, want)
		}
	}
}

// The arguments in the order and with the flags with which mount(8) calls a helper.
func TestHelperFlags(t *testing.T) {
	c := rootFor("mount.varve")
	c.SetArgs([]string{"mfsmaster:9421:/", "/mnt/varve", "-sfnv", "-o", "rw,_netdev,noatime,x-systemd.automount", "-t", "fuse.varve"})
	if err := c.Execute(); err != nil {
		t.Error(err)
	}
	c = rootFor("mount.varve")
	c.SetArgs([]string{"mfsmaster:9421:/", "/mnt/varve", "-f", "-o", "rw,bogus"})
	if err := c.Execute(); err == nil {
		t.Error("an unknown option is not refused")
	}
}

func TestHelperArguments(t *testing.T) {
	for _, c := range []struct{ source, options, master, path, rest string }{
		{"mfsmaster:9421:/", "rw,_netdev", "mfsmaster:9421", "/", "fsname=mfsmaster:9421:/,rw,_netdev"},
		{"mfsmaster:", "", "mfsmaster:9421", "/", "fsname=mfsmaster:"},
		{"mfsmaster:/logs", "ro", "mfsmaster:9421", "/logs", "fsname=mfsmaster:/logs,ro"},
		{"[fd00::1]:9999:/logs", "ro", "[fd00::1]:9999", "/logs", "fsname=[fd00::1]:9999:/logs,ro"},
		{"mfsmount", "mfsmaster=m1,ro,mfssubfolder=/a", "m1:9421", "/a", "fsname=mfsmount,ro"},
	} {
		a := mountArgs{options: c.options}
		if err := a.readHelper([]string{c.source, "/mnt/varve"}); err != nil {
			t.Errorf("%s: %v", c.source, err)
			continue
		}
		if a.master != c.master || a.path != c.path || a.options != c.rest || a.dir != "/mnt/varve" {
			t.Errorf("%s -o %s: master %q, path %q, options %q", c.source, c.options, a.master, a.path, a.options)
		}
	}
	if err := new(mountArgs).readHelper([]string{"[:/", "/mnt/varve"}); err == nil {
		t.Error("a source without a host is not refused")
	}
}

func TestTellSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := tellSystemd(); err != nil {
		t.Error("without a service manager: ", err)
	}
	name := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	if err := tellSystemd(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := l.Read(b)
	if err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("said %q, %v", b[:n], err)
	}
}
