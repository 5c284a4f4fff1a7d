package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// SystemFile is where the configuration of an installed system is.
const SystemFile = "/etc/varve/varve.toml"

// Default gives the table filled with its defaults.
func Default() *File {
	f := new(File)
	for _, s := range f.Settings("") {
		if err := s.Set(s.Default); err != nil && s.Default != "" {
			panic(fmt.Sprintf("BUG: default of %s.%s: %v", s.Section, s.Key, err))
		}
	}
	return f
}

// Load gives the defaults, overridden by the file (if name is not empty) and
// by the environment. environ is os.Environ() or a test's.
func Load(name string, environ []string) (*File, error) {
	f := Default()
	if name != "" {
		if err := f.read(name); err != nil {
			return nil, err
		}
	}
	return f, f.environment(environ)
}

// LoadSystem is Load of SystemFile where it exists, else of no file.
func LoadSystem(environ []string) (*File, error) {
	if _, err := os.Stat(SystemFile); errors.Is(err, fs.ErrNotExist) {
		return Load("", environ)
	}
	return Load(SystemFile, environ)
}

func (f *File) read(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	err = toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields().Decode(f)
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		e := strict.Errors[0]
		row, _ := e.Position()
		key := strings.Join(e.Key(), ".")
		return fmt.Errorf("%s:%d: unknown key %q%s", name, row, key, f.suggest(e.Key()))
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, _ := decode.Position()
		what := strings.Join(decode.Key(), ".")
		if what != "" {
			what += ": "
		}
		return fmt.Errorf("%s:%d: %s%s", name, row, what, strings.TrimPrefix(decode.Error(), "toml: "))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, s := range f.Settings("") {
		if err := s.Validate(); err != nil {
			return fmt.Errorf("%s: %s.%s: %w", name, s.Section, s.Key, err)
		}
	}
	return nil
}

// suggest names the keys that the section does have.
func (f *File) suggest(key []string) string {
	known := f.Settings(key[0])
	if len(known) == 0 {
		return "; the sections are cluster, master, chunkd, mount"
	}
	names := make([]string, len(known))
	for i, s := range known {
		names[i] = s.Key
	}
	return fmt.Sprintf("; the keys of [%s] are %s", key[0], strings.Join(names, ", "))
}

func (f *File) environment(environ []string) error {
	settings := map[string]*Setting{}
	for _, s := range f.Settings("") {
		settings[s.Env()] = s
	}
	for _, e := range environ {
		name, text, _ := strings.Cut(e, "=")
		s := settings[name]
		if s == nil {
			continue // other VARVE_ variables may be a wrapper script's own
		}
		if err := s.Set(text); err != nil {
			return fmt.Errorf("environment variable %s: %w", name, err)
		}
	}
	return nil
}

// Sample is a configuration file with every setting, explained and commented out.
func Sample() string {
	var b strings.Builder
	b.WriteString("# Configuration of Varve. Every line shows a setting with its default.\n")
	section := ""
	for _, s := range Default().Settings("") {
		if s.Section != section {
			section = s.Section
			fmt.Fprintf(&b, "\n[%s]\n", section)
		}
		fmt.Fprintf(&b, "\n# %s\n", s.Help)
		if strings.Contains(s.Check, "|") {
			fmt.Fprintf(&b, "# one of: %s\n", strings.ReplaceAll(s.Check, "|", ", "))
		}
		fmt.Fprintf(&b, "# %s = %s\n", s.Key, s.TOML())
	}
	return b.String()
}

// TOML is the present value as it stands in a file.
func (s *Setting) TOML() string {
	switch v := s.value.Interface().(type) {
	case []string:
		quoted := make([]string, len(v))
		for i, x := range v {
			quoted[i] = fmt.Sprintf("%q", x)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case int, bool:
		return fmt.Sprint(v)
	}
	return fmt.Sprintf("%q", s.String())
}
