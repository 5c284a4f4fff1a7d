package wire

import (
	"fmt"

	"github.com/varvefs/varve/codec"
)

// Role says which desk a connection is for.
type Role uint8

// Roles of the two ends of a connection.
const (
	RoleMaster Role = iota + 1
	RoleChunkd
	RoleMount
	RoleAdmin
	RoleVoter // a master or metalogger to another one
)

// Hello is the first frame of the side that connects.
type Hello struct {
	Role   Role
	Want   Role // role of the side that is called
	Nonce  [32]byte
	Client string // version text, for logs
}

func (*Hello) Kind() Kind { return KindHello }
func (m *Hello) Fields(c *codec.Codec) {
	c.U8((*uint8)(&m.Role))
	c.U8((*uint8)(&m.Want))
	fixed(c, m.Nonce[:])
	c.Str(&m.Client, maxText)
}

// Challenge answers Hello: the called side's nonce, and its proof that it has
// the key: HMAC-SHA256(key, "varve server" || both nonces || both roles).
type Challenge struct {
	Nonce [32]byte
	Proof [32]byte
}

func (*Challenge) Kind() Kind { return KindChallenge }
func (m *Challenge) Fields(c *codec.Codec) {
	fixed(c, m.Nonce[:])
	fixed(c, m.Proof[:])
}

// Proof is the connecting side's: HMAC-SHA256(key, "varve client" || the same).
type Proof struct{ Proof [32]byte }

func (*Proof) Kind() Kind              { return KindProof }
func (m *Proof) Fields(c *codec.Codec) { fixed(c, m.Proof[:]) }

// Welcome ends the handshake; its frame's status says whether it succeeded.
type Welcome struct{}

func (*Welcome) Kind() Kind          { return KindWelcome }
func (*Welcome) Fields(*codec.Codec) {}

func fixed(c *codec.Codec, b []byte) {
	for i := range b {
		c.U8(&b[i])
	}
}

var roleNames = [...]string{"stranger", "master", "chunkserver", "mount", "admin tool", "voter"}

func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("role(%d)", uint8(r))
}
