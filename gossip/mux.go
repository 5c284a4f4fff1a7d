package gossip

import (
	"fmt"
	"log"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

// mux deals what arrives on one port out to the pools by their labels. It stands
// between memberlist's own transport and each pool's.
type mux struct {
	net   *memberlist.NetTransport
	pools map[string]*branch
	serve map[string]func(net.Conn) // what else the port is for, by label
	stop  chan struct{}             // closed: what arrives is dropped
	ended chan struct{}             // closed: nothing arrives any more
}

// branch is one pool's share of the port.
type branch struct {
	*memberlist.NetTransport
	packets chan *memberlist.Packet
	streams chan net.Conn
}

func (b *branch) PacketCh() <-chan *memberlist.Packet { return b.packets }
func (b *branch) StreamCh() <-chan net.Conn           { return b.streams }

// Shutdown of one pool leaves the port to the other one; mux.close ends it.
func (b *branch) Shutdown() error { return nil }

// labelPatience bounds how long a stranger may take to say which pool it wants.
const labelPatience = 5 * time.Second

func listenMux(bind string, l *log.Logger, serve map[string]func(net.Conn), labels ...string) (*mux, error) {
	host, port, err := net.SplitHostPort(bind)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	if host == "" {
		host = "0.0.0.0"
	}
	if net.ParseIP(host) == nil {
		return nil, fmt.Errorf("listen on %s: %q is not an address", bind, host)
	}
	t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{host}, BindPort: int(n), Logger: l})
	if err != nil {
		return nil, err
	}
	m := &mux{net: t, pools: map[string]*branch{}, serve: serve, stop: make(chan struct{}), ended: make(chan struct{})}
	for _, label := range labels {
		m.pools[label] = &branch{t, make(chan *memberlist.Packet), make(chan net.Conn)}
	}
	go m.deal()
	return m, nil
}

// deal drops what has an unknown label: it is of another cluster, or of no one.
func (m *mux) deal() {
	for {
		select {
		case <-m.ended:
			return
		case p := <-m.net.PacketCh():
			rest, label, err := memberlist.RemoveLabelHeaderFromPacket(p.Buf)
			if b := m.pools[label]; err == nil && b != nil {
				p.Buf = rest
				select {
				case b.packets <- p:
				case <-m.stop:
				}
			}
		case c := <-m.net.StreamCh():
			go m.dealStream(c)
		}
	}
}

func (m *mux) dealStream(c net.Conn) {
	c.SetDeadline(time.Now().Add(labelPatience))
	rest, label, err := memberlist.RemoveLabelHeaderFromStream(c)
	if serve := m.serve[label]; err == nil && serve != nil {
		serve(rest)
		return
	}
	b := m.pools[label]
	if err != nil || b == nil {
		c.Close()
		return
	}
	select {
	case b.streams <- rest:
	case <-m.stop:
		c.Close()
	}
}

// close ends the port. The pools are shut down already and take nothing any
// more; the transport ends only when somebody takes what it has read.
func (m *mux) close() error {
	close(m.stop)
	err := m.net.Shutdown()
	close(m.ended)
	return err
}
