package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/admin"
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

// addCommand is 'varve master add', removeCommand 'varve master remove'.
func addCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "add NUMBER HOST:PORT",
		Short:   "add a master or metalogger to the voters",
		Long:    "Add a master or metalogger to the voters. It must run, on an empty directory, with a number that no voter has had,\nand name the others in cluster.voters. It gets the changelog first and votes then.",
		Example: "  varve master add 4 192.0.2.4:9419",
		Args:    cobra.ExactArgs(2),
	}
	return changeVoters(c, func(ctx context.Context, cl *admin.Client, id uint64, args []string) (string, error) {
		return "voter %d is a member; add it to cluster.voters on all hosts\n", cl.AddVoter(ctx, id, args[0])
	})
}

func removeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "remove NUMBER",
		Short: "remove a master or metalogger from the voters",
		Long:  "Remove a master or metalogger from the voters, one that is lost for example. Its number is not to be used again.",
		Args:  cobra.ExactArgs(1),
	}
	return changeVoters(c, func(ctx context.Context, cl *admin.Client, id uint64, _ []string) (string, error) {
		return "voter %d is no member any more; take it out of cluster.voters on all hosts\n", cl.RemoveVoter(ctx, id)
	})
}

// changeVoters gives c its run: change does the work for the voter with the
// number in the first argument, and returns what to say then.
func changeVoters(c *cobra.Command, change func(ctx context.Context, cl *admin.Client, id uint64, rest []string) (string, error)) *cobra.Command {
	s := addSettings(c, "cluster")
	c.RunE = func(c *cobra.Command, args []string) error {
		id, err := strconv.ParseUint(args[0], 10, 32)
		if err != nil {
			return fmt.Errorf("voter %q: it must be a number", args[0])
		}
		cl, err := dialAdmin(c, s, "")
		if err != nil {
			return err
		}
		defer cl.Close()
		said, err := change(c.Context(), cl, id, args[1:])
		if err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), said, id)
		return nil
	}
	return c
}
