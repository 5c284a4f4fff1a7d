package state

import (
	"fmt"
	"strings"
)

// escape makes a name fit for a changelog line: what is not printable ASCII, and
// what separates fields, becomes %XX.
func escape(s string) string {
	clean := true
	for i := 0; i < len(s); i++ {
		clean = clean && plain(s[i])
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if plain(s[i]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}

func plain(c byte) bool {
	return c > ' ' && c < 0x7f && !strings.ContainsRune("%,()[];:|", rune(c))
}

// list writes numbers as [1,2,3].
func list[T any](v []T) string {
	var b strings.Builder
	b.WriteByte('[')
	for i := range v {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%v", v[i])
	}
	b.WriteByte(']')
	return b.String()
}

// flags writes the letters whose condition holds, or "-".
func flags(letters string, on ...bool) string {
	s := ""
	for i, b := range on {
		if b {
			s += letters[i : i+1]
		}
	}
	if s == "" {
		return "-"
	}
	return s
}
