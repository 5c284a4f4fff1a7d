package ha

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/varvefs/varve/gossip"
)

// forgeVariable makes the test binary a host that lies to the voters' gossip.
const forgeVariable = "VARVE_HA_FORGE"

// forgery is what it is told.
type forgery struct {
	Key     []byte
	Cluster string
	Voters  []string // HOST:PORT of their gossip
	Names   []string // node ids that are called dead
	Length  time.Duration
}

// runForgery sends lies for a while: noise, the death of every voter under the
// cluster's own key, and obituaries of terms that are over or never were.
func runForgery(text string) error {
	var f forgery
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return err
	}
	for i, end := 0, time.Now().Add(f.Length); time.Now().Before(end); i++ {
		for _, addr := range f.Voters {
			c, err := net.Dial("udp", addr)
			if err != nil {
				return err
			}
			noise := make([]byte, 1+i%1400)
			rand.Read(noise)
			c.Write(noise)
			for _, name := range f.Names {
				for _, label := range []string{"varve " + f.Cluster, "varve voters " + f.Cluster} {
					c.Write(deadMessage(f.Key, label, name, uint32(1<<20+i)))
				}
			}
			c.Close()
			f.buryAlive(addr, uint64(i))
		}
		time.Sleep(20 * time.Millisecond) // the pace of the lies
	}
	return nil
}

// buryAlive sends obituaries: of terms long ago and of the far future, and one
// with another key.
func (f *forgery) buryAlive(addr string, n uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for voter := uint64(1); voter <= 3; voter++ {
		_ = gossip.SendObituary(ctx, addr, f.Cluster, f.Key, voter, 0)
		_ = gossip.SendObituary(ctx, addr, f.Cluster, []byte("another key"), voter, n)
	}
}

// deadMessage is memberlist's word that a node is dead, as a member would send
// it: label, version of the encryption, nonce, and the message under AES-GCM.
func deadMessage(clusterKey []byte, label, name string, incarnation uint32) []byte {
	const hasLabel, dead, version = 244, 5, 1
	text := func(b []byte, s string) []byte { return append(append(b, 0xa0|byte(len(s))), s...) } // up to 31 bytes
	m := append([]byte{dead}, 0x83)                                                               // a map of three
	m = binary.BigEndian.AppendUint32(append(text(m, "Incarnation"), 0xce), incarnation)
	m = text(text(m, "Node"), name)
	m = text(text(m, "From"), "nobody")
	key, err := hkdf.Key(sha256.New, clusterKey, nil, "varve gossip", 32)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	nonce := make([]byte, seal.NonceSize())
	rand.Read(nonce)
	out := append([]byte{hasLabel, byte(len(label))}, label...)
	out = append(append(out, version), nonce...)
	return seal.Seal(out, nonce, m, []byte(label))
}

// forge lets a host lie to all voters, and fails if anybody acts on it. That the
// lies are well made is TestForgery's business.
func (n *nemesis) forge() error {
	f := forgery{Key: n.Key, Cluster: "varve", Length: 4 * time.Second}
	for host, dir := range map[string]string{"master1": "master", "master2": "master", metalogger: metalogger} {
		id, err := os.ReadFile(n.Hosts[host].Root() + "/var/lib/varve/" + dir + "/node.id")
		if err != nil {
			return err
		}
		f.Names = append(f.Names, string(id[:len(id)-1]))
		f.Voters = append(f.Voters, fmt.Sprintf("%s:9426", n.Hosts[host].Addr))
	}
	before, err := n.epoch()
	if err != nil {
		return err
	}
	if err := n.helper("client", forgeVariable, f); err != nil {
		return err
	}
	after, err := n.epoch()
	if err == nil && after != before {
		err = fmt.Errorf("lies led from epoch %d to %d", before, after)
	}
	return err
}
