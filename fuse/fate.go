package fuse

import (
	"bytes"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// fate is what will become of a thread that waits for us.
type fate uint8

const (
	goesOn  fate = iota // as far as is known
	exiting             // it ends, of itself or killed, and is closing its files
	killed              // a fatal signal is pending: it never gets back to its program
)

// Of proc_pid_stat(5).
const (
	statFlags     = 9
	statPending   = 31
	statProcessor = 39
)

const (
	flagExiting = 0x4          // PF_EXITING
	sigKill     = 1 << (9 - 1) // SIGKILL
)

// fateOf judges a line of /proc/TID/stat. A signal that will end a process is a pending SIGKILL
// of each of its threads, whichever signal it was, unless the program handles it or a core is
// to be dumped: that is what the kernel itself asks before it gives up a wait
// (fatal_signal_pending). A thread that ends does not show it any more.
func fateOf(line []byte) fate {
	if pending, _ := statField(line, statPending); pending&sigKill != 0 {
		return killed
	}
	if flags, _ := statField(line, statFlags); flags&flagExiting != 0 {
		return exiting
	}
	return goesOn
}

// statField is a number in a line of /proc/TID/stat, counted from 1, behind the name, which
// is the second and may hold anything.
func statField(line []byte, field int) (n uint64, ok bool) {
	var word []byte
	rest := bytes.TrimSpace(line[bytes.LastIndexByte(line, ')')+1:])
	for i := 3; i <= field; i++ {
		word, rest, _ = bytes.Cut(rest, []byte(" "))
	}
	n, err := strconv.ParseUint(string(word), 10, 64)
	return n, err == nil
}

// fateOfThread asks the kernel; of a thread that cannot be seen nothing is known.
func fateOfThread(thread uint32) fate {
	var b statLine
	return fateOf(b.read(thread))
}

// statLine is room for a line of /proc/TID/stat.
type statLine [1024]byte

// read reads the line of a thread; empty: nothing is known. It waits as long as the thread is
// in execve(2), where the kernel closes files and may itself be waiting for us.
func (b *statLine) read(thread uint32) []byte {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/stat", thread), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	n, err := unix.Read(fd, b[:])
	unix.Close(fd)
	if err != nil {
		return nil
	}
	return b[:n]
}
