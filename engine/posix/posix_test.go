package posix_test

import (
	"testing"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/enginetest"
	"github.com/varvefs/varve/engine/posix"
)

type place string

func (p place) Open(t testing.TB) engine.Disk {
	d, err := posix.Open(string(p), nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func fresh(t testing.TB) enginetest.Place { return place(t.TempDir()) }

func TestSuite(t *testing.T)      { enginetest.Run(t, fresh) }
func BenchmarkPosix(b *testing.B) { enginetest.Bench(b, fresh) }
