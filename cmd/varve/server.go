package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// serverCommand is 'varve server'.
func serverCommand() *cobra.Command {
	c := &cobra.Command{Use: "server", Short: "orders about chunkservers"}
	c.AddCommand(forgetCommand())
	return c
}

func forgetCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "forget ID|HOST:PORT",
		Short: "forget a chunkserver that will not come back",
		Long: "Forget a chunkserver that will not come back: it is no longer reported as missing, and nobody waits for it.\n" +
			"It must not be connected. It is refused while the server may have the only copies of chunks. A forgotten server\n" +
			"that is started again is taken in, with what it has.",
		Example: "  varve server forget 192.0.2.7:9422",
		Args:    cobra.ExactArgs(1),
	}
	c.Flags().BoolVar(&force, "force", false, "forget it even when it may have the only copies of chunks")
	s := addSettings(c, "cluster")
	c.RunE = func(c *cobra.Command, args []string) error {
		cl, err := dialAdmin(c, s, "")
		if err != nil {
			return err
		}
		defer cl.Close()
		r, err := cl.ForgetServer(c.Context(), args[0], force)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "chunkserver %s (%s) is forgotten\n", r.ID, r.Addr)
		if r.Lost > 0 {
			fmt.Fprintf(c.OutOrStdout(), "%d chunks have no copy that is known\n", r.Lost)
		}
		return nil
	}
	return c
}
