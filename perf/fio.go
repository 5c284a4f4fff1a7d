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
	if _, err := exec.LookPath("fio"); err != nil {
		return 0, nil
	}
	args = append([]string{"--output-format=json", "--name=" + name, "--ioengine=libaio", "--direct=1", "--randrepeat=0", "--norandommap"}, args...)
	out, err := exec.CommandContext(ctx, "fio", args...).Output()
	if err != nil {
		return 0, fmt.Errorf("fio %s: %w", strings.Join(args, " "), err)
	}
	type side struct {
		IOPS float64 `json:"iops"`
		BW   float64 `json:"bw_bytes"`
	}
	var reply struct {
		Jobs []struct {
			Read  side `json:"read"`
			Write side `json:"write"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal(out, &reply); err != nil || len(reply.Jobs) != 1 {
		return 0, fmt.Errorf("fio printed no result: %v", err)
	}
	s := reply.Jobs[0].Read
	if s.IOPS == 0 {
		s = reply.Jobs[0].Write
	}
	if unit == "MB/s" {
		return s.BW / 1e6, nil
	}
	return s.IOPS, nil
}

// seconds is a duration as fio wants it.
func seconds(d time.Duration) string { return fmt.Sprintf("%d", max(1, int(d.Seconds()))) }
