package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/status"
)

// Token is what the master signs so that a chunkserver serves a chunk to a
// mount. Encoded: u8 version 1, u8 write, u64 chunk, u32 min, u32 version,
// u64 epoch, i64 expiry, 16 bytes of HMAC-SHA256 over all before it.
type Token struct {
	Write   bool
	Chunk   chunk.ID
	Min     chunk.Version // version of the copies before the lease
	Version chunk.Version
	Epoch   uint64
	Expiry  int64 // seconds since 1970
}

const (
	tokenBody = 1 + 1 + 8 + 4 + 4 + 8 + 8
	tokenSize = tokenBody + 16
)

// Sign encodes the token and signs it with the cluster key.
func (t *Token) Sign(key []byte) []byte {
	b := make([]byte, tokenBody, tokenSize)
	b[0] = 1
	if t.Write {
		b[1] = 1
	}
	binary.LittleEndian.PutUint64(b[2:], uint64(t.Chunk))
	binary.LittleEndian.PutUint32(b[10:], uint32(t.Min))
	binary.LittleEndian.PutUint32(b[14:], uint32(t.Version))
	binary.LittleEndian.PutUint64(b[18:], t.Epoch)
	binary.LittleEndian.PutUint64(b[26:], uint64(t.Expiry))
	return append(b, tokenMAC(key, b)...)
}

// OpenToken checks the signature of an encoded token. Whether it has expired
// and whether it names the chunk in question is for the caller to check.
func OpenToken(key, b []byte) (Token, error) {
	if len(b) != tokenSize || b[0] != 1 {
		return Token{}, status.BadToken
	}
	if !hmac.Equal(tokenMAC(key, b[:tokenBody]), b[tokenBody:]) {
		return Token{}, status.BadToken
	}
	return Token{
		Write:   b[1] == 1,
		Chunk:   chunk.ID(binary.LittleEndian.Uint64(b[2:])),
		Min:     chunk.Version(binary.LittleEndian.Uint32(b[10:])),
		Version: chunk.Version(binary.LittleEndian.Uint32(b[14:])),
		Epoch:   binary.LittleEndian.Uint64(b[18:]),
		Expiry:  int64(binary.LittleEndian.Uint64(b[26:])),
	}, nil
}

func tokenMAC(key, b []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("varve chunk token"))
	h.Write(b)
	return h.Sum(nil)[:16]
}
