package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/fuse"
)

// mooseCommand gives the command for a binary that is called by the name of a
// tool of MooseFS, with that tool's arguments, or nil.
func mooseCommand(name string) *cobra.Command {
	recursive, tool := false, name
	if rest, ok := strings.CutPrefix(name, "mfsr"); ok && (rest == "setgoal" || rest == "getgoal") {
		recursive, tool = true, "mfs"+rest
	}
	var c *cobra.Command
	switch tool {
	case "mfsmount":
		return mfsmountCommand()
	case "mfssetgoal":
		c = goalSetCommand(name)
	case "mfsgetgoal":
		c = goalGetCommand(name)
	case "mfsfileinfo":
		c = fileInfoCommand()
	case "mfsdirinfo":
		c = dirInfoCommand()
	case "mfscheckfile":
		c = checkFileCommand()
	default:
		return nil
	}
	c.Use = strings.Replace(c.Use, strings.Fields(c.Use)[0], name, 1)
	c.Version = version
	if recursive {
		c.Flags().Set("recursive", "true")
	}
	return c
}

// readMoose takes mfsmaster=, mfsport= and mfssubfolder= out of the options, and makes
// the source of them and of what the arguments say, if either names a master.
func (a *mountArgs) readMoose(host, port, sub string) (err error) {
	moose, rest := fuse.SplitMooseOptions(a.options)
	if h := moose["mfsmaster"]; h != "" {
		host = h
	}
	if p := moose["mfsport"]; p != "" {
		port = p
	}
	if d := moose["mfssubfolder"]; d != "" {
		sub = d
	}
	if host != "" {
		a.source = fmt.Sprintf("%s:%s:%s", host, port, sub)
	}
	a.options = rest
	a.master, a.path, err = splitSource(a.source)
	return err
}

// mountTool mounts what the arguments say with the settings of a tool.
func (a mountArgs) mountTool(c *cobra.Command, s *settings) error {
	f, err := s.loadTool(c, a.master)
	if err != nil {
		return err
	}
	f.Mount.Options = a.options
	return mountNow(c.Context(), f, a)
}

// mfsmountCommand is mfsmount(8): [HOST[:PORT]:[PATH]] [options] MOUNTPOINT,
// also in the order in which mount.fuse(8) calls it for a line of fstab.
func mfsmountCommand() *cobra.Command {
	var a mountArgs
	var host, port, sub string
	c := &cobra.Command{
		Use:     "mfsmount [HOST[:PORT]:[PATH]] MOUNTPOINT",
		Short:   "mount the file system, with the arguments of mfsmount(8)",
		Long:    "Mount the file system, with the arguments of mfsmount(8).\n\nMount options:\n" + fuse.OptionsHelp(),
		Args:    cobra.RangeArgs(1, 2),
		Version: version,
	}
	c.Flags().SetInterspersed(true)
	s := addSettings(c)
	c.Flags().StringVarP(&host, "master", "H", "", "master's host")
	c.Flags().StringVarP(&port, "port", "P", "9421", "master's port")
	c.Flags().StringVarP(&sub, "subfolder", "S", "/", "directory of the file system to mount")
	c.Flags().StringVarP(&a.options, "option", "o", "", "mount options, separated by commas")
	c.Flags().BoolVarP(&a.foreground, "foreground", "f", false, "stay in the foreground")
	c.Flags().StringVar(&a.logFile, "log-file", "", "append messages to this file")
	c.RunE = reporting(func(c *cobra.Command, args []string) error {
		a.dir = args[len(args)-1]
		if len(args) == 2 {
			a.source = args[0]
		}
		if err := a.readMoose(host, port, sub); err != nil {
			return err
		}
		return a.mountTool(c, s)
	})
	return c
}
