package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/admin"
	"github.com/varvefs/varve/master"
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

// recoverCommand is 'varve master recover'.
func recoverCommand() *cobra.Command {
	var dir string
	var id uint64
	var yes bool
	c := &cobra.Command{
		Use:   "recover --dir DIR",
		Short: "make a single master of what one voter has, when the majority is lost for good",
		Long: "Make DIR, of a master or a metalogger, that of a single master. It is for the day on which the majority of the voters is\n" +
			"lost for good. Changes that the lost ones acknowledged without this one are lost with them. The old voters must never\n" +
			"run again on their old directories. Nothing may run on DIR.",
		Args: cobra.NoArgs,
	}
	c.Flags().StringVar(&dir, "dir", "", "directory of the master or metalogger (required)")
	c.Flags().Uint64Var(&id, "id", 1, "number that the master will have")
	c.Flags().BoolVar(&yes, "yes", false, "do it; without, only say what it means")
	c.MarkFlagRequired("dir")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if !yes {
			return fmt.Errorf("this gives up what only the other voters have; read 'varve master recover --help' and say --yes")
		}
		s, err := master.Recover(dir, id, logger("warn"))
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		fmt.Fprintf(out, "kept: everything up to entry %d of epoch %d; entry %d is the last that is known to have been committed\n", s.Last, s.LastTerm, s.Committed)
		fmt.Fprintf(out, "lost: whatever the other %d voters acknowledged behind entry %d\n", max(len(s.Members.List)-1, 0), s.Last)
		fmt.Fprintf(out, "epoch %d follows %d: chunkservers obey it, and refuse the old masters\n", s.NewTerm, s.Term)
		fmt.Fprintf(out, "next: empty cluster.voters, start 'varve master --dir %s', then add other voters on empty directories\n", dir)
		return nil
	}
	return c
}
