package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/admin"
	"github.com/varvefs/varve/inode"
	"github.com/varvefs/varve/wire"
)

func goalCommand() *cobra.Command {
	c := &cobra.Command{Use: "goal", Short: "show and set how many copies files have"}
	c.AddCommand(goalGetCommand("get"), goalSetCommand("set"))
	return c
}

func goalGetCommand(use string) *cobra.Command {
	var recursive bool
	c := pathTool(use, "show the goal of files and directories",
		func(ctx context.Context, cl *admin.Client, path string, ino inode.Ino) error {
			r, err := cl.GetGoal(ctx, ino, recursive)
			if err != nil {
				return err
			}
			printGoals(path, r, recursive)
			return nil
		})
	c.Flags().BoolVarP(&recursive, "recursive", "r", false, "count everything below directories")
	return c
}

func printGoals(path string, r *wire.GoalReply, recursive bool) {
	if recursive {
		fmt.Printf("%s:\n", path)
	}
	for _, kind := range []struct {
		name   string
		counts map[string]uint64
	}{{"files", r.Files}, {"directories", r.Dirs}} {
		var goals []string
		for g := range kind.counts {
			goals = append(goals, g)
		}
		slices.Sort(goals)
		for _, g := range goals {
			if recursive {
				fmt.Printf(" %-11s with goal %s: %12d\n", kind.name, g, kind.counts[g])
			} else if kind.counts[g] > 0 {
				fmt.Printf("%s: %s\n", path, g)
			}
		}
	}
}

func goalSetCommand(use string) *cobra.Command {
	var recursive bool
	c := &cobra.Command{Use: use + " GOAL PATH...", Short: "set the number of copies, 1 to 9", Args: cobra.MinimumNArgs(2)}
	c.Flags().BoolVarP(&recursive, "recursive", "r", false, "set it for everything below directories")
	s := addSettings(c, "cluster")
	c.RunE = func(c *cobra.Command, args []string) error {
		goal, err := strconv.ParseUint(args[0], 10, 8)
		if err != nil || goal < inode.GoalMin || goal > inode.GoalMax {
			return fmt.Errorf("goal %q: want %d to %d", args[0], inode.GoalMin, inode.GoalMax)
		}
		cl, err := dialAdmin(c, s, args[1])
		if err != nil {
			return err
		}
		defer cl.Close()
		for _, path := range args[1:] {
			ino, err := inodeOf(c.Context(), cl, path)
			if err != nil {
				return err
			}
			r, err := cl.SetGoal(c.Context(), ino, uint8(goal), recursive)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			fmt.Printf("%s:\n inodes with goal changed:     %12d\n inodes with goal not changed: %12d\n", path, r.Changed, r.Unchanged)
		}
		return nil
	}
	return c
}
