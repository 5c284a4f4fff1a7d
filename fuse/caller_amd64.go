package fuse

import "golang.org/x/sys/unix"

// legacyLookingCalls are those of lookingCalls that newer architectures lack.
var legacyLookingCalls = []int64{
	unix.SYS_NEWFSTATAT, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_ACCESS, unix.SYS_READLINK,
}

// legacyOpen is open(2).
const legacyOpen = unix.SYS_OPEN
