// Package gossip tells every node of a cluster which others there are, where,
// and how they fare, on hashicorp/memberlist. What it says are hints: it may be late by
// seconds, and whoever has the cluster key can forge it. Nothing that must be
// right depends on it; above all, it never elects.
//
// There are two pools on one port (TCP and UDP 9426): all nodes, with the
// unhurried timers of a LAN, and the voters (masters and metaloggers) among
// themselves, where a node that is gone is noticed within a second. They are told apart by
// memberlist's label, which is part of what is encrypted; mux.go deals them out.
// A third label is for questions: who knows one address of the cluster and the
// key learns where the masters are without becoming a member (ask.go).
//
// A fourth label is for obituaries (obituary.go): the word of a supervisor that
// the master it watched is dead. They are no gossip, they only share the port,
// which is open between all voters; package elect says what they are good for.
//
// A node's name is its persistent identity, so that it may come back with
// another address. Two living nodes with one name are a mistake, most likely a
// copied directory: they are reported, loudly. Two parts of a cluster that gave each other up
// never meet again by memberlist alone; therefore the seeds are joined again
// whenever one of them is missing.
//
// cmd starts a Node and reads its Events; memberlist's goroutines call back into
// pool.go, which must not block there. Node.mu guards what both touch and is
// never held while memberlist is called.
package gossip
