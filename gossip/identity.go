package gossip

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// identityFile is in a role's directory and holds its node's identity.
const identityFile = "node.id"

// Identity gives the persistent name of the node whose state is in dir, and
// makes one the first time: the role and 16 random hexadecimal digits.
func Identity(dir, role string) (string, error) {
	name := filepath.Join(dir, identityFile)
	b, err := os.ReadFile(name)
	if err == nil {
		if id := strings.TrimSpace(string(b)); id != "" && len(id) <= 128 {
			return id, nil
		}
		return "", fmt.Errorf("%s does not hold a node's identity; remove it to get a new one", name)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	random := make([]byte, 8)
	rand.Read(random)
	id := role + "-" + hex.EncodeToString(random)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(id + "\n")
	return id, errors.Join(err, f.Sync(), f.Close())
}
