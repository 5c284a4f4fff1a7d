//go:build race

package buffer

// poison overwrites freed buffers in race builds, so that a test which goes on using
// one fails by its contents too.
func poison(b []byte) {
	for i := range b {
		b[i] = 0xdb
	}
}
