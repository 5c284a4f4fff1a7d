package fuse

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseOptions(t *testing.T) {
	o, err := ParseOptions("ro,nonempty, suid,noexec,fsname=here,readahead_kb=128,max_background=7,noatime,x-systemd.automount,mfscachemode=NEVER")
	if err != nil {
		t.Fatal(err)
	}
	if !o.ReadOnly || !o.NonEmpty || !o.Suid || o.Dev || !o.NoExec || o.FSName != "here" || o.ReadAheadKB != 128 || o.MaxBackground != 7 {
		t.Errorf("parsed as %+v", o)
	}
	if got := strings.Join(o.Ignored, " "); got != "noatime x-systemd.automount mfscachemode=NEVER" {
		t.Errorf("ignored %q", got)
	}
	want := uintptr(unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOEXEC)
	if got := o.mountFlags(); got != want {
		t.Errorf("flags %#x, want %#x", got, want)
	}
	if err := o.Apply("rw,nosuid"); err != nil || o.ReadOnly || o.Suid {
		t.Errorf("later words do not win: %+v, %v", o, err)
	}
}

func TestParseOptionsDefaults(t *testing.T) {
	o, err := ParseOptions("")
	if err != nil {
		t.Fatal(err)
	}
	if o.ReadOnly || o.Suid || o.Dev || o.ReadAheadKB != defaultReadAheadKB || o.MaxBackground != defaultMaxBackground {
		t.Errorf("defaults are %+v", o)
	}
	if got, want := o.mountFlags(), uintptr(unix.MS_NOSUID|unix.MS_NODEV); got != want {
		t.Errorf("flags %#x, want %#x", got, want)
	}
}

func TestParseOptionsErrors(t *testing.T) {
	f := func(words string, want ...string) {
		t.Helper()
		_, err := ParseOptions(words)
		if err == nil {
			t.Errorf("%q is accepted", words)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q: error %q does not say %q", words, err, w)
			}
		}
	}
	f("ro,bogus", `"bogus"`, "known ones are", "allow_other", "fsname=NAME", "ro")
	f("ro=1", "takes no value")
	f("fsname", "needs a value")
	f("fsname=", "needs a value")
	f("max_background=0", "from 1 to 65535")
	f("max_background=many", "from 1 to 65535")
	f("mfsbogus", "known ones are")
}

func TestSplitMooseOptions(t *testing.T) {
	moose, rest := SplitMooseOptions("nonempty,mfsmaster=10.0.0.1,mfsport=9999,mfssubfolder=/logs,ro")
	if rest != "nonempty,ro" || moose["mfsmaster"] != "10.0.0.1" || moose["mfsport"] != "9999" || moose["mfssubfolder"] != "/logs" {
		t.Errorf("split into %v and %q", moose, rest)
	}
	if moose, rest := SplitMooseOptions("rw"); len(moose) != 0 || rest != "rw" {
		t.Errorf("split into %v and %q", moose, rest)
	}
}

func TestOptionsHelpNamesAll(t *testing.T) {
	help := OptionsHelp()
	for _, k := range knownOptions {
		if !strings.Contains(help, k.name) || k.help == "" {
			t.Errorf("no help for %q", k.name)
		}
	}
}

func FuzzParseOptions(f *testing.F) {
	for _, s := range []string{"", ",", "ro", "fsname=a=b", "=", "max_background=-1", "x-", "mfsmaster=,ro"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if o, err := ParseOptions(s); err == nil && (o.MaxBackground < 1 || o.MaxBackground > maxBackground) {
			t.Errorf("%q gives %+v", s, o)
		}
		SplitMooseOptions(s)
	})
}
