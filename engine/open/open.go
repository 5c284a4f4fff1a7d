// Package open picks the engine's backend for a directory: io_uring where it is built in,
// allowed and passes its self-test, pread and pwrite elsewhere. Whoever wires a program
// calls it; it has no state.
package open

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/host"
	"github.com/varvefs/varve/engine/posix"
	"github.com/varvefs/varve/engine/uring"
)

// The backends to ask for.
const (
	Auto  = "auto"  // uring, or posix with a line in the log
	URing = "uring" // uring or an error
	POSIX = "posix"
)

var onRing = uring.On // replaced by tests

// Open opens an existing directory with a backend; "" is Auto. A nil log is slog's default.
func Open(dir, backend string, log *slog.Logger) (engine.Disk, error) {
	if log == nil {
		log = slog.Default()
	}
	switch backend {
	case "", Auto, URing, POSIX:
	default:
		return nil, fmt.Errorf("backend %q: want %s, %s or %s", backend, Auto, URing, POSIX)
	}
	hd, err := host.OpenDir(dir, log)
	if err != nil {
		return nil, err
	}
	if backend == POSIX {
		return posix.On(hd), nil
	}
	d, err := onRing(hd)
	if err == nil {
		return d, nil
	}
	if backend == URing {
		hd.Close()
		return nil, fmt.Errorf("open %s with io_uring: %w", dir, err)
	}
	level := slog.LevelWarn
	if errors.Is(err, uring.ErrNotBuilt) {
		level = slog.LevelInfo
	}
	log.Log(context.Background(), level, "no io_uring, using pread and pwrite", "dir", dir, "err", err)
	return posix.On(hd), nil
}
