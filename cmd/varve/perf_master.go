package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/conf"
	"github.com/varvefs/varve/perf"
)

// perfMasterCommand is 'varve perf master'.
func perfMasterCommand() *cobra.Command {
	o := perf.MasterOptions{}
	tail := conf.Size(256 << 20)
	var asJSON bool
	c := &cobra.Command{
		Use:   "master --dir DIR",
		Short: "masters on loopback: memory, restart and image of a large tree, throughput with one voter and with three",
		Long: "Make the changelog of a tree of one-chunk files in DIR, or take the one of the last run, and measure a master that has it:\n" +
			"memory a file, restart, and what clients notice while an image is written. Then load small masters, in turn one alone and one\n" +
			"of three, and measure how far the standbys are behind. Ten million files take 2 GB of memory and 6 GB of disk.",
		Args: cobra.NoArgs,
	}
	c.Flags().StringVar(&o.Dir, "dir", "", "directory to work in; made when it does not exist (required)")
	c.Flags().IntVar(&o.Files, "files", 1_000_000, "one-chunk files in the tree; 0: measure throughput only")
	c.Flags().IntVar(&o.Clients, "clients", 32, "connections under load")
	c.Flags().DurationVar(&o.Duration, "duration", 5*time.Second, "time of each load")
	c.Flags().Var(sizeFlag{&tail}, "tail", "bytes of changelog behind the image that a restart reads")
	c.Flags().BoolVar(&o.Shared, "shared", false, "give clients, leader and the other voters no processors of their own")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.MarkFlagRequired("dir")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		if o.Files < 0 || o.Clients < 1 || o.Duration <= 0 {
			return fmt.Errorf("--files wants 0 or more, --clients and --duration more than 0")
		}
		if err := os.MkdirAll(o.Dir, 0o755); err != nil {
			return err
		}
		if o.Program, err = os.Executable(); err != nil {
			return err
		}
		o.Tail = int64(tail)
		o.Progress = func(s string) { fmt.Fprintln(c.ErrOrStderr(), s) }
		r, err := perf.Master(c.Context(), o)
		if err != nil {
			return err
		}
		if asJSON {
			return r.JSON(c.OutOrStdout())
		}
		return r.Table(c.OutOrStdout())
	}
	return c
}
