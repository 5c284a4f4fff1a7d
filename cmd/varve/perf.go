package main

import (
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
	c.MarkFlagRequired("dir")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if f.size < 16<<20 || f.duration <= 0 || f.files < 1 {
			return fmt.Errorf("--size wants at least 16MiB, --duration and --files more than 0")
		}
		f.size -= f.size % (1 << 20)
		if err := os.MkdirAll(f.dir, 0o755); err != nil {
			return err
		}
		r, err := run(c, f, perf.Options{Dir: f.dir, Size: int64(f.size), Duration: f.duration, Fio: !f.noFio})
		if err != nil {
			return err
		}
		if f.asJSON {
			return r.JSON(c.OutOrStdout())
		}
		return r.Table(c.OutOrStdout())
	}
	return c
}

// sizeFlag makes a conf.Size a flag.
type sizeFlag struct{ *conf.Size }

func (s sizeFlag) Set(text string) error { return s.UnmarshalText([]byte(text)) }
func (s sizeFlag) Type() string          { return "size" }
