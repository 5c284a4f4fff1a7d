package fuse

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lookingCalls are the system calls that follow names and never hold the lock
// of a directory exclusively while they ask for its attributes, on every
// architecture; see also legacyLookingCalls.
var lookingCalls = []int64{
	unix.SYS_STATX, unix.SYS_FSTAT, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_READLINKAT,
	unix.SYS_GETXATTR, unix.SYS_LGETXATTR, unix.SYS_LISTXATTR, unix.SYS_LLISTXATTR,
	unix.SYS_CHDIR, unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_STATFS,
}

// onlyLooks says whether the thread with this number, which waits for us, is
// surely in a system call that changes no directory. When the kernel does not
// tell, it says no.
func onlyLooks(thread uint32) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", thread))
	return err == nil && looks(string(text))
}

// looks judges a line of /proc/PID/syscall: the number of the call, its
// arguments in hexadecimal, and two registers.
func looks(line string) bool {
	words := strings.Fields(line)
	if len(words) < 7 {
		return false // "running", or not in a system call
	}
	nr, err := strconv.ParseInt(words[0], 10, 64)
	if err != nil {
		return false
	}
	flags := "" // of an open
	switch {
	case nr == unix.SYS_OPENAT:
		flags = words[3]
	case nr == legacyOpen:
		flags = words[2]
	default:
		return slices.Contains(lookingCalls, nr) || slices.Contains(legacyLookingCalls, nr)
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(flags, "0x"), 16, 64)
	return err == nil && n&unix.O_CREAT == 0
}
