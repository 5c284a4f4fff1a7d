package chunkd

import (
	"sync"
	"time"

	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/status"
	"github.com/varvefs/varve/wire"
)

const (
	tokenSlack = 30 // seconds that clocks may differ
	tokenCache = 1 << 14
	tokenLife  = 600 // seconds, of the tokens that this server signs for itself
)

// tokens checks access tokens. Verified ones are remembered, since a stream
// shows the same one with each request.
type tokens struct {
	key []byte
	mu  sync.RWMutex
	ok  map[string]wire.Token
}

func newTokens(key []byte) *tokens {
	return &tokens{key: key, ok: make(map[string]wire.Token)}
}

// open returns a token that is genuine, in time and for this chunk.
func (t *tokens) open(b []byte, id chunk.ID) (wire.Token, error) {
	t.mu.RLock()
	tok, known := t.ok[string(b)]
	t.mu.RUnlock()
	if !known {
		var err error
		if tok, err = wire.OpenToken(t.key, b); err != nil {
			return tok, status.Errorf(status.CodeOf(err), "chunk %v", id)
		}
		t.mu.Lock()
		if len(t.ok) >= tokenCache {
			clear(t.ok)
		}
		t.ok[string(b)] = tok
		t.mu.Unlock()
	}
	if tok.Chunk != id {
		return tok, status.Errorf(status.BadToken, "chunk %v: the token is for %v", id, tok.Chunk)
	}
	if late := time.Now().Unix() - tok.Expiry; late > tokenSlack {
		return tok, status.Errorf(status.BadToken, "chunk %v: the token expired %d s ago", id, late)
	}
	return tok, nil
}

// mayRead checks a reader's token.
func (t *tokens) mayRead(b []byte, id chunk.ID, v chunk.Version) error {
	tok, err := t.open(b, id)
	if err == nil && v > tok.Version {
		err = status.Errorf(status.BadToken, "chunk %v: version %v with a token for %v", id, v, tok.Version)
	}
	return err
}

// mayWrite checks a writer's token and returns its epoch, which a master signed.
func (t *tokens) mayWrite(m *wire.Write) (epoch uint64, err error) {
	tok, err := t.open(m.Token, m.Chunk)
	if err != nil {
		return 0, err
	}
	if !tok.Write || tok.Version != m.Version || m.Min < tok.Min {
		return 0, status.Errorf(status.BadToken, "chunk %v: write of version %v..%v with a token for %v..%v (write %t)",
			m.Chunk, m.Min, m.Version, tok.Min, tok.Version, tok.Write)
	}
	return tok.Epoch, nil
}

// own signs a token with which this server reads from another one.
func (t *tokens) own(id chunk.ID, min, v chunk.Version, epoch uint64) []byte {
	tok := wire.Token{Chunk: id, Min: min, Version: v, Epoch: epoch, Expiry: time.Now().Unix() + tokenLife}
	return tok.Sign(t.key)
}
