// Package posix holds tests of what programs may expect of a mount: go-fuse's
// POSIX suite and our own, on real clusters of processes, with one mount and
// with two. They need root and /dev/fuse.
package posix
