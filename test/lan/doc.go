// Package lan builds a small network on one machine: hosts on one bridge, each
// with network, mount, process and name space of its own, so that a test can run
// several machines' daemons with the addresses, paths and files that they have
// when installed, and cut, slow or switch off any of them.
//
// A host has its own /etc, /root, /run, /mnt and /var/lib (copies on write of the machine's),
// kept in the directory given to Host, so that they outlive a PowerOff. Everything else is the
// machine's. Nothing is changed outside: the bridge lies in a namespace too, and all of it
// ends with the process that made it, whatever becomes of that.
//
// The test and its load use it; it needs root, ip (iproute2), unshare
// (util-linux) and, to cut the network, nft. A LAN belongs to one goroutine; a
// Host's Command, Start and Run may be used by any.
package lan
