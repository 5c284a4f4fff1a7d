package perf

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// fioRun asks fio for the same workload: the value in unit ("MB/s" or "IOPS"),
// or 0 where fio is not installed.
func fioRun(ctx context.Context, name string, unit string, args ...string) (float64, error) {
	row, err := fioRow(ctx, name, unit, args...)
	return row.Value, err
}

// fioRow is fioRun with the latencies.
func fioRow(ctx context.Context, name string, unit string, args ...string) (Row, error) {
	row := Row{Name: name, Unit: unit}
	if _, err := exec.LookPath("fio"); err != nil {
		return row, nil
	}
	args = append([]string{"--output-format=json", "--name=perf", "--ioengine=libaio", "--direct=1", "--randrepeat=0", "--norandommap"}, args...)
	out, err := exec.CommandContext(ctx, "fio", args...).Output()
	if err != nil {
		return row, fmt.Errorf("fio %s: %w", strings.Join(args, " "), err)
	}
	type side struct {
		IOPS float64 `json:"iops"`
		BW   float64 `json:"bw_bytes"`
		Lat  struct {
			Max  float64            `json:"max"`
			Part map[string]float64 `json:"percentile"`
		} `json:"clat_ns"`
	}
	var reply struct {
		Jobs []struct {
			Read  side `json:"read"`
			Write side `json:"write"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal(out, &reply); err != nil || len(reply.Jobs) != 1 {
		return row, fmt.Errorf("fio printed no result: %v", err)
	}
	s := reply.Jobs[0].Read
	if s.IOPS == 0 {
		s = reply.Jobs[0].Write
	}
	part := func(p string) float64 { return s.Lat.Part[p] / 1e3 }
	row.P50, row.P99, row.P999, row.Max = part("50.000000"), part("99.000000"), part("99.900000"), s.Lat.Max/1e3
	if row.Value = s.IOPS; unit == "MB/s" {
		row.Value = s.BW / 1e6
	}
	return row, nil
}

// seconds is a duration as fio wants it.
func seconds(d time.Duration) string { return fmt.Sprintf("%d", max(1, int(d.Seconds()))) }
