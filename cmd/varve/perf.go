package main

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/conf"
	"github.com/varvefs/varve/engine/open"
	"github.com/varvefs/varve/perf"
)

// perfFlags are what all workloads share.
type perfFlags struct {
	dir      string
	size     conf.Size
	duration time.Duration
	asJSON   bool
	noFio    bool
	backend  string
	files    int
	rounds   int
	extents  int
	svg      string
}

func perfCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "perf",
		Short: "measure the engine, a segment store or a mounted directory",
		Long:  "Run a bounded workload and print a table. Nothing else should run on the machine meanwhile.",
	}
	c.AddCommand(
		perfWorkload("engine", "disk operations, beside fio with the same flags on the same file", func(c *cobra.Command, f *perfFlags, o perf.Options) (*perf.Report, error) {
			disk, err := open.Open(f.dir, f.backend, logger("warn"))
			if err != nil {
				return nil, err
			}
			defer disk.Close()
			return perf.Engine(c.Context(), disk, o)
		}),
		perfWorkload("segment", "a segment store in an empty directory", func(c *cobra.Command, f *perfFlags, o perf.Options) (*perf.Report, error) {
			return perf.Segment(c.Context(), f.backend, o)
		}),
		perfWorkload("recovery", "the time to open a segment store, by its size", func(c *cobra.Command, f *perfFlags, o perf.Options) (*perf.Report, error) {
			return perf.Recovery(c.Context(), f.backend, o)
		}),
		perfWorkload("stalls", "the longest writes of a segment store that cleans and scrubs, beside fio", func(c *cobra.Command, f *perfFlags, o perf.Options) (*perf.Report, error) {
			return perf.Stalls(c.Context(), f.backend, o)
		}),
		perfWorkload("cleaning", "what a segment store writes for each byte, in memory", func(c *cobra.Command, f *perfFlags, o perf.Options) (*perf.Report, error) {
			return perf.Cleaning(c.Context())
		}),
		perfWorkload("memory", "what the index of a segment store takes, and costs the garbage collector", func(c *cobra.Command, f *perfFlags, o perf.Options) (*perf.Report, error) {
			return perf.Footprint(c.Context(), o, f.extents)
		}),
		perfWorkload("fs", "data through system calls in a mounted directory", func(c *cobra.Command, f *perfFlags, o perf.Options) (*perf.Report, error) {
			return perf.FS(c.Context(), o)
		}),
		perfWorkload("meta", "names and attributes through system calls in a mounted directory", func(c *cobra.Command, f *perfFlags, o perf.Options) (*perf.Report, error) {
			return perf.Meta(c.Context(), o, f.files)
		}),
		perfMasterCommand(), perfFailoverCommand())
	return c
}

func perfWorkload(name, short string, run func(*cobra.Command, *perfFlags, perf.Options) (*perf.Report, error)) *cobra.Command {
	f := &perfFlags{size: 1 << 30}
	c := &cobra.Command{Use: name + " --dir DIR", Short: short, Args: cobra.NoArgs}
	c.Flags().StringVar(&f.dir, "dir", "", "directory to work in; made when it does not exist (required)")
	c.Flags().Var(sizeFlag{&f.size}, "size", "bytes of the test file")
	c.Flags().DurationVar(&f.duration, "duration", 5*time.Second, "time of each row")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&f.noFio, "no-fio", false, "do not measure fio beside")
	c.Flags().StringVar(&f.backend, "backend", "auto", "how the disk is driven: auto, uring or posix")
	c.Flags().IntVar(&f.files, "files", 3000, "files to make in 'meta'")
	c.Flags().IntVar(&f.rounds, "rounds", 1, "how often each row of 'engine' and 'segment' is measured, in turn with fio; the medians count")
	c.Flags().IntVar(&f.extents, "extents", 50e6, "extents whose garbage collection 'memory' measures; each takes 20 bytes of memory")
	c.Flags().StringVar(&f.svg, "svg", "", "draw the rows of 'recovery', 'stalls' or 'cleaning' into this file")
	c.MarkFlagRequired("dir")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if f.size < 16<<20 || f.duration <= 0 || f.files < 1 || f.rounds < 1 || f.extents < 1 {
			return fmt.Errorf("--size wants at least 16MiB, --duration, --files, --rounds and --extents more than 0")
		}
		f.size -= f.size % (1 << 20)
		if err := os.MkdirAll(f.dir, 0o755); err != nil {
			return err
		}
		r, err := run(c, f, perf.Options{Dir: f.dir, Size: int64(f.size), Duration: f.duration, Fio: !f.noFio, Rounds: f.rounds})
		if err != nil {
			return err
		}
		if f.svg != "" {
			if err := draw(r, f.svg); err != nil {
				return err
			}
		}
		if f.asJSON {
			return r.JSON(c.OutOrStdout())
		}
		return r.Table(c.OutOrStdout())
	}
	return c
}

// draw writes the plot of a report to a file.
func draw(r *perf.Report, name string) error {
	var b bytes.Buffer
	if err := r.SVG(&b); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o644)
}

// sizeFlag makes a conf.Size a flag.
type sizeFlag struct{ *conf.Size }

func (s sizeFlag) Set(text string) error { return s.UnmarshalText([]byte(text)) }
func (s sizeFlag) Type() string          { return "size" }
