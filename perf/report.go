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
	Ratio float64 `json:"ratio,omitempty"`  // Value to Fio, the median of several rounds; 0: of one
	P50   float64 `json:"p50_us,omitempty"` // latency of one operation, microseconds
	P99   float64 `json:"p99_us,omitempty"`
	P999  float64 `json:"p999_us,omitempty"`
	Max   float64 `json:"max_us,omitempty"` // the longest; 0: not measured
	CPU   float64 `json:"cpu_us,omitempty"` // processor time of one operation, microseconds

	Series string  `json:"series,omitempty"` // line of the plot that the row is a point of; "": none
	X      float64 `json:"x,omitempty"`
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
	Plot    *Plot     `json:"-"` // nil: there is none
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
	fmt.Fprintln(t, "row\tvalue\tunit\tfio\tratio\tp50 us\tp99 us\tp99.9 us\tmax us\tCPU us\t")
	for _, row := range r.Rows {
		fio, ratio := "", ""
		if row.Fio > 0 {
			fio, ratio = number(row.Fio), fmt.Sprintf("%.2f", row.ratio())
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", row.Name, number(row.Value), row.Unit, fio, ratio,
			number(row.P50), number(row.P99), number(row.P999), number(row.Max), number(row.CPU))
	}
	return t.Flush()
}

// latencies fills in what the latencies of a row's operations tell. It sorts them.
func (r *Row) latencies(l []time.Duration) {
	r.P50, r.P99 = percentile(l, 0.5), percentile(l, 0.99)
}

// tail does so for the longest ones.
func (r *Row) tail(l []time.Duration) {
	r.P999, r.Max = percentile(l, 0.999), percentile(l, 1)
}

// ratio is that to fio: the median of those of all rounds.
func (r *Row) ratio() float64 {
	if r.Ratio > 0 {
		return r.Ratio
	}
	return r.Value / r.Fio
}

// median of several rounds of the same row, figure by figure.
func median(rounds []Row) Row {
	row := rounds[0]
	for _, f := range []func(*Row) *float64{
		func(r *Row) *float64 { return &r.Value }, func(r *Row) *float64 { return &r.Fio }, func(r *Row) *float64 { return &r.P50 },
		func(r *Row) *float64 { return &r.P99 }, func(r *Row) *float64 { return &r.CPU }, func(r *Row) *float64 { return &r.Ratio },
	} {
		var l []float64
		for i := range rounds {
			l = append(l, *f(&rounds[i]))
		}
		slices.Sort(l)
		*f(&row) = l[len(l)/2]
	}
	return row
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
