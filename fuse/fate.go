package fuse

import (
	"bytes"
	"fmt"
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

// Of proc_pid_stat(5), counted from 0 and the field behind the name on.
const (
	statFlags     = 9 - 3
	statPending   = 31 - 3
	statProcessor = 39 - 3
)

const (
	flagExiting = 0x4          // PF_EXITING
	sigKill     = 1 << (9 - 1) // SIGKILL
)

// fateOf judges a line of /proc/TID/stat. A signal that will end a process is a pending SIGKILL
// of each of its threads, whichever signal it was, unless the program handles it or a core is
// to be dumped: that is what the kernel itself asks before it gives up a wait
// (fatal_signal_pending). A thread that ends does not show it any more.
func fateOf(words [][]byte) fate {
	number := func(i int) uint64 {
		if i >= len(words) {
			return 0
		}
		n, err := strconv.ParseUint(string(words[i]), 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	switch {
	case number(statPending)&sigKill != 0:
		return killed
	case number(statFlags)&flagExiting != 0:
		return exiting
	}
	return goesOn
}

// fateOfThread asks the kernel; of a thread that cannot be seen nothing is known.
func fateOfThread(thread uint32) fate { return fateOf(threadStat(thread)) }

// threadStat reads /proc/TID/stat from behind the name on; nil: nothing is known.
func threadStat(thread uint32) [][]byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", thread))
	if err != nil {
		return nil
	}
	return bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
}
