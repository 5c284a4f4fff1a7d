package gossip

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

// A question is a random nonce of nonceSize bytes; the answer is the members as
// JSON, sealed by AES-GCM with the pools' key, the question as additional data
// and a nonce of its own in front. So an answer can neither be read nor made
// without the key, nor be an old one. The asker proves nothing: what it gets, it
// cannot read without the key.
const (
	questionSize = 32
	maxAnswer    = 1 << 20
)

func sealer(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return aead
}

// answer serves one question; c has a deadline.
func (n *Node) answer(c net.Conn) {
	defer c.Close()
	question := make([]byte, questionSize)
	if _, err := io.ReadFull(c, question); err != nil {
		return
	}
	text, err := json.Marshal(n.Members())
	if err != nil {
		panic("BUG: " + err.Error())
	}
	c.Write(sealer(n.key).Seal(nil, nil, text, question))
}

// Ask asks one node for all members of the cluster, without joining it.
func Ask(ctx context.Context, addr, cluster string, clusterKey []byte) ([]Member, error) {
	members, err := ask(ctx, addr, cluster, poolKey(clusterKey))
	if err != nil {
		return nil, fmt.Errorf("ask %s for the nodes of the cluster: %w", addr, err)
	}
	return members, nil
}

func ask(ctx context.Context, addr, cluster string, key []byte) ([]Member, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if at, ok := ctx.Deadline(); ok {
		c.SetDeadline(at)
	} else {
		c.SetDeadline(time.Now().Add(labelPatience))
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	question := make([]byte, questionSize)
	rand.Read(question)
	if err := memberlist.AddLabelHeaderToStream(c, askLabel(cluster)); err != nil {
		return nil, err
	}
	if _, err := c.Write(question); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(c, maxAnswer))
	if err != nil {
		return nil, err
	}
	return openAnswer(key, question, b)
}

func openAnswer(key, question, b []byte) (members []Member, err error) {
	text, err := sealer(key).Open(nil, nil, b, question)
	if err != nil {
		return nil, errors.New("its answer does not fit: another cluster key, another cluster, or not a Varve node")
	}
	return members, json.Unmarshal(text, &members)
}
