// Package system drives the real binary as its users do: 'varve up' with real
// processes, real mounts and real disks, programs that live on the mount, and
// processes killed at bad moments. Nobody imports it.
package system
