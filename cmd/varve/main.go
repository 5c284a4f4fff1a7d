// Command varve is the whole of Varve: every daemon and every tool is a
// subcommand, a link to it called mfsmount, mfssetgoal, ... behaves as that
// tool of MooseFS, and one called mount.TYPE as mount(8) wants it. This package only reads settings and wires rooms together.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := rootFor(filepath.Base(os.Args[0])).ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "varve:", err)
		os.Exit(1)
	}
}

// rootFor gives the command for the name that the binary was called by.
func rootFor(name string) *cobra.Command {
	c := mooseCommand(name)
	if strings.HasPrefix(name, helperPrefix) {
		c = helperCommand(name)
	}
	if c != nil {
		c.SilenceUsage, c.SilenceErrors = true, true
		return c
	}
	return root()
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "varve",
		Short:         "a distributed POSIX file system",
		Long:          "Varve is a distributed POSIX file system: one binary for every role.\n\nTry it: varve up --dir /var/tmp/varve --mount /mnt/varve",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; see '%s --help'", err, c.CommandPath())
	})
	c.AddGroup(
		&cobra.Group{ID: "run", Title: "Run a cluster:"},
		&cobra.Group{ID: "ask", Title: "Ask and order:"},
		&cobra.Group{ID: "look", Title: "Look inside and measure:"},
	)
	group(c, "run", upCommand(), initCommand(), masterCommand(), metaloggerCommand(), chunkdCommand(), mountCommand())
	group(c, "ask", statusCommand(), serverCommand(), goalCommand(), fileInfoCommand(), dirInfoCommand(), checkFileCommand())
	group(c, "look", inspectCommand(), perfCommand(), sampleCommand())
	return c
}

func group(parent *cobra.Command, id string, children ...*cobra.Command) {
	for _, c := range children {
		c.GroupID = id
		parent.AddCommand(c)
	}
}
