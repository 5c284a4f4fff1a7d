// Package ports finds addresses for tests whose servers are started, killed and started again on
// the same one, so that the kernel cannot choose it when they listen. Tests of any room call it.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Below where the kernel looks for the ports of outgoing connections (ip_local_port_range): one of
// those would take the port between two starts of its server.
const first, end = 12000, 32000

// given are the ports of this process's tests, which may run side by side.
var given sync.Map

// Free is a loopback address, HOST:PORT, on which nobody listens now, given to no other test of this process.
func Free(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := first + rand.IntN(end-first)
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		ln.Close()
		return addr
	}
	t.Fatal("no port is free")
	return ""
}
