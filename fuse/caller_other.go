//go:build !amd64

package fuse

import "golang.org/x/sys/unix"

// legacyLookingCalls are those of lookingCalls whose name differs here.
var legacyLookingCalls = []int64{unix.SYS_FSTATAT}

// legacyOpen is open(2), which this architecture lacks.
const legacyOpen = -1
