package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/conf"
)

func initCommand() *cobra.Command {
	var keyFile string
	c := &cobra.Command{
		Use:   "init",
		Short: "make the cluster key that all hosts share",
		Long:  "Make the cluster key. Copy the file to every host of the cluster: whoever has it may join and mount.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := makeKey(keyFile); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "made %s; copy it to the other hosts of the cluster\n", keyFile)
			return nil
		},
	}
	c.Flags().StringVar(&keyFile, "key-file", conf.Default().Cluster.KeyFile, "where to write the key")
	return c
}

// makeKey writes a new key durably; it never overwrites one.
func makeKey(name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	key := make([]byte, keySize)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists already; a new key would lock out the hosts that have it", name)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(hex.EncodeToString(key) + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}

func sampleCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sample-config",
		Short: "print a configuration file with every setting and its default",
		Args:  cobra.NoArgs,
		Run:   func(c *cobra.Command, _ []string) { fmt.Fprint(c.OutOrStdout(), conf.Sample()) },
	}
}
