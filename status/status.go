// Package status is the error dictionary: one code for each way a request can
// fail, its errno for the kernel and its sentence for people.
//
// Codes travel on the wire and never change their number. Everybody imports
// this package; it imports nobody of ours and owns no state.
package status

import (
	"errors"
	"fmt"
	"syscall"
)

// Code is one entry of the dictionary.
type Code uint16

// The codes. They are on the wire: append only.
const (
	OK Code = iota
	NotFound
	Exists
	NotDir
	IsDir
	NotEmpty
	Invalid
	NameTooLong
	NoAttr
	AttrTooLarge
	AttrBufferSmall
	NoSpace
	QuotaExceeded
	ReadOnly
	Perm
	Access
	Busy
	TooManyLinks
	CrossDevice
	TooBig
	Stale // inode or session that no longer exists
	Again
	Deadlock
	Interrupted
	IO
	Unsupported
	NoDevice
	// From here on, what only daemons say to each other.
	BadVersion   // protocol version differs
	BadKey       // authentication failed
	BadMessage   // undecodable or out of limits
	NotLeader    // this master does not lead; detail: address of the leader
	OldEpoch     // order or token of a deposed master
	StaleVersion // copy older than the version asked for
	NoChunk      // this server has no copy
	Corrupt      // stored bytes do not match their checksum
	NoServers    // not enough chunkservers for a new chunk
	DiskFailed
	Closed // connection or store is closed
	Timeout
	NoLease   // write without a valid lease
	BadToken  // access token missing, forged or expired
	NotWaited // a lock would block
	Unknown
	NotKnown // no such chunkserver or voter
	codes    // count
)

type entry struct {
	name     string
	errno    syscall.Errno
	sentence string
}

var dictionary = [codes]entry{
	OK:              {"ok", 0, "no error"},
	NotFound:        {"not-found", syscall.ENOENT, "no such file or directory"},
	Exists:          {"exists", syscall.EEXIST, "the name exists already"},
	NotDir:          {"not-dir", syscall.ENOTDIR, "not a directory"},
	IsDir:           {"is-dir", syscall.EISDIR, "is a directory"},
	NotEmpty:        {"not-empty", syscall.ENOTEMPTY, "the directory is not empty"},
	Invalid:         {"invalid", syscall.EINVAL, "invalid argument"},
	NameTooLong:     {"name-too-long", syscall.ENAMETOOLONG, "the name is longer than 255 bytes"},
	NoAttr:          {"no-attr", syscall.ENODATA, "no such extended attribute"},
	AttrTooLarge:    {"attr-too-large", syscall.E2BIG, "the extended attribute is larger than 64 KiB"},
	AttrBufferSmall: {"attr-buffer-small", syscall.ERANGE, "the buffer is too small for the attribute"},
	NoSpace:         {"no-space", syscall.ENOSPC, "no space left on the chunkservers; add disks or delete files"},
	QuotaExceeded:   {"quota-exceeded", syscall.EDQUOT, "the quota is used up"},
	ReadOnly:        {"read-only", syscall.EROFS, "the file system is mounted read-only"},
	Perm:            {"perm", syscall.EPERM, "operation not permitted"},
	Access:          {"access", syscall.EACCES, "permission denied"},
	Busy:            {"busy", syscall.EBUSY, "in use"},
	TooManyLinks:    {"too-many-links", syscall.EMLINK, "too many hard links"},
	CrossDevice:     {"cross-device", syscall.EXDEV, "not on the same file system"},
	TooBig:          {"too-big", syscall.EFBIG, "the file would be larger than 128 PiB"},
	Stale:           {"stale", syscall.ESTALE, "the file or the session no longer exists"},
	Again:           {"again", syscall.EAGAIN, "try again"},
	Deadlock:        {"deadlock", syscall.EDEADLK, "waiting for this lock would be a deadlock"},
	Interrupted:     {"interrupted", syscall.EINTR, "interrupted"},
	IO:              {"io", syscall.EIO, "input/output error"},
	Unsupported:     {"unsupported", syscall.EOPNOTSUPP, "not supported"},
	NoDevice:        {"no-device", syscall.ENXIO, "no data behind this offset"},
	BadVersion:      {"bad-version", syscall.EPROTO, "the other side speaks another protocol version; install the same version of varve on all hosts"},
	BadKey:          {"bad-key", syscall.EACCES, "the other side has a different cluster key; copy cluster.key from the master"},
	BadMessage:      {"bad-message", syscall.EBADMSG, "malformed message"},
	NotLeader:       {"not-leader", syscall.EAGAIN, "this master does not lead"},
	OldEpoch:        {"old-epoch", syscall.EAGAIN, "order of a deposed master"},
	StaleVersion:    {"stale-version", syscall.ESTALE, "this copy of the chunk has another version"},
	NoChunk:         {"no-chunk", syscall.EIO, "this chunkserver has no copy of the chunk"},
	Corrupt:         {"corrupt", syscall.EIO, "stored bytes do not match their checksum"},
	NoServers:       {"no-servers", syscall.ENOSPC, "not enough chunkservers with free space are connected"},
	DiskFailed:      {"disk-failed", syscall.EIO, "the disk has failed; see the chunkserver's log"},
	Closed:          {"closed", syscall.EIO, "the connection is closed"},
	Timeout:         {"timeout", syscall.ETIMEDOUT, "no answer in time"},
	NoLease:         {"no-lease", syscall.EIO, "write without a lease"},
	BadToken:        {"bad-token", syscall.EACCES, "access token is missing, forged or expired"},
	NotWaited:       {"not-waited", syscall.EAGAIN, "the lock is held by another"},
	Unknown:         {"unknown", syscall.EIO, "unknown error"},
	NotKnown:        {"not-known", syscall.ENOENT, "the cluster does not have it; 'varve status' lists what it has"},
}

func (c Code) entry() *entry {
	if c >= codes {
		c = Unknown
	}
	return &dictionary[c]
}

// String is the code's short name, as in logs and metrics.
func (c Code) String() string { return c.entry().name }

// Errno is what the kernel is told.
func (c Code) Errno() syscall.Errno { return c.entry().errno }

// Sentence is the explanation for people.
func (c Code) Sentence() string { return c.entry().sentence }

// Error makes a bare code an error without detail.
func (c Code) Error() string { return c.Sentence() }

// Error is a code with what it happened to.
type Error struct {
	Code   Code
	Detail string // the subject and the cause; may be empty
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Code.Sentence()
	}
	return e.Detail + ": " + e.Code.Sentence()
}

// Is makes errors.Is(err, status.NotFound) work.
func (e *Error) Is(target error) bool { return target == e.Code }

// Errorf makes an Error with a formatted detail.
func Errorf(c Code, format string, args ...any) error {
	return &Error{Code: c, Detail: fmt.Sprintf(format, args...)}
}

// CodeOf finds the code in err's chain: OK for nil, a matching code for a bare
// errno, Unknown for anything else.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	var c Code
	if errors.As(err, &c) {
		return c
	}
	var no syscall.Errno
	if errors.As(err, &no) {
		for i := range dictionary {
			if dictionary[i].errno == no {
				return Code(i)
			}
		}
	}
	return Unknown
}

// Errno is CodeOf(err).Errno().
func Errno(err error) syscall.Errno { return CodeOf(err).Errno() }

// DetailOf is the text to send beside CodeOf(err).
func DetailOf(err error) string {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) && e == err {
		return e.Detail
	}
	if _, bare := err.(Code); bare {
		return ""
	}
	return err.Error()
}
