// Package elect decides, on one voter, when to replace a leader, when to hand
// over, and when this host may have the virtual addresses. Raft makes sure that
// there is at most one leader a term and that it has every acknowledged change;
// this package only chooses the moments, so that failover is quick and hand-over
// clean. It is a pure machine: package elect/runner gives it the time and a view
// of the log and carries out its actions.
//
// What makes a voter act:
//   - An obituary: the word of the process that watched the leader of a term die
//     (its supervisor, package guard). A leader that is surely dead keeps nobody
//     waiting: forget it and ask for votes at once. An obituary counts only for
//     the very leader and term that it names.
//   - Silence for the whole Timeout, after which no promise to the leader binds.
//   - Never gossip: it may be forged by any host of the cluster, and late by seconds.
//
// A voter that cannot serve (a metalogger) waits Holdback longer, so that a
// master wins where one can, unless a master has asked for votes that has less of the log.
// If it leads, because only it has the last entries, it hands over as soon as a master answers.
//
// A leader hands over when it is told to stop, by an operator's order, and when its own
// disk stalls: raft would let it go on with the disks of the others, but it could
// not keep up for long. It gives up the virtual addresses first.
//
// The addresses are held only while this voter leads, has applied all of the
// terms before its own, has a lease, and is not handing over; and only until the
// lease ends.
package elect
