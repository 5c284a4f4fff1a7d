package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// upPorts are the addresses of a 'varve up', kept in DIR so that they are the
// same at the next start where that is possible.
type upPorts struct {
	Clients      string   `json:"clients"`
	Chunkservers string   `json:"chunkservers"`
	HTTP         string   `json:"http"`
	Data         []string `json:"data"`
	Metrics      []string `json:"metrics"` // of the chunkservers

	// With --ha: the second master's, and all voters' ports for each other.
	Clients2      string    `json:"clients2,omitempty"`
	Chunkservers2 string    `json:"chunkservers2,omitempty"`
	HTTP2         string    `json:"http2,omitempty"`
	HTTP3         string    `json:"http3,omitempty"` // the metalogger's
	Voters        [3]string `json:"voters"`
	Gossip        [3]string `json:"gossip"`
}

// masters are the addresses of the masters for mounts and tools.
func (p *upPorts) masters(ha bool) []string {
	if ha {
		return []string{p.Clients, p.Clients2}
	}
	return []string{p.Clients}
}

// choosePorts takes the addresses of the last start, else the usual ones, else
// any that are free.
func choosePorts(dir string, servers int, ha bool) (upPorts, error) {
	p := upPorts{Clients: loopback(9421), Chunkservers: loopback(9420), HTTP: loopback(9425)}
	name := filepath.Join(dir, "ports.json")
	if b, err := os.ReadFile(name); err == nil {
		if err := json.Unmarshal(b, &p); err != nil {
			return p, fmt.Errorf("%s: %w; remove the file to choose ports anew", name, err)
		}
	}
	for i := len(p.Data); i < servers; i++ {
		p.Data = append(p.Data, loopback(9422+100*i))
	}
	for i := len(p.Metrics); i < servers; i++ {
		p.Metrics = append(p.Metrics, loopback(9428+100*i))
	}
	taken := map[string]bool{}
	var err error
	choose := func(addr *string) {
		if err == nil {
			*addr, err = freeAddr(*addr, taken)
		}
	}
	choose(&p.Clients)
	choose(&p.Chunkservers)
	choose(&p.HTTP)
	for i := range servers {
		choose(&p.Data[i])
		choose(&p.Metrics[i])
	}
	if ha {
		p.chooseHA(choose)
	}
	if err != nil {
		return p, err
	}
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return p, err
	}
	return p, os.WriteFile(name, append(b, '\n'), 0o600)
}

// chooseHA takes the addresses that only --ha needs.
func (p *upPorts) chooseHA(choose func(*string)) {
	usual := func(addr *string, port int) {
		if *addr == "" {
			*addr = loopback(port)
		}
		choose(addr)
	}
	usual(&p.Clients2, 9521)
	usual(&p.Chunkservers2, 9520)
	usual(&p.HTTP2, 9525)
	usual(&p.HTTP3, 9427)
	for i := range p.Voters {
		usual(&p.Voters[i], 9419+100*i)
		usual(&p.Gossip[i], 9426+100*i)
	}
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freeAddr gives addr when nobody listens there, else a free one.
func freeAddr(addr string, taken map[string]bool) (string, error) {
	for range 20 {
		l, err := net.Listen("tcp", addr)
		if err == nil {
			got := l.Addr().String()
			l.Close()
			if !taken[got] {
				taken[got] = true
				return got, nil
			}
		}
		addr = loopback(0)
	}
	return "", fmt.Errorf("no free port on loopback")
}

// writeConfigs writes the daemons' and the tools' configuration files.
func writeConfigs(a upArgs, p upPorts) error {
	key := filepath.Join(a.dir, "cluster.key")
	quoted := func(list ...string) string {
		var b []string
		for _, s := range list {
			b = append(b, strconv.Quote(s))
		}
		return strings.Join(b, ", ")
	}
	cluster := fmt.Sprintf("# Written by 'varve up' at every start.\n[cluster]\nmasters = [%s]\nkey-file = %q\n", quoted(p.masters(a.ha)...), key)
	mount := fmt.Sprintf("\n[mount]\nstate = %q\n", filepath.Join(a.dir, "mount"))
	daemons, chunkservers := cluster, []string{p.Chunkservers}
	if a.ha {
		daemons += fmt.Sprintf("voters = [%s]\n", quoted("1="+p.Voters[0], "2="+p.Voters[1], "3="+p.Voters[2]))
		daemons += fmt.Sprintf("seeds = [%s]\n", quoted(p.Gossip[:]...))
		chunkservers = append(chunkservers, p.Chunkservers2)
	}
	daemons += fmt.Sprintf("\n[master]\ndir = %q\nname = \"master\"\nclients = %q\nchunkservers = %q\nhttp = %q\nsync = %q\n\n[metalogger]\ndir = %q\nname = \"metalogger\"\nsync = %q\n\n[chunkd]\nmasters = [%s]\nbackend = %q\nlimit = %q\nshare = %d\n",
		filepath.Join(a.dir, "master"), p.Clients, p.Chunkservers, p.HTTP, a.sync, filepath.Join(a.dir, "metalogger"), a.sync,
		quoted(chunkservers...), a.backend, a.limit, a.servers)
	if err := os.WriteFile(filepath.Join(a.dir, "client.toml"), []byte(cluster+mount), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(a.dir, "daemons.toml"), []byte(daemons), 0o600)
}

// masterChildren are the master, or two of them and a metalogger. They are
// started one after the other and agree on a leader when two of them run.
func masterChildren(a upArgs, p upPorts) []child {
	config := filepath.Join(a.dir, "daemons.toml")
	first := child{name: "master", args: []string{"master", "--config", config}, order: 3}
	if !a.ha {
		return []child{first}
	}
	first.args = append(first.args, "--id", "1", "--raft", p.Voters[0], "--gossip", p.Gossip[0])
	second := child{name: "master2", order: 3, args: []string{"master", "--config", config, "--id", "2", "--raft", p.Voters[1], "--gossip", p.Gossip[1], "--name", "master2",
		"--dir", filepath.Join(a.dir, "master2"), "--clients", p.Clients2, "--chunkservers", p.Chunkservers2, "--http", p.HTTP2}}
	third := child{name: "metalogger", order: 4, args: []string{"metalogger", "--config", config, "--id", "3", "--raft", p.Voters[2], "--gossip", p.Gossip[2], "--http", p.HTTP3}}
	return []child{first, second, third}
}

func chunkdChild(a upArgs, p upPorts, i int) child {
	name := fmt.Sprintf("chunkd%d", i+1)
	return child{name: name, order: 2, args: []string{"chunkd", "--config", filepath.Join(a.dir, "daemons.toml"),
		"--dirs", filepath.Join(a.dir, name), "--listen", p.Data[i], "--http", p.Metrics[i]}}
}

func mountChild(a upArgs) child {
	args := []string{"mount", "--foreground", "--config", filepath.Join(a.dir, "client.toml")}
	if a.options != "" {
		args = append(args, "-o", a.options)
	}
	return child{name: "mount", order: 1, mount: a.mount, args: append(args, a.mount)}
}
