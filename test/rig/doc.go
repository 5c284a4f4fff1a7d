// Package rig starts a whole cluster for a test: a master, chunkservers and
// mounts on loopback ports and temporary directories, and takes all down when
// the test ends, whatever has become of it.
//
// Each daemon is a process, so that tests can kill it for good and so that a
// test may do with a mount what a process that also serves it could not (map a
// file, wait for a lock). The processes are the test binary itself: a package
// that uses the rig must call it from TestMain.
//
//	func TestMain(m *testing.M) { rig.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		c := rig.Start(t, rig.Options{Servers: 3})
//		dir := c.Mount(t)
//		...
//		c.KillServer(0)
//
// A Cluster and a Mount belong to the goroutine of the test; they have no locks.
package rig
