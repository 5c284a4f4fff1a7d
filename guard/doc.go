// Package guard watches over a master from outside. The supervisor (Run) is its
// parent process: small, with the right to change the host's addresses, which
// the master itself then does not need. It takes and drops the virtual addresses on
// the master's word, and when the master dies it knows so at once and for sure:
// it drops the addresses, tells the other voters (the obituary, which spares them
// the wait for the lease to run out), and starts the master again.
//
// The two talk over a socket pair, a line a message:
//
//	master     leads TERM     it leads that term; said before it serves anybody
//	           hold UNTIL     the addresses are its own up to that time of the boot clock
//	           drop N         give the addresses up
//	supervisor done N [why]   the drop was carried out, or why not
//	           concern TEXT   what an operator should see to, again while it lasts
//
// If the supervisor dies the master gets SIGTERM, and hands over; if both die at
// once, the kernel lets the addresses expire. If the master hangs, nothing
// extends its right, and the addresses go with the lease. So no death or stop of
// either leaves an address behind.
//
// cmd calls Run in the parent and Attach in the child. Run's goroutine owns the
// process, one more reads the socket; the child's Line may be used by any goroutine.
package guard
