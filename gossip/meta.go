package gossip

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// Roles of nodes.
const (
	Master     = "master"
	Metalogger = "metalogger"
	Chunkd     = "chunkd"
	Mount      = "mount"
)

// maxMeta is what memberlist carries for a node, in bytes.
const maxMeta = 512

// Meta is what a node tells about itself. Ports that it does not have are 0.
// The names are short since all of it travels in every announcement.
type Meta struct {
	Role    string `json:"r"`
	Host    string `json:"h,omitempty"` // name for people
	Version string `json:"v,omitempty"`
	Voter   uint64 `json:"i,omitempty"`  // masters and metaloggers: number in the changelog's vote
	Raft    uint16 `json:"pr,omitempty"` // ports: 9419
	Servers uint16 `json:"ps,omitempty"` // 9420
	Clients uint16 `json:"pc,omitempty"` // 9421
	Data    uint16 `json:"pd,omitempty"` // 9422
	HTTP    uint16 `json:"ph,omitempty"` // 9425
	Epoch   uint64 `json:"e,omitempty"`  // highest that it has seen
	Leads   bool   `json:"l,omitempty"`  // it leads that epoch
	Index   uint64 `json:"x,omitempty"`  // last change applied
	Load    uint8  `json:"b,omitempty"`  // how busy it is, per cent
	Total   uint64 `json:"t,omitempty"`  // bytes of its disks
	Free    uint64 `json:"f,omitempty"`
}

// encode gives the bytes to announce. Texts that are too long are cut, so that
// it always fits.
func (m Meta) encode() []byte {
	for {
		b, err := json.Marshal(m)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		if len(b) <= maxMeta {
			return b
		}
		m.Host, m.Version = m.Host[:len(m.Host)/2], m.Version[:len(m.Version)/2]
	}
}

// decodeMeta reads what another node announced.
func decodeMeta(b []byte) (m Meta, err error) {
	if len(b) > maxMeta {
		return Meta{}, fmt.Errorf("%d bytes", len(b))
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return Meta{}, err
	}
	switch m.Role {
	case Master, Metalogger, Chunkd, Mount:
		return m, nil
	}
	return Meta{}, fmt.Errorf("role %q", m.Role)
}

// Member is one node as this one knows it.
type Member struct {
	ID   string     `json:"id"`
	Addr netip.Addr `json:"addr"`
	Port uint16     `json:"port"` // of gossip
	Meta Meta       `json:"meta"`
}

// At is the member's address with one of its ports, "" if it has no such port.
func (m Member) At(port uint16) string {
	if port == 0 {
		return ""
	}
	return net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(port)))
}

// PortOf gives the port of HOST:PORT, 0 if there is none.
func PortOf(addr string) uint16 {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(port, 10, 16)
	return uint16(n)
}
