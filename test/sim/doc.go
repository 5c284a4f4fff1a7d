// Package sim runs a whole cluster of masters and a metalogger from a seed: the
// changelog, the tree, the election, what holds replies back, the virtual address,
// supervisors, and clients that send their changes again after a failover, joined by a
// network, clocks and disks that behave badly. Everything happens in one goroutine
// and in an order drawn from the seed, so that a failure happens again.
//
//	make sim FROM=1 TO=2000
//	VARVE_SIM_FROM=1234 VARVE_SIM_TO=1234 VARVE_SIM_TRACE=1 go test ./test/sim -run 'TestSeeds$' -v
//
// What is real: package journal but for its goroutines (journal.Manual) and its
// files (test/sim/disk on engine/sim), raft, master/state, master/image, master/helm, elect,
// vip.Owner, and the rules of master/voters. What is modelled, after the code of the
// same name: the loop of package master, elect/runner, guard, gossip of obituaries,
// the kernel that takes a virtual address away. Each goroutine that has a part in
// this is an actor, which may be delayed on its own; a process that is stopped
// delays all of its actors.
//
// ledger.go holds what must be true at every step.
package sim
