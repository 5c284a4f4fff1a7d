package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/fuse"
)

// helperPrefix begins the names by which mount(8) calls the program that mounts a type.
const helperPrefix = "mount."

// helperCommand is what mount(8) calls for a type (varve, mfsmount, fuse.mfsmount, ...) if
// the binary is linked to /sbin/mount.TYPE: mount.TYPE SOURCE DIR [-sfnv] [-o OPTIONS] [-t TYPE].
func helperCommand(name string) *cobra.Command {
	var a mountArgs
	var fake, ignored bool
	var kind string
	c := &cobra.Command{
		Use:     name + " HOST[:PORT]:/[SUBDIR] DIR",
		Short:   "mount the file system for mount(8) and a line of fstab",
		Long:    "Mount the file system for mount(8) and a line of /etc/fstab, and return when it is mounted.\n\nMount options:\n" + fuse.OptionsHelp(),
		Example: "  mount -t varve mfsmaster:9421:/ /mnt/varve",
		Args:    cobra.ExactArgs(2),
		Version: version,
	}
	s := addSettings(c)
	c.Flags().StringVarP(&a.options, "options", "o", "", "mount options, separated by commas")
	c.Flags().BoolVarP(&fake, "fake", "f", false, "check the arguments only")
	c.Flags().BoolVarP(&ignored, "sloppy", "s", false, "no effect")
	c.Flags().BoolVarP(&ignored, "no-mtab", "n", false, "no effect")
	c.Flags().BoolVarP(&ignored, "verbose", "v", false, "no effect")
	c.Flags().StringVarP(&kind, "types", "t", "", "no effect")
	c.Flags().BoolVar(&a.foreground, "foreground", false, "stay in the foreground")
	c.RunE = reporting(func(c *cobra.Command, args []string) error {
		if err := a.readHelper(args); err != nil {
			return err
		}
		if fake {
			_, err := fuse.ParseOptions(a.options)
			return err
		}
		return a.mountTool(c, s)
	})
	return c
}

// readHelper reads the source and the directory that mount(8) gives. The mount is named
// like its source: that is how 'mount -a' sees that a line of fstab is mounted already.
func (a *mountArgs) readHelper(args []string) error {
	name := args[0]
	a.source, a.dir = args[0], args[1]
	if err := a.readMoose("", "9421", "/"); err != nil {
		return err
	}
	a.options = strings.TrimSuffix("fsname="+name+","+a.options, ",")
	return nil
}
