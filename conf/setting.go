package conf

import (
	"encoding"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
)

// Setting is one line of the table. It is a pflag.Value.
type Setting struct {
	Section string
	Key     string
	Default string
	Check   string
	Help    string
	value   reflect.Value
}

// Env is the name of the setting's environment variable.
func (s *Setting) Env() string {
	return "VARVE_" + strings.ToUpper(s.Section+"_"+strings.ReplaceAll(s.Key, "-", "_"))
}

// Settings lists the settings of the section of f, in the order of the struct.
// An empty section means all.
func (f *File) Settings(section string) []*Setting {
	var all []*Setting
	v := reflect.ValueOf(f).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("toml")
		if section != "" && name != section {
			continue
		}
		for j := range v.Field(i).NumField() {
			tag := v.Field(i).Type().Field(j).Tag
			all = append(all, &Setting{
				Section: name,
				Key:     tag.Get("toml"),
				Default: tag.Get("default"),
				Check:   tag.Get("check"),
				Help:    tag.Get("help"),
				value:   v.Field(i).Field(j),
			})
		}
	}
	return all
}

// Set reads text into the setting and checks it.
func (s *Setting) Set(text string) error {
	var err error
	switch p := s.value.Addr().Interface().(type) {
	case encoding.TextUnmarshaler:
		err = p.UnmarshalText([]byte(text))
	case *string:
		*p = text
	case *[]string:
		*p = nil
		for _, part := range strings.Split(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				*p = append(*p, part)
			}
		}
	case *int:
		if *p, err = strconv.Atoi(text); err != nil {
			err = fmt.Errorf("%q is not a whole number", text)
		}
	case *bool:
		if *p, err = strconv.ParseBool(text); err != nil {
			err = fmt.Errorf("%q is neither true nor false", text)
		}
	default:
		panic(fmt.Sprintf("BUG: setting %s.%s has type %T", s.Section, s.Key, p))
	}
	if err == nil {
		err = s.Validate()
	}
	return err
}

// String is the present value as Set would read it.
func (s *Setting) String() string {
	if !s.value.IsValid() {
		return ""
	}
	if l, ok := s.value.Interface().([]string); ok {
		return strings.Join(l, ",")
	}
	return fmt.Sprint(s.value.Interface())
}

// Type names the kind of value in help texts.
func (s *Setting) Type() string {
	switch s.value.Interface().(type) {
	case Size:
		return "size"
	case Duration:
		return "duration"
	case Addr:
		return "host:port"
	case []string:
		return "list"
	}
	return s.value.Kind().String()
}

// Validate applies the setting's check: "a|b|c" one of these words, "1..9" a
// range of whole numbers, "8MiB.." a least size, "addrs" a list of HOST:PORT,
// "voters" one of NUMBER=HOST:PORT, "prefixes" one of ADDRESS/BITS.
func (s *Setting) Validate() error {
	if a, ok := s.value.Interface().(Addr); ok {
		return a.UnmarshalText([]byte(a)) // the TOML decoder sets strings without asking
	}
	switch {
	case s.Check == "":
		return nil
	case s.Check == "addrs":
		for _, a := range s.value.Interface().([]string) {
			if host, _, err := net.SplitHostPort(a); err != nil || host == "" {
				return fmt.Errorf("%q is not HOST:PORT", a)
			}
		}
		return nil
	case s.Check == "voters":
		_, err := ParseVoters(s.value.Interface().([]string))
		return err
	case s.Check == "prefixes":
		for _, a := range s.value.Interface().([]string) {
			if _, err := netip.ParsePrefix(a); err != nil {
				return fmt.Errorf("%q is not ADDRESS/BITS; write for example 10.0.0.10/32", a)
			}
		}
		return nil
	case strings.Contains(s.Check, "|"):
		for _, w := range strings.Split(s.Check, "|") {
			if w == s.String() {
				return nil
			}
		}
		return fmt.Errorf("%q is not one of %s", s.String(), strings.ReplaceAll(s.Check, "|", ", "))
	}
	low, high, _ := strings.Cut(s.Check, "..")
	return s.validateRange(low, high)
}

func (s *Setting) validateRange(low, high string) error {
	number := func(text string) (int64, bool) {
		v, err := ParseSize(text)
		return int64(v), err == nil
	}
	v := s.value.Int()
	if n, ok := number(low); ok && v < n {
		return fmt.Errorf("%s is less than %s", s, low)
	}
	if n, ok := number(high); ok && v > n {
		return fmt.Errorf("%s is more than %s", s, high)
	}
	return nil
}
