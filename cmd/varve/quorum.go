package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// handoverCommand is 'varve master handover'.
func handoverCommand() *cobra.Command {
	var to uint64
	c := &cobra.Command{
		Use:   "handover",
		Short: "make the leading master hand over to a standby",
		Long:  "Make the leading master hand over to a standby, before its host is taken down for example.\nMounts and chunkservers go over by themselves; nothing is lost.",
		Args:  cobra.NoArgs,
	}
	c.Flags().Uint64Var(&to, "to", 0, "number of the voter that should lead (0: the standby that has most of the changelog)")
	s := addSettings(c, "cluster")
	c.RunE = func(c *cobra.Command, _ []string) error {
		f, err := s.loadTool(c, "")
		if err != nil {
			return err
		}
		key, err := readKey(f.Cluster.KeyFile)
		if err != nil {
			return err
		}
		cl, err := dialAdmin(c, s, "")
		if err != nil {
			return err
		}
		defer cl.Close()
		ctx, cancel := context.WithTimeout(c.Context(), 10*time.Second)
		defer cancel()
		r, took, err := cl.Handover(ctx, to, key)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s (%s) leads, after %v\n", r.Name, r.Addr, took.Round(time.Millisecond))
		return nil
	}
	return c
}
