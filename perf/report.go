package perf

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// Row is one figure of a run.
type Row struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`            // in Unit; the median where a row was run several times
	Unit  string  `json:"unit"`             // MB/s (10^6 bytes), IOPS, ops/s, us
	Fio   float64 `json:"fio,omitempty"`    // the same by fio with the same flags; 0: not measured
	P50   float64 `json:"p50_us,omitempty"` // latency of one operation, microseconds
	P99   float64 `json:"p99_us,omitempty"`
	Max   float64 `json:"max_us,omitempty"` // the longest; 0: not measured
	CPU   float64 `json:"cpu_us,omitempty"` // processor time of one operation, microseconds
}

// Report is what a run prints.
type Report struct {
	What    string    `json:"what"`
	Backend string    `json:"backend,omitempty"`
	Kernel  string    `json:"kernel"`
	Go      string    `json:"go"`
	CPUs    int       `json:"cpus"`
	Time    time.Time `json:"time"`
	Rows    []Row     `json:"rows"`
}

// newReport fills in the machine.
func newReport(what, backend string) *Report {
	var u unix.Utsname
	unix.Uname(&u)
	return &Report{What: what, Backend: backend, Kernel: unix.ByteSliceToString(u.Release[:]),
		Go: runtime.Version(), CPUs: runtime.NumCPU(), Time: time.Now().UTC().Truncate(time.Second)}
}

// JSON prints the report for machines.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Table prints the report for people.
func (r *Report) Table(w io.Writer) error {
	backend := ""
	if r.Backend != "" {
		backend = ", backend " + r.Backend
	}
	fmt.Fprintf(w, "%s%s; Linux %s, %s, %d CPUs, %s\n", r.What, backend, r.Kernel, r.Go, r.CPUs, r.Time.Format(time.RFC3339))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "row\tvalue\tunit\tfio\tratio\tp50 us\tp99 us\tmax us\tCPU us\t")
	for _, row := range r.Rows {
		fio, ratio := "", ""
		if row.Fio > 0 {
			fio, ratio = number(row.Fio), fmt.Sprintf("%.2f", row.Value/row.Fio)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", row.Name, number(row.Value), row.Unit, fio, ratio,
			number(row.P50), number(row.P99), number(row.Max), number(row.CPU))
	}
	return t.Flush()
}

func number(v float64) string {
	switch {
	case v == 0:
		return ""
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// percentile gives the p-th (0..1) of a list of latencies in microseconds. It sorts the list.
func percentile(l []time.Duration, p float64) float64 {
	if len(l) == 0 {
		return 0
	}
	slices.Sort(l)
	return float64(l[int(p*float64(len(l)-1))].Nanoseconds()) / 1e3
}

// cpuTime is the processor time that this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
