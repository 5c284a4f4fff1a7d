// Package vip takes and drops virtual addresses: the addresses under which
// mounts find whichever master leads. It never decides who may have them; the
// supervisor (package guard) does, on the word of the election.
//
// An address is held for a time, never for good. Agent.Hold says until when;
// the agent takes the address away at that moment, and the kernel does it by
// itself when the agent is dead, stopped or starved: every address is added with
// a valid lifetime of Config.Lifetime (2 s), which the agent renews four times as
// often. A master that lost its right to lead therefore loses its address even
// if nobody on that host can run any more.
//
// While an address is held the neighbours are told where it is: gratuitous ARP
// (both forms, since some devices believe only requests and some only replies)
// or unsolicited neighbour advertisements in a burst, then slowly for ever,
// because a switch or host that missed the burst would go on sending to the old
// place. The agent asks once a second whether anybody else answers for the
// address, and reports such a foreign claim once the host that had it before must
// have lost it: announcing louder cannot repair
// it, since whose reply is last wins; the other host must be made to let go.
//
// One goroutine owns all state; Hold and Drop are answered by it. Another one
// for each family reads what the neighbours say and ends with its socket.
// Frames are in arp.go and ndp.go, the kernel's part in kernel.go, when to
// speak in schedule.go; Owner decides, without a clock of its own.
package vip
