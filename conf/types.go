package conf

import (
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written as 256MiB, 10GB, 1T or 4096.
type Size int64

var sizeUnits = []struct {
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"PiB", 1 << 50},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"PB", 1e15},
	{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40}, {"P", 1 << 50}, {"B", 1},
}

// ParseSize reads a Size.
func ParseSize(s string) (Size, error) {
	digits, unit := strings.TrimSpace(s), 1.0
	for _, u := range sizeUnits {
		if rest, ok := cutSuffixFold(digits, u.suffix); ok {
			digits, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	v, err := strconv.ParseFloat(digits, 64)
	if err != nil || v < 0 || v*unit > math.MaxInt64/2 || math.IsNaN(v) {
		return 0, fmt.Errorf("%q is not a size; write for example 256MiB, 10GB or 1TiB", s)
	}
	return Size(v * unit), nil
}

func cutSuffixFold(s, suffix string) (string, bool) {
	if len(s) < len(suffix) || !strings.EqualFold(s[len(s)-len(suffix):], suffix) {
		return s, false
	}
	return s[:len(s)-len(suffix)], true
}

// String gives the largest binary unit that is exact.
func (s Size) String() string {
	for i := 4; i >= 0; i-- {
		u := sizeUnits[i]
		if s != 0 && int64(s)%int64(u.bytes) == 0 {
			return strconv.FormatInt(int64(s)/int64(u.bytes), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// UnmarshalText makes a Size a TOML and flag value.
func (s *Size) UnmarshalText(b []byte) (err error) { *s, err = ParseSize(string(b)); return err }

// MarshalText is String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Duration is a time.Duration, written as 250ms, 10s or 1h30m.
type Duration time.Duration

// UnmarshalText makes a Duration a TOML and flag value.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration; write for example 250ms, 10s or 1h", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText is String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string { return time.Duration(d).String() }

// Addr is HOST:PORT. HOST may be empty to listen on all addresses.
type Addr string

// UnmarshalText checks the form of an address.
func (a *Addr) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*a = ""
		return nil
	}
	_, port, err := net.SplitHostPort(string(b))
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT; write for example 0.0.0.0:9421 or [::1]:9421", b)
	}
	*a = Addr(b)
	return nil
}

// MarshalText is the address.
func (a Addr) MarshalText() ([]byte, error) { return []byte(a), nil }
func (a Addr) String() string               { return string(a) }
