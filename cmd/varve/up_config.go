package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// upPorts are the addresses of a 'varve up', kept in DIR so that they are the
// same at the next start where that is possible.
type upPorts struct {
	Clients      string   `json:"clients"`
	Chunkservers string   `json:"chunkservers"`
	HTTP         string   `json:"http"`
	Data         []string `json:"data"`
}

// choosePorts takes the addresses of the last start, else the usual ones, else
// any that are free.
func choosePorts(dir string, servers int) (upPorts, error) {
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
	cluster := fmt.Sprintf("# Written by 'varve up' at every start.\n[cluster]\nmasters = [%q]\nkey-file = %q\n", p.Clients, key)
	daemons := cluster + fmt.Sprintf("\n[master]\ndir = %q\nname = \"master\"\nclients = %q\nchunkservers = %q\nhttp = %q\nsync = %q\n\n[chunkd]\nmasters = [%q]\nbackend = %q\nlimit = %q\n",
		filepath.Join(a.dir, "master"), p.Clients, p.Chunkservers, p.HTTP, a.sync, p.Chunkservers, a.backend, a.limit)
	if err := os.WriteFile(filepath.Join(a.dir, "client.toml"), []byte(cluster), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(a.dir, "daemons.toml"), []byte(daemons), 0o600)
}

func masterChild(a upArgs) child {
	return child{name: "master", args: []string{"master", "--config", filepath.Join(a.dir, "daemons.toml")}, order: 3}
}

func chunkdChild(a upArgs, p upPorts, i int) child {
	name := fmt.Sprintf("chunkd%d", i+1)
	return child{name: name, order: 2, args: []string{"chunkd", "--config", filepath.Join(a.dir, "daemons.toml"),
		"--dirs", filepath.Join(a.dir, name), "--listen", p.Data[i]}}
}

func mountChild(a upArgs) child {
	args := []string{"mount", "--foreground", "--config", filepath.Join(a.dir, "client.toml")}
	if a.options != "" {
		args = append(args, "-o", a.options)
	}
	return child{name: "mount", order: 1, mount: a.mount, args: append(args, a.mount)}
}
