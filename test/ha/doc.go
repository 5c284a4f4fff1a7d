// Package ha torments the six-machine plan (test/plan) and checks that nothing
// that was acknowledged is lost, that all mounts agree, and that the virtual
// address is where it should be. A short round runs with every test; the long
// one when VARVE_HA names its length, as 'make test-ha' does. Faults are in
// nemesis.go, those of disks and changelogs in damage.go, lies in forge.go; the
// load is in load.go, what must hold in check.go. VARVE_HA_ONLY picks faults by a
// part of their name, VARVE_HA_SEED repeats the order of a long run.
//
// The load runs as a process of its own on the client's machine: it is this test
// binary again, told what to do by loadVariable.
package ha
