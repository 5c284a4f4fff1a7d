package main

import (
	"fmt"
	"net"
	"strings"

	"github.com/varvefs/varve/conf"
)

// quorum is what a master or metalogger is told of the voters: its own number,
// where it listens for the others, and all of them. Without voters in the
// configuration it is alone.
type quorum struct {
	id     uint64
	listen string
	voters map[uint64]string
}

// quorumOf reads a role's part in cluster.voters. section names it in errors.
func quorumOf(f *conf.File, section string, id int, listen string) (quorum, error) {
	voters, err := conf.ParseVoters(f.Cluster.Voters)
	if err != nil {
		return quorum{}, fmt.Errorf("cluster.voters: %w", err)
	}
	q := quorum{id: uint64(id), listen: listen, voters: voters}
	if len(voters) == 0 {
		q.id = max(q.id, 1)
		return q, nil
	}
	if q.id == 0 {
		if q.id, err = ownVoter(voters); err != nil {
			return q, fmt.Errorf("%w; set %s.id", err, section)
		}
	}
	own, ok := voters[q.id]
	if !ok {
		return q, fmt.Errorf("%s.id is %d, which is not in cluster.voters %s", section, q.id, strings.Join(f.Cluster.Voters, ", "))
	}
	if q.listen == "" {
		_, port, err := net.SplitHostPort(own)
		if err != nil {
			return q, err
		}
		q.listen = net.JoinHostPort("", port)
	}
	return q, nil
}

// ownVoter finds the voter whose host is this one.
func ownVoter(voters map[uint64]string) (uint64, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return 0, err
	}
	here := map[string]bool{}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			here[n.IP.String()] = true
		}
	}
	var found []uint64
	for id, addr := range voters {
		host, _, _ := net.SplitHostPort(addr)
		ips, err := net.LookupHost(host)
		if err != nil {
			continue // another host, whose name is not known here now
		}
		for _, ip := range ips {
			if here[ip] {
				found = append(found, id)
				break
			}
		}
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%d of the hosts in cluster.voters are this one, not 1", len(found))
	}
	return found[0], nil
}
