package admin

import (
	"context"
	"fmt"
	"net"
	"slices"
)

// serverAt is how the cluster calls the chunkserver that an operator has named.
// Chunkservers are known by the address that they have told, mostly numbers;
// operators call their hosts by name. What is not HOST:PORT is left alone, and so
// is what the cluster lists under just this address.
func (c *Client) serverAt(ctx context.Context, name string) (string, error) {
	host, port, err := net.SplitHostPort(name)
	if err != nil || net.ParseIP(host) != nil {
		return name, nil
	}
	st, err := c.Status(ctx)
	if err != nil {
		return "", err
	}
	var known []string
	for _, s := range st.Servers {
		known = append(known, s.Addr)
	}
	if slices.Contains(known, name) {
		return name, nil
	}
	ips, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return "", fmt.Errorf("chunkserver %q: %w; name it by its address or identity, as 'varve status' lists it", name, err)
	}
	for _, ip := range ips {
		if addr := net.JoinHostPort(ip, port); slices.Contains(known, addr) {
			return addr, nil
		}
	}
	return name, nil
}
