package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/chunk"
	"github.com/varvefs/varve/master"
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
		Short: "print the segments and frames of a chunkserver's directory or device",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return segment.Inspect(args[0], c.OutOrStdout(), asJSON, verify)
		},
	}
	seg.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	seg.Flags().BoolVar(&verify, "verify", false, "read all data and check its checksums")
	var one string
	index := &cobra.Command{
		Use:   "index DIR",
		Short: "print which bytes of which chunk lie where in a chunkserver's directory or device",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var id uint64
			if one != "" {
				var err error
				if id, err = strconv.ParseUint(one, 16, 64); err != nil || id == 0 {
					return fmt.Errorf("--chunk %s: write the chunk's number in hexadecimal, as 'varve fileinfo' prints it", one)
				}
			}
			return segment.InspectIndex(args[0], c.OutOrStdout(), asJSON, chunk.ID(id))
		},
	}
	index.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	index.Flags().StringVar(&one, "chunk", "", "print this chunk only")
	c.AddCommand(seg, index,
		&cobra.Command{
			Use:   "changelog DIR",
			Short: "print the changelog of a master's or metalogger's directory, a line an operation",
			Long: "Print the changelog in DIR, a line an operation. DIR is a master's or metalogger's directory, or the directory log in it.\n" +
				"The last line says how far it goes. Of two voters' logs the one whose last entry has the higher term has more,\n" +
				"and with the same term the one with the higher index.",
			Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				return journal.Dump(master.LogDir(args[0]), c.OutOrStdout(), batchText)
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
