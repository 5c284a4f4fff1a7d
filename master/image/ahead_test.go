package image

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// TestAhead reads files of many lengths, in odd portions, and leaves some early.
func TestAhead(t *testing.T) {
	dir := t.TempDir()
	want := make([]byte, 6*readSize+12345)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range want {
		want[i] = byte(r.Uint32())
	}
	for _, n := range []int{0, 1, 4095, 4096, readSize - 1, readSize, readSize + 1, readAhead * readSize, len(want)} {
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, want[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := openAhead(path)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if _, err := io.CopyBuffer(&got, struct{ io.Reader }{f}, make([]byte, 77777)); err != nil || !bytes.Equal(got.Bytes(), want[:n]) {
			t.Fatalf("%d of %d bytes: %v", got.Len(), n, err)
		}
		if k, err := f.Read(make([]byte, 1)); k != 0 || err != io.EOF {
			t.Fatalf("behind the end: %d, %v", k, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		early, err := openAhead(path)
		if err != nil {
			t.Fatal(err)
		}
		early.Read(make([]byte, 5))
		if err := early.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := openAhead(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// TestTogether runs all checks and gives the first error in their order.
func TestTogether(t *testing.T) {
	a, b := errors.New("a"), errors.New("b")
	ran := make([]bool, 100)
	var checks []func() error
	for i := range ran {
		checks = append(checks, func() error {
			ran[i] = true
			switch i {
			case 40:
				return a
			case 90:
				return b
			}
			return nil
		})
	}
	if err := together(checks); err != a {
		t.Fatal(err)
	}
	for i := range ran {
		if !ran[i] {
			t.Fatalf("check %d did not run", i)
		}
	}
	if err := together(nil); err != nil {
		t.Fatal(err)
	}
}
