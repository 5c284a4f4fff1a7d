package fuse

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Options is what `-o` of a mount command or fstab can say.
type Options struct {
	ReadOnly   bool
	NonEmpty   bool // mount over a directory that has entries or is mounted on
	AllowOther bool // users other than the mounting one may enter
	Suid       bool // honour suid and sgid bits
	Dev        bool // honour device files
	NoExec     bool
	Sync       bool // every write is durable when it returns
	DirSync    bool
	FSName     string // first column of df and /etc/mtab; empty: chosen by Mount
	Debug      bool   // log every request
	NoShort    bool   // read from chunkservers of this host over the network, too

	ReadAheadKB   int // of the kernel, KiB
	MaxBackground int // requests of read-ahead and asynchronous I/O in work
	SpinUS        int // how long to wait awake for the kernel's next request, us

	Ignored []string // accepted for the sake of old fstab lines, without effect
}

// Bounds and defaults of the numbers.
const (
	defaultReadAheadKB   = 8192
	defaultMaxBackground = 256
	maxBackground        = 65535
	defaultSpinUS        = 50
	maxSpinUS            = 10000
)

// DefaultOptions are those of an empty option string. As with other network
// file systems, suid bits and device files count only when asked for; all
// users may enter when root mounts.
func DefaultOptions() Options {
	return Options{
		AllowOther:    os.Geteuid() == 0,
		ReadAheadKB:   defaultReadAheadKB,
		MaxBackground: defaultMaxBackground,
		SpinUS:        defaultSpinUS,
	}
}

// option is one word that -o knows.
type option struct {
	name  string
	value string // what must follow "=", empty for a bare word
	help  string
	set   func(o *Options, value string) error
}

// flag makes an option without a value.
func flag(name, help string, set func(o *Options)) option {
	return option{name: name, help: help, set: func(o *Options, _ string) error { set(o); return nil }}
}

// text makes an option with a string.
func text(name, value, help string, field func(o *Options) *string) option {
	return option{name: name, value: value, help: help, set: func(o *Options, v string) error {
		if v == "" {
			return fmt.Errorf("needs a value: %s=%s", name, value)
		}
		*field(o) = v
		return nil
	}}
}

// number makes an option with an integer between low and high.
func number(name, value, help string, low, high int, field func(o *Options) *int) option {
	return option{name: name, value: value, help: help, set: func(o *Options, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < low || n > high {
			return fmt.Errorf("is %q, it must be a number from %d to %d", v, low, high)
		}
		*field(o) = n
		return nil
	}}
}

var knownOptions = []option{
	flag("ro", "read-only", func(o *Options) { o.ReadOnly = true }),
	flag("rw", "read and write (default)", func(o *Options) { o.ReadOnly = false }),
	flag("nonempty", "mount over a directory that is not empty", func(o *Options) { o.NonEmpty = true }),
	flag("allow_other", "all users may enter (default for root)", func(o *Options) { o.AllowOther = true }),
	flag("allow_root", "same as allow_other", func(o *Options) { o.AllowOther = true }),
	flag("noallow_other", "only the mounting user may enter", func(o *Options) { o.AllowOther = false }),
	flag("default_permissions", "the kernel checks permissions (always)", func(*Options) {}),
	flag("suid", "honour suid and sgid bits", func(o *Options) { o.Suid = true }),
	flag("nosuid", "do not honour suid and sgid bits (default)", func(o *Options) { o.Suid = false }),
	flag("dev", "honour device files", func(o *Options) { o.Dev = true }),
	flag("nodev", "do not honour device files (default)", func(o *Options) { o.Dev = false }),
	flag("exec", "programs may be run (default)", func(o *Options) { o.NoExec = false }),
	flag("noexec", "programs may not be run", func(o *Options) { o.NoExec = true }),
	flag("sync", "every write and every change of a name is durable when it returns", func(o *Options) { o.Sync = true }),
	flag("async", "writes are durable after fsync (default)", func(o *Options) { o.Sync = false }),
	flag("dirsync", "every change of a name is durable when it returns", func(o *Options) { o.DirSync = true }),
	flag("debug", "log every request of the kernel", func(o *Options) { o.Debug = true }),
	flag("noshortcircuit", "read from chunkservers of this host through a connection, not from their disks", func(o *Options) { o.NoShort = true }),
	text("fsname", "NAME", "first column of df", func(o *Options) *string { return &o.FSName }),
	number("readahead_kb", "KIB", "read-ahead of the kernel", 0, 1<<20, func(o *Options) *int { return &o.ReadAheadKB }),
	number("max_background", "N", "asynchronous requests in work", 1, maxBackground, func(o *Options) *int { return &o.MaxBackground }),
	number("spin_us", "US", "how long to wait awake for the next request, microseconds; 0: sleep at once", 0, maxSpinUS, func(o *Options) *int { return &o.SpinUS }),
}

// ignoredOptions are words of fstab and of mfsmount that ask for nothing here
// or for what is always so. A name that ends in * stands for all that begin
// with what precedes it.
var ignoredOptions = []string{
	"defaults", "auto", "noauto", "user", "nouser", "users", "nofail", "_netdev", "owner", "group",
	"comment=*", "x-*", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime",
	"strictatime", "nostrictatime", "lazytime", "nolazytime", "big_writes", "subtype=*", "max_read=*",
	"mfscachefiles", "mfscachemode=*", "mfsattrcacheto=*", "mfsxattrcacheto=*", "mfsentrycacheto=*",
	"mfsdirentrycacheto=*", "mfsnegentrycacheto=*", "mfsgroupscacheto=*", "mfsrlimitnofile=*", "mfsnice=*",
	"mfsmemlock", "mfslimitarenas=*", "mfsnostdmountoptions", "mfsreadaheadleng=*", "mfsreadaheadtrigger=*",
	"mfsioretries=*", "mfslogretry=*", "mfstimeout=*", "mfsdelayedinit", "mfsdonotrememberpassword",
	"mfswritecachesize=*", "mfsreadaheadsize=*", "mfssugidclearmode=*", "mfsmkdircopysgid=*", "mfsfsyncbeforeclose=*", "mfsfsyncmintime=*",
	"mfsnoxattrs", "mfsnoposixlocks", "mfsnobsdlocks", "mfsstatfscachemode=*",
}

// ParseOptions reads the comma-separated words behind -o on top of the
// defaults. Unknown words are an error that lists the known ones.
func ParseOptions(words string) (Options, error) {
	o := DefaultOptions()
	err := o.Apply(words)
	return o, err
}

// Apply reads more comma-separated words; later ones win.
func (o *Options) Apply(words string) error {
	for _, word := range strings.Split(words, ",") {
		if word = strings.TrimSpace(word); word == "" {
			continue
		}
		if err := o.applyOne(word); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) applyOne(word string) error {
	name, value, hasValue := strings.Cut(word, "=")
	for i := range knownOptions {
		k := &knownOptions[i]
		if k.name != name {
			continue
		}
		switch {
		case k.value == "" && hasValue:
			return fmt.Errorf("mount option %q takes no value", name)
		case k.value != "" && !hasValue:
			return fmt.Errorf("mount option %q needs a value: %s=%s", name, name, k.value)
		}
		if err := k.set(o, value); err != nil {
			return fmt.Errorf("mount option %q %w", name, err)
		}
		return nil
	}
	if isIgnored(word) {
		o.Ignored = append(o.Ignored, word)
		return nil
	}
	return fmt.Errorf("unknown mount option %q; the known ones are %s", name, strings.Join(knownNames(), ", "))
}

func isIgnored(word string) bool {
	for _, ign := range ignoredOptions {
		if prefix, ok := strings.CutSuffix(ign, "*"); ok {
			if strings.HasPrefix(word, prefix) {
				return true
			}
		} else if word == ign {
			return true
		}
	}
	return false
}

// knownNames are the options with an effect, in order of the alphabet.
func knownNames() []string {
	var names []string
	for _, k := range knownOptions {
		if k.value != "" {
			names = append(names, k.name+"="+k.value)
		} else {
			names = append(names, k.name)
		}
	}
	slices.Sort(names)
	return names
}

// OptionsHelp is one line for each option, for a command's help.
func OptionsHelp() string {
	var b strings.Builder
	for _, k := range knownOptions {
		name := k.name
		if k.value != "" {
			name += "=" + k.value
		}
		fmt.Fprintf(&b, "  %-24s %s\n", name, k.help)
	}
	return b.String()
}

// mooseWords are the options of mfsmount that say what to mount.
var mooseWords = []string{"mfsmaster", "mfsport", "mfssubfolder"}

// SplitMooseOptions takes mfsmaster=, mfsport= and mfssubfolder= out of an
// option string and returns them and the rest.
func SplitMooseOptions(words string) (moose map[string]string, rest string) {
	moose = make(map[string]string)
	var others []string
	for _, word := range strings.Split(words, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(word), "=")
		if ok && slices.Contains(mooseWords, name) {
			moose[name] = value
		} else {
			others = append(others, word)
		}
	}
	return moose, strings.Join(others, ",")
}

// mountFlags are the flags of mount(2).
func (o *Options) mountFlags() uintptr {
	var f uintptr
	for _, b := range []struct {
		on   bool
		flag uintptr
	}{
		{o.ReadOnly, unix.MS_RDONLY},
		{!o.Suid, unix.MS_NOSUID},
		{!o.Dev, unix.MS_NODEV},
		{o.NoExec, unix.MS_NOEXEC},
		{o.Sync, unix.MS_SYNCHRONOUS},
		{o.DirSync, unix.MS_DIRSYNC},
	} {
		if b.on {
			f |= b.flag
		}
	}
	return f
}

// helperWords are the same for fusermount3, which takes words.
func (o *Options) helperWords() []string {
	pick := func(on bool, yes, no string) string {
		if on {
			return yes
		}
		return no
	}
	words := []string{
		pick(o.ReadOnly, "ro", "rw"),
		pick(o.Suid, "suid", "nosuid"),
		pick(o.Dev, "dev", "nodev"),
		pick(o.NoExec, "noexec", "exec"),
	}
	if o.Sync {
		words = append(words, "sync")
	}
	if o.DirSync {
		words = append(words, "dirsync")
	}
	return words
}
