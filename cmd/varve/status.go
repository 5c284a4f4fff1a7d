package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/varvefs/varve/wire"
)

func statusCommand() *cobra.Command {
	var asJSON, leader bool
	c := &cobra.Command{Use: "status", Short: "show the cluster: masters, servers, disks, chunks, mounts", Args: cobra.NoArgs}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&leader, "leader", false, "print only the process number of the master that leads")
	s := addSettings(c, "cluster")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cl, err := dialAdmin(c, s, "")
		if err != nil {
			return err
		}
		defer cl.Close()
		st, err := cl.Status(c.Context())
		if err != nil {
			return err
		}
		if leader {
			for _, m := range st.Masters {
				if m.Role == "leader" {
					fmt.Fprintln(c.OutOrStdout(), m.Pid)
					return nil
				}
			}
			return errors.New("no master leads")
		}
		if asJSON {
			enc := json.NewEncoder(c.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(st)
		}
		printStatus(c.OutOrStdout(), st)
		return nil
	}
	return c
}

func printStatus(out io.Writer, st *wire.Status) {
	fmt.Fprintf(out, "cluster %s, %s\n", cmp.Or(st.Cluster, "not begun yet"), time.Unix(0, st.Time).Format(time.DateTime))
	for _, p := range st.Problems {
		fmt.Fprintf(out, "PROBLEM: %s\n", p)
	}
	printMasters(out, st)
	printServers(out, st)
	w := table(out)
	fmt.Fprintln(w, "\nMOUNT\tHOST\tPATH\tSTATE\tOPEN\tOPS\tVERSION")
	for _, m := range st.Mounts {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\n", m.Mount, m.Host, m.Path, m.State, m.Open, m.Ops, cmp.Or(m.Version, "-"))
	}
	w.Flush()
	k := st.Chunks
	fmt.Fprintf(out, "\nspace   %s of %s used, %s free\n", bytesText(st.Space.Used), bytesText(st.Space.Total), bytesText(st.Space.Free))
	fmt.Fprintf(out, "inodes  %d: %d files, %d directories, %d open but removed\n", st.Inodes.Total, st.Inodes.Files, st.Inodes.Dirs, st.Inodes.Orphans)
	fmt.Fprintf(out, "chunks  %d in %d copies: %d under goal, %d over goal, %d missing, %d open for writing, %d being copied\n", k.Total, k.Copies, k.UnderGoal, k.OverGoal, k.Missing, k.Leased, k.Replicating)
	fmt.Fprint(out, matrixText(k.Matrix))
}

// table is a writer of aligned columns; all rows between its head and Flush must
// have the same number of cells, or what comes after a shorter one stands elsewhere.
func table(out io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(out, 0, 0, 2, ' ', 0) }

// printMasters shows the voters, and how the leader came to lead.
func printMasters(out io.Writer, st *wire.Status) {
	w := table(out)
	fmt.Fprintln(w, "\nMASTER\tROLE\tADDRESS\tPID\tEPOCH\tAPPLIED\tCOMMITTED\tLAG\tLEASE\tVIP\tMEMORY\tBUSY\tVERSION")
	for _, m := range st.Masters {
		role, addr, lease, vip, lag := m.Role, m.Addr, m.Lease, "-", "-"
		if m.Down {
			role += " (down)"
		}
		if addr == "" {
			addr = m.Raft
		}
		switch m.Lease {
		case "held":
			lease = fmt.Sprintf("%.0f ms", 1000*m.LeaseLeft)
		case "":
			lease = "-"
		}
		if m.HoldsVIP {
			vip = "here"
		}
		if m.Lag != nil {
			lag = strconv.FormatUint(*m.Lag, 10)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%.0f %%\t%s\n",
			cmp.Or(m.Name, "-"), role, addr, m.Pid, m.Epoch, m.Applied, m.Commit, lag, lease, vip, bytesText(m.MemBytes), 100*m.LoopBusy, cmp.Or(m.Version, "-"))
	}
	w.Flush()
	if f := st.Failover; f != nil {
		fmt.Fprintf(out, "last failover  %s, to %s in epoch %d: %s; votes took %.0f ms, then %.0f ms to serve\n",
			time.Unix(0, f.Time).Format(time.DateTime), f.ToName, f.Epoch, f.Cause, 1000*f.Votes, 1000*f.Ready)
	}
}

// printServers shows the chunkservers, and then all disks.
func printServers(out io.Writer, st *wire.Status) {
	w := table(out)
	fmt.Fprintln(w, "\nSERVER\tADDRESS\tSTATE\tPID\tCHUNKS\tUSED\tFREE\tREAD/s\tWRITE/s\tERRORS\tVERSION")
	for _, s := range st.Servers {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%d\t%s\n", s.ID, s.Addr, s.State, s.Pid, s.Chunks, bytesText(s.Used), bytesText(s.Free), bytesText(s.Read), bytesText(s.Written), s.Errors, cmp.Or(s.Version, "-"))
	}
	w.Flush()
	w = table(out)
	fmt.Fprintln(w, "\nDISK\tOF\tSTATE\tENGINE\tCHUNKS\tUSED\tFREE\tDAMAGED\tSCRUB")
	for _, s := range st.Servers {
		for _, d := range s.Disks {
			state := d.State
			if d.Error != "" {
				state += ": " + d.Error
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%d\t%s\n", d.Path, s.Addr, state, d.Backend, d.Chunks, bytesText(d.Used), bytesText(d.Free), d.Damaged, scrubText(&d))
		}
	}
	w.Flush()
}

// scrubText tells how far a disk has been checked.
func scrubText(d *wire.DiskStatus) string {
	last := "never finished"
	if d.ScrubFinished > 0 {
		last = "last finished " + time.Unix(0, d.ScrubFinished).Format(time.DateTime)
	}
	return fmt.Sprintf("%.0f %% of pass %d, %s, %d damages found", 100*d.ScrubProgress, d.ScrubPasses+1, last, d.ScrubFound)
}

// matrixText shows the chunks by goal and copies, without the empty rows.
func matrixText(matrix [][]uint64) string {
	var b strings.Builder
	for goal, row := range matrix {
		var cells []string
		for copies, n := range row {
			if n > 0 {
				cells = append(cells, fmt.Sprintf("%d with %d copies", n, copies))
			}
		}
		if len(cells) > 0 {
			fmt.Fprintf(&b, "  goal %d: %s\n", goal, strings.Join(cells, ", "))
		}
	}
	return b.String()
}

// bytesText rounds a number of bytes for people.
func bytesText(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}
