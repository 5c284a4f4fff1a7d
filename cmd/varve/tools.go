package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/admin"
	"github.com/varvefs/varve/fuse"
	"github.com/varvefs/varve/inode"
)

// dialAdmin connects a tool to the cluster that its settings name, or to the one
// on whose mount path (may be "") lies.
func dialAdmin(c *cobra.Command, s *settings, path string) (*admin.Client, error) {
	master := ""
	if path != "" && !strings.HasPrefix(path, "varve:") {
		masters, err := fuse.MastersOf(path)
		if err != nil {
			return nil, err
		}
		master, _, _ = strings.Cut(masters, ",")
	}
	f, err := s.loadTool(c, master)
	if err != nil {
		return nil, err
	}
	key, err := readKey(f.Cluster.KeyFile)
	if err != nil {
		return nil, err
	}
	cl, err := admin.Dial(c.Context(), f.Cluster.Masters, key)
	if err == nil {
		cl.Waiting = func() func() { return showProgress("waiting for the master", nil) }
	}
	return cl, err
}

// inodeOf gives the inode of a path on a mount. Paths that begin with
// "varve:" name the file system's own path, for when it is not mounted here.
func inodeOf(ctx context.Context, cl *admin.Client, path string) (inode.Ino, error) {
	if inner, ok := strings.CutPrefix(path, "varve:"); ok {
		return cl.Path(ctx, inner)
	}
	st, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return 0, err
	}
	if ok, err := fuse.IsVarve(abs); err != nil || !ok {
		return 0, fmt.Errorf("%s is not on a Varve mount; give a path below a mount, or varve:/PATH", path)
	}
	return inode.Ino(st.Sys().(*syscall.Stat_t).Ino), nil
}

// pathTool is a command that does something for each path of its arguments.
func pathTool(use, short string, each func(ctx context.Context, cl *admin.Client, path string, ino inode.Ino) error) *cobra.Command {
	c := &cobra.Command{Use: use + " PATH...", Short: short, Args: cobra.MinimumNArgs(1)}
	s := addSettings(c, "cluster")
	c.RunE = func(c *cobra.Command, paths []string) error {
		cl, err := dialAdmin(c, s, paths[0])
		if err != nil {
			return err
		}
		defer cl.Close()
		for _, path := range paths {
			ino, err := inodeOf(c.Context(), cl, path)
			if err == nil {
				err = each(c.Context(), cl, path, ino)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
		return nil
	}
	return c
}

func fileInfoCommand() *cobra.Command {
	return pathTool("fileinfo", "show where the chunks of files are",
		func(ctx context.Context, cl *admin.Client, path string, ino inode.Ino) error {
			info, err := cl.FileInfo(ctx, ino)
			if err != nil {
				return err
			}
			fmt.Printf("%s: %d bytes, goal %d\n", path, info.Size, info.Goal)
			for _, ch := range info.Chunks {
				leased := ""
				if ch.Leased {
					leased = ", open for writing"
				}
				fmt.Printf("  chunk %d: %s version %d%s\n", ch.Index, ch.ID, ch.Version, leased)
				for i, k := range ch.Copies {
					fmt.Printf("    copy %d: %s on %s (%s)\n", i+1, k.State, k.Addr, k.Server)
				}
				if len(ch.Copies) == 0 {
					fmt.Println("    no copy")
				}
			}
			return nil
		})
}

func dirInfoCommand() *cobra.Command {
	return pathTool("dirinfo", "show what is below directories, from counters",
		func(ctx context.Context, cl *admin.Client, path string, ino inode.Ino) error {
			d, err := cl.DirInfo(ctx, ino)
			if err != nil {
				return err
			}
			fmt.Printf("%s:\n", path)
			for _, row := range []struct {
				name  string
				value uint64
			}{
				{"inodes", d.Inodes}, {"directories", d.Dirs}, {"files", d.Files}, {"symlinks", d.Links},
				{"others", d.Others}, {"chunks", d.Chunks}, {"length", d.Length}, {"size", d.Size}, {"realsize", d.Real},
			} {
				fmt.Printf(" %-12s %16d\n", row.name+":", row.value)
			}
			return nil
		})
}

func checkFileCommand() *cobra.Command {
	return pathTool("checkfile", "count the valid copies of the chunks of files",
		func(ctx context.Context, cl *admin.Client, path string, ino inode.Ino) error {
			k, err := cl.CheckFile(ctx, ino)
			if err != nil {
				return err
			}
			fmt.Printf("%s:\n", path)
			for copies, n := range k.Copies {
				if n > 0 {
					fmt.Printf(" chunks with %d copies: %12d\n", copies, n)
				}
			}
			return nil
		})
}
