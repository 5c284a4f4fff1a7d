package fuse

import (
	"bytes"
	"os"
	"strconv"
)

// fate is what will become of a thread that waits for us.
type fate uint8

const (
	goesOn  fate = iota // as far as is known
	exiting             // it ends, of itself or killed, and is closing its files
	killed              // a fatal signal is pending: it never gets back to its program
)

const sigKill = 1 << (9 - 1) // SIGKILL in a mask of signals

// fateOf judges what /proc/TID/status says. A signal that will end a process is a pending SIGKILL
// of each of its threads, whichever signal it was, unless the program handles it or a core is
// to be dumped: that is what the kernel itself asks before it gives up a wait
// (fatal_signal_pending). A thread that ends does not show it any more; it has given up its
// memory before it closes its files (do_exit in kernel/exit.c). A thread of the kernel has none
// either: what it closes, like the file of a loop device, is not waited for longer than that of one that ends.
func fateOf(status []byte) fate {
	_, pending, found := bytes.Cut(status, []byte("\nSigPnd:\t"))
	if !found {
		return goesOn
	}
	pending, _, _ = bytes.Cut(pending, []byte("\n"))
	if mask, _ := strconv.ParseUint(string(pending), 16, 64); mask&sigKill != 0 {
		return killed
	}
	if !bytes.Contains(status, []byte("\nVmSize:")) {
		return exiting
	}
	return goesOn
}

// fateOfThread asks the kernel; of a thread that cannot be seen nothing is known. Unlike
// /proc/TID/stat, this can be read while the thread closes files in execve(2), waiting for us.
func fateOfThread(thread uint32) fate {
	status, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(thread), 10) + "/status")
	if err != nil {
		return goesOn
	}
	return fateOf(status)
}
