// Package conf is the settings table of every daemon and tool.
//
// The table is the struct File: a section is a field, a setting a field of the
// section, and its tags are its name, default, check and help. From that one
// table come the TOML file (strict: an unknown key or a bad value is refused
// with file, line and key), the environment variables (VARVE_SECTION_KEY), the
// command line's flags, their help, the sample file and the validation. A flag
// beats the environment, the environment beats the file, the file beats the
// default. Only cmd imports this package; it owns no state.
package conf
