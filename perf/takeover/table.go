package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
)

// table shows the figures of a file as rows of BENCHMARKS.md.
func table(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	byKind := map[string][]result{}
	s := bufio.NewScanner(f)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var r result
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		byKind[r.What] = append(byKind[r.What], r)
	}
	if err := s.Err(); err != nil {
		return err
	}
	fmt.Println("| what | rounds | stall p50 / p99 / longest ms | before p50 / longest ms | data p50 / longest ms | sync p50 / longest ms |")
	fmt.Println("|---|---|---|---|---|---|")
	for _, what := range kindNames() {
		list := byKind[what]
		if len(list) == 0 {
			continue
		}
		stall := column(list, func(r *result) float64 { return r.Stall })
		data := column(list, func(r *result) float64 { return r.Data })
		before := column(list, func(r *result) float64 { return r.Before })
		median := column(list, func(r *result) float64 { return r.Median })
		sync := column(list, func(r *result) float64 { return r.Sync })
		fmt.Printf("| %s | %d | %.0f / %.0f / %.0f | %.0f / %.0f | %.0f / %.0f | %.1f / %.0f |\n", what, len(list),
			quantile(stall, 0.5), quantile(stall, 0.99), quantile(stall, 1), quantile(before, 0.5), quantile(before, 1), quantile(data, 0.5), quantile(data, 1), quantile(median, 0.5), quantile(sync, 1))
	}
	for _, what := range kindNames() {
		for _, r := range byKind[what] {
			if *slow > 0 && r.Stall >= *slow {
				printTrace(&r)
			}
		}
	}
	return nil
}

func printTrace(r *result) {
	fmt.Printf("\n%s at %s: stall %.0f ms (%.0f before, %.0f later), data %.0f ms, longest sync %.0f ms\n", r.What, r.At.Format("15:04:05.000"), r.Stall, r.Before, r.Later, r.Data, r.Sync)
	for _, e := range r.Trace {
		fmt.Printf("%9.1f  %-24s %s\n", e.Ms, e.Where, e.What)
	}
}

func column(list []result, of func(*result) float64) (values []float64) {
	for i := range list {
		values = append(values, of(&list[i]))
	}
	slices.Sort(values)
	return values
}

// quantile of ascending values: the smallest that a share q of them does not exceed.
func quantile(values []float64, q float64) float64 {
	i := int(q*float64(len(values)) + 0.999999)
	return values[min(max(i, 1), len(values))-1]
}
