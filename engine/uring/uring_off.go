//go:build !giouring

package uring

import (
	"errors"
	"log/slog"

	"github.com/varvefs/varve/engine"
	"github.com/varvefs/varve/engine/host"
)

// ErrNotBuilt says that the program was built without io_uring.
var ErrNotBuilt = errors.New("built without io_uring (needs -tags giouring -ldflags=-checklinkname=0)")

// Open returns ErrNotBuilt.
func Open(string, *slog.Logger) (engine.Disk, error) { return nil, ErrNotBuilt }

// On returns ErrNotBuilt and leaves the directory open.
func On(*host.Dir) (engine.Disk, error) { return nil, ErrNotBuilt }

// OnFile reports ErrNotBuilt.
func OnFile(*host.File) (engine.File, error) { return nil, ErrNotBuilt }
