package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/master"
	"github.com/varvefs/varve/master/journal"
)

const recoverHelp = `Make DIR, of a master or a metalogger or a backup of one, that of a single master. It is for the day on which the majority
of the voters is lost for good. Changes that the lost ones acknowledged without this one are lost with them.

  1. Stop all masters and metaloggers that still run. The old voters must never run again on their old directories.
  2. Choose the directory that has most: compare the last lines of 'varve inspect changelog DIR', first the term of the last
     entry, then its index.
  3. If it is a metalogger's or a backup, copy it to where the master will look for it, and keep the original as it is:
       cp -a /var/lib/varve/metalogger /var/lib/varve/master
     It must belong to the user that the master runs as (master.user).
  4. Without --yes this command says what DIR holds and what would be given up, and changes nothing. Then run it with --yes.
  5. Set voters = [] in [cluster] of varve.toml on that host, and start the master there. It takes its number from DIR. If
     chunkservers have seen a later epoch than the new one, 'varve status' says so; stop the master and recover once
     more, with --epoch.
  6. To have three voters again: choose numbers that no voter has had for the two others. Set voters on all three hosts, with the
     number that this command has printed for this one, and start this master again. Start each of the others on an empty
     directory and 'varve master add NUMBER HOST:9419' it.

If it is interrupted, say it again.`

// recoverCommand is 'varve master recover'.
func recoverCommand() *cobra.Command {
	var dir string
	var id, epoch uint64
	var yes bool
	c := &cobra.Command{
		Use:     "recover --dir DIR",
		Short:   "make a single master of what one voter has, when the majority is lost for good",
		Long:    recoverHelp,
		Example: "  varve master recover --dir /var/lib/varve/master\n  varve master recover --dir /var/lib/varve/master --yes",
		Args:    cobra.NoArgs,
	}
	c.Flags().StringVar(&dir, "dir", "", "directory of the master or metalogger (required)")
	c.Flags().Uint64Var(&id, "id", 0, "number that the master will have, one that no voter has had (0: the one that the directory has)")
	c.Flags().Uint64Var(&epoch, "epoch", 0, "an epoch that chunkservers have seen: the new one will be above it (0: far above the directory's own)")
	c.Flags().BoolVar(&yes, "yes", false, "do it; without, only say what it means")
	c.MarkFlagRequired("dir")
	c.RunE = func(c *cobra.Command, _ []string) error {
		out, log := c.OutOrStdout(), logger("warn")
		if !yes {
			s, err := master.Survey(dir, id, epoch, log)
			if err != nil {
				return err
			}
			recoverText(out, dir, s, false)
			return errors.New("nothing was changed. It gives up what only the other voters have; read 'varve master recover --help' and say --yes")
		}
		s, err := master.Recover(dir, id, epoch, log)
		if err != nil {
			return err
		}
		recoverText(out, dir, s, true)
		return nil
	}
	return c
}

// recoverText says what a directory holds and what becomes, or became, of it.
func recoverText(w io.Writer, dir string, s *master.Recovery, done bool) {
	number := "of a voter without a number"
	if s.Number != 0 {
		number = fmt.Sprintf("of voter %d", s.Number)
	}
	fmt.Fprintf(w, "directory:  %s, %s\n", dir, number)
	fmt.Fprintf(w, "voters:     %s\n", votersText(&s.Members, s.Number))
	fmt.Fprintf(w, "last entry: index %d of epoch %d; index %d is the last that is known here to have been committed\n", s.Last, s.LastTerm, s.Committed)
	fmt.Fprintf(w, "last image: index %d of epoch %d; the changelog has what came after it\n", s.Image.Index, s.Image.Term)
	kept, lost, follows := "would be kept", "would be lost", "would follow"
	if done {
		kept, lost, follows = "kept", "lost", "follows"
	}
	fmt.Fprintf(w, "%s: everything up to index %d\n", kept, s.Last)
	fmt.Fprintf(w, "%s: whatever %s acknowledged behind it\n", lost, othersText(&s.Members, s.Number))
	fmt.Fprintf(w, "epoch %d %s %d: chunkservers obey it, and refuse the old masters\n", s.NewTerm, follows, s.Term)
	if done {
		fmt.Fprintf(w, "%s is now that of a single master, number %d\n", dir, s.ID)
		fmt.Fprintf(w, "next: set voters = [] in [cluster] of varve.toml, start 'varve master' on it, then add other voters on empty directories, under new numbers\n")
		return
	}
	fmt.Fprintf(w, "it would be that of a single master, number %d\n", s.ID)
}

// votersText lists the members, own among them.
func votersText(m *journal.Members, own uint64) string {
	var list []string
	for _, k := range m.List {
		text := fmt.Sprint(k.ID)
		if k.Addr != "" {
			text += " at " + k.Addr
		}
		if k.Learner {
			text += ", which did not vote yet"
		}
		if k.ID == own {
			text += " (this one)"
		}
		list = append(list, text)
	}
	if len(list) == 0 {
		return "none are known"
	}
	return strings.Join(list, "; ")
}

// othersText names the members but own.
func othersText(m *journal.Members, own uint64) string {
	var list []string
	for _, k := range m.List {
		if k.ID != own && !k.Learner {
			list = append(list, fmt.Sprint(k.ID))
		}
	}
	switch len(list) {
	case 0:
		return "others may have"
	case 1:
		return "voter " + list[0]
	}
	return "voters " + strings.Join(list[:len(list)-1], ", ") + " and " + list[len(list)-1]
}
