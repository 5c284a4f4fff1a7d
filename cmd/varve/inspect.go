package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/master/image"
	"github.com/varvefs/varve/master/journal"
	"github.com/varvefs/varve/master/state"
	"github.com/varvefs/varve/segment"
)

func inspectCommand() *cobra.Command {
	c := &cobra.Command{Use: "inspect", Short: "print what is in the files of a stopped daemon, changing nothing"}
	var asJSON, verify bool
	seg := &cobra.Command{
		Use:   "segment DIR",
		Short: "print the segments and frames of a chunkserver's directory",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return segment.Inspect(args[0], c.OutOrStdout(), asJSON, verify)
		},
	}
	seg.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	seg.Flags().BoolVar(&verify, "verify", false, "read all data and check its checksums")
	c.AddCommand(seg,
		&cobra.Command{
			Use:   "changelog DIR",
			Short: "print the changelog of a master's directory, a line an operation",
			Args:  cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				return journal.Dump(args[0], c.OutOrStdout(), batchText)
			},
		},
		&cobra.Command{
			Use:   "image FILE",
			Short: "print an image of the tree",
			Args:  cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				return image.Dump(c.OutOrStdout(), f)
			},
		})
	return c
}

// batchText is one entry of the changelog as text: a line for each operation.
func batchText(data []byte) string {
	entries, err := state.DecodeBatch(data)
	if err != nil {
		return "damaged: " + err.Error()
	}
	lines := make([]string, len(entries))
	for i := range entries {
		lines[i] = entries[i].String()
	}
	return strings.Join(lines, "\n")
}
