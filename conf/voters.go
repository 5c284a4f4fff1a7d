package conf

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// ParseVoters reads a list of NUMBER=HOST:PORT. Every number and every address
// may be there once; numbers begin at 1.
func ParseVoters(list []string) (map[uint64]string, error) {
	voters := map[uint64]string{}
	seen := map[string]bool{}
	for _, text := range list {
		number, addr, ok := strings.Cut(text, "=")
		id, err := strconv.ParseUint(strings.TrimSpace(number), 10, 32)
		if !ok || err != nil || id == 0 {
			return nil, fmt.Errorf("%q is not NUMBER=HOST:PORT", text)
		}
		addr = strings.TrimSpace(addr)
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("%q: %q is not HOST:PORT", text, addr)
		}
		if voters[id] != "" || seen[addr] {
			return nil, fmt.Errorf("%q: the number or the address is there twice", text)
		}
		voters[id], seen[addr] = addr, true
	}
	return voters, nil
}
