package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/conf"
)

// sections are the parts of the configuration that a command shows as flags.
type settings struct {
	file  string // --config
	flags *conf.File
	parts []string
}

// addSettings gives a command the flags of the sections, and --config.
func addSettings(c *cobra.Command, parts ...string) *settings {
	s := &settings{flags: conf.Default(), parts: parts}
	c.Flags().StringVar(&s.file, "config", "", "configuration file (default "+conf.SystemFile+" where it exists)")
	for _, part := range parts {
		for _, set := range s.flags.Settings(part) {
			c.Flags().Var(set, set.Key, set.Help+" ("+set.Env()+")")
		}
	}
	return s
}

// load gives the configuration: defaults, file, environment, flags.
func (s *settings) load(c *cobra.Command) (*conf.File, error) {
	var f *conf.File
	var err error
	if s.file != "" {
		f, err = conf.Load(s.file, os.Environ())
	} else {
		f, err = conf.LoadSystem(os.Environ())
	}
	if err != nil {
		return nil, err
	}
	for _, part := range s.parts {
		for _, set := range f.Settings(part) {
			if flag := c.Flags().Lookup(set.Key); flag != nil && flag.Changed {
				if err := set.Set(flag.Value.String()); err != nil {
					return nil, fmt.Errorf("--%s: %w", set.Key, err)
				}
			}
		}
	}
	return f, nil
}

// logger writes structured lines to standard error.
func logger(level string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l}))
}

// keySize is the length of a cluster key in bytes; its file holds it in hexadecimal.
const keySize = 32

// readKey reads a cluster key file.
func readKey(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no cluster key file %s; make one with 'varve init --key-file %s' on the first host and copy it to the others", name, name)
	}
	if err != nil {
		return nil, fmt.Errorf("read the cluster key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != keySize {
		return nil, fmt.Errorf("%s is not a cluster key: want %d hexadecimal digits; copy the file from a host that works", name, 2*keySize)
	}
	return key, nil
}

// nameOr is the configured name of this host, or the one that it has.
func nameOr(configured string) (string, error) {
	if configured != "" {
		return configured, nil
	}
	return os.Hostname()
}
