package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/perf"
)

// perfFailoverCommand is 'varve perf failover'.
func perfFailoverCommand() *cobra.Command {
	var o perf.FailoverOptions
	var check bool
	c := &cobra.Command{
		Use:   "failover --dir DIR --record FILE [--check]",
		Short: "change names in a mounted directory while a master is killed, then look for what was acknowledged",
		Long: "Make, rename and remove files in a mounted directory, note every pause, and write what was acknowledged to a file.\n" +
			"Kill what serves the directory meanwhile. Then, on a fresh mount, --check counts the acknowledged changes that are lost.",
		Args: cobra.NoArgs,
	}
	c.Flags().StringVar(&o.Dir, "dir", "", "mounted directory to work in (required)")
	c.Flags().StringVar(&o.Record, "record", "", "file for what was acknowledged (required)")
	c.Flags().IntVar(&o.Workers, "workers", 4, "callers at the same time")
	c.Flags().IntVar(&o.Data, "data", 0, "callers that read and write a file each, past the page cache")
	c.Flags().IntVar(&o.Keep, "keep", 0, "files that a caller leaves there at most (0: all)")
	c.Flags().IntVar(&o.Sync, "sync", 0, "one change in so many is followed by a sync of the directory (0: none)")
	c.Flags().DurationVar(&o.Pace, "pace", 2*time.Millisecond, "pause of a caller between two changes")
	c.Flags().DurationVar(&o.Duration, "duration", 20*time.Second, "how long to work")
	c.Flags().BoolVar(&check, "check", false, "look for what was acknowledged")
	c.MarkFlagRequired("dir")
	c.MarkFlagRequired("record")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if !check {
			r, err := perf.Failover(c.Context(), o)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%d changes, %d errors, longest stall %.0f ms\n", r.Done, r.Failed, r.Worst(r.Begin, time.Now()))
			return nil
		}
		r, err := perf.ReadFailoverRecord(o.Record)
		if err != nil {
			return err
		}
		found, err := r.Check(o.Dir)
		if err != nil {
			return err
		}
		return json.NewEncoder(c.OutOrStdout()).Encode(found)
	}
	return c
}
