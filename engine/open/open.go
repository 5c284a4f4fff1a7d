// Package open picks the engine's backend for a directory or a device: io_uring where it is built in,
// allowed and passes its self-test, pread and pwrite elsewhere. Whoever wires a program
// calls it; it has no state.
package open

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/host"
	"github.com/varvefs/varve/engine/posix"
	"github.com/varvefs/varve/engine/raw"
	"github.com/varvefs/varve/engine/uring"
)

// The backends to ask for.
const (
	Auto  = "auto"  // uring, or posix with a line in the log
	URing = "uring" // uring or an error
	POSIX = "posix"
)

var ( // replaced by tests
	onRing   = uring.On
	fileRing = uring.OnFile
)

// Open opens an existing directory, or a block device (or a regular file in its place),
// with a backend; "" is Auto. A nil log is slog's default. A device that is neither empty
// nor ours is refused.
func Open(path, backend string, log *slog.Logger) (engine.Disk, error) {
	if log == nil {
		log = slog.Default()
	}
	switch backend {
	case "", Auto, URing, POSIX:
	default:
		return nil, fmt.Errorf("backend %q: want %s, %s or %s", backend, Auto, URing, POSIX)
	}
	device, err := IsDevice(path)
	if err != nil {
		return nil, err
	}
	if device {
		return openDevice(path, backend, log)
	}
	hd, err := host.OpenDir(path, log)
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
	if err := refused(path, backend, err, log); err != nil {
		hd.Close()
		return nil, err
	}
	return posix.On(hd), nil
}

// IsDevice tells whether a path is for package raw: a block device or a regular file.
func IsDevice(path string) (bool, error) {
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	t := info.Mode().Type()
	return t == 0 || t&fs.ModeDevice != 0 && t&fs.ModeCharDevice == 0, nil
}

// refused is told why there is no ring: an error if one was asked for, else a line in the log.
func refused(path, backend string, err error, log *slog.Logger) error {
	if backend == URing {
		return fmt.Errorf("open %s with io_uring: %w", path, err)
	}
	level := slog.LevelWarn
	if errors.Is(err, uring.ErrNotBuilt) {
		level = slog.LevelInfo
	}
	log.Log(context.Background(), level, "no io_uring, using pread and pwrite", "dir", path, "err", err)
	return nil
}

func openDevice(path, backend string, log *slog.Logger) (engine.Disk, error) {
	hf, err := host.OpenDevice(path, log)
	if err != nil {
		return nil, err
	}
	var f engine.File
	by := POSIX
	if backend != POSIX {
		if f, err = fileRing(hf); err == nil {
			by = URing
		} else if err = refused(path, backend, err, log); err != nil {
			return nil, errors.Join(err, hf.Close())
		}
	}
	if by == POSIX {
		f = posix.OnFile(hf)
	}
	d, err := raw.Open(raw.Config{Device: f, Backend: by})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}
