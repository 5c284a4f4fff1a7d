package perf

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestSVG(t *testing.T) {
	r := newReport("test", "")
	r.Plot = &Plot{Title: "a < b", X: "x", Y: "y"}
	for _, log := range []bool{false, true} {
		r.Plot.LogX, r.Plot.LogY = log, log
		r.Rows = []Row{{Series: "one & two", X: 0.5, Value: 1}, {Series: "one & two", X: 0.95, Value: 10}, {Series: "other", X: 0.7, Value: 3}, {Name: "in no series"}}
		var b strings.Builder
		if err := r.SVG(&b); err != nil {
			t.Fatal(err)
		}
		circles := 0
		for d := xml.NewDecoder(strings.NewReader(b.String())); ; {
			tok, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err, b.String())
			}
			if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "circle" {
				circles++
			}
		}
		if circles != 3 || strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
			t.Errorf("log %v: %d points in %s", log, circles, b.String())
		}
	}
	r.Rows = r.Rows[3:]
	if err := r.SVG(io.Discard); err == nil {
		t.Error("a report without series was drawn")
	}
}
