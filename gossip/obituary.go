package gossip

import (
	"context"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

// An obituary is voter and term, 8 bytes each, sealed by AES-GCM with a key of
// its own; the receiver answers with one byte. It needs no protection against
// being sent again: who led a term and died is dead in that term for ever.
const obituarySize = 16 + 12 + 16 // with nonce and tag

func obituaryLabel(cluster string) string { return "varve obituary " + cluster }

func obituarySealer(clusterKey []byte) cipher.AEAD {
	key, err := hkdf.Key(sha256.New, clusterKey, nil, "varve obituary", 32)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return sealer(key)
}

// SendObituary tells the node at addr that the process which led term as voter is
// dead. To be called only by who has waited for that process.
func SendObituary(ctx context.Context, addr, cluster string, clusterKey []byte, voter, term uint64) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if at, ok := ctx.Deadline(); ok {
		c.SetDeadline(at)
	}
	if err := memberlist.AddLabelHeaderToStream(c, obituaryLabel(cluster)); err != nil {
		return err
	}
	text := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, voter), term)
	if _, err := c.Write(obituarySealer(clusterKey).Seal(nil, nil, text, []byte(cluster))); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return fmt.Errorf("%s did not take the obituary: %w", addr, err)
	}
	return nil
}

// services are what the port is for beside the pools.
func (n *Node) services() map[string]func(net.Conn) {
	return map[string]func(net.Conn){
		askLabel(n.cfg.Cluster):      n.answer,
		obituaryLabel(n.cfg.Cluster): n.mourn,
	}
}

// mourn takes an obituary; c has a deadline.
func (n *Node) mourn(c net.Conn) {
	defer c.Close()
	b := make([]byte, obituarySize)
	if _, err := io.ReadFull(c, b); err != nil {
		return
	}
	voter, term, err := openObituary(b, n.cfg.Cluster, n.cfg.Key)
	if err != nil {
		n.cfg.Log.Warn("gossip: an obituary that is none", "from", c.RemoteAddr().String(), "err", err)
		return
	}
	if n.cfg.Obituary != nil {
		n.cfg.Obituary(voter, term)
	}
	c.SetDeadline(time.Now().Add(labelPatience))
	c.Write([]byte{1})
}

func openObituary(b []byte, cluster string, clusterKey []byte) (voter, term uint64, err error) {
	text, err := obituarySealer(clusterKey).Open(nil, nil, b, []byte(cluster))
	if err != nil || len(text) != 16 {
		return 0, 0, fmt.Errorf("not sealed with this cluster's key: %v", err)
	}
	return binary.LittleEndian.Uint64(text), binary.LittleEndian.Uint64(text[8:]), nil
}
