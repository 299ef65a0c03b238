// Package crun is what this house knows of the OCI runtime crun: its version,
// its command line, the container specification beside it, and what becomes of
// each option of Podman's. Both our runtimes, krun and krun-sim, stand before
// crun and read all of this here, so that they cannot read it differently.
package crun

import (
	"fmt"
	"slices"
	"strings"
)

// Command is what a crun command line asks for, as far as it matters here.
type Command struct {
	Verb   string
	ID     string
	Root   string // of crun's state, as given; empty for its own
	Bundle string // as given; empty for the working directory
	Config string // as given; empty for config.json in the bundle
	Regex  bool   // delete: ID is a pattern
	Log    string
	JSON   bool              // log format
	Own    map[string]string // the runtime's own options

	head, options, tail []string // for crun: up to the verb, the verb's options, the rest
}

// Creates says whether the command makes a container of a bundle.
func (c Command) Creates() bool { return c.Verb == "create" || c.Verb == "run" }

// Args is the command line for crun: without argv[0] and our own options.
func (c Command) Args() []string { return slices.Concat(c.head, c.options, c.tail) }

// WithConfig is Args with another specification, named last: of several crun
// takes that one.
func (c Command) WithConfig(path string) []string {
	return slices.Concat(c.head, c.options, []string{"--config", path}, c.tail)
}

// option is one by its long name.
type option struct {
	short byte
	value bool
	own   bool // the runtime's own and not crun's
}

// crun's options (src/crun.c, src/create.c, src/run.c, src/delete.c, src/start.c, src/exec.c).
func globalOptions() map[string]option {
	return map[string]option{
		"debug": {}, "cgroup-manager": {value: true}, "systemd-cgroup": {}, "log": {value: true},
		"log-format": {value: true}, "log-level": {value: true}, "root": {value: true}, "rootless": {value: true},
		"version": {short: 'v'}, "help": {short: '?'}, "usage": {}, "Version": {short: 'V'},
	}
}

func verbOptions(verb string) map[string]option {
	switch verb {
	case "create", "run":
		return map[string]option{
			"bundle": {short: 'b', value: true}, "config": {short: 'f', value: true}, "console-socket": {value: true},
			"preserve-fds": {value: true}, "pid-file": {value: true}, "no-pivot": {}, "no-subreaper": {},
			"no-new-keyring": {}, "detach": {short: 'd'}, "keep": {}, "help": {short: '?'}, "usage": {},
		}
	case "delete":
		return map[string]option{"force": {short: 'f'}, "regex": {short: 'r'}, "help": {short: '?'}, "usage": {}}
	case "start":
		return map[string]option{"help": {short: '?'}, "usage": {}}
	case "exec":
		return map[string]option{
			"console-socket": {value: true}, "tty": {short: 't'}, "user": {short: 'u', value: true}, "cwd": {value: true},
			"detach": {short: 'd'}, "env": {short: 'e', value: true}, "preserve-fds": {value: true}, "pid-file": {value: true},
			"process": {short: 'p', value: true}, "process-label": {value: true}, "apparmor": {value: true}, "cap": {short: 'c', value: true},
			"no-new-privs": {}, "cgroup": {value: true}, "help": {short: '?'}, "usage": {},
		}
	}
	return nil
}

// Parse reads argv as crun's argp does: options before the verb are global,
// options after it the verb's, and the first other argument ends each. What
// crun would answer itself (help, version, no verb) has no verb. A command
// line that is not understood is an error where a container would be created
// from it: guessing would start a workload without its library.
//
// Among the global options may stand those named by own, each with a value:
// podman's --runtime-flag puts them there.
func Parse(argv []string, own ...string) (Command, error) {
	var c Command
	if len(argv) == 0 {
		return c, nil
	}
	known := globalOptions()
	for _, name := range own {
		known[name] = option{value: true, own: true}
	}
	s, err := scan(argv[1:], known)
	c.Root, c.Log, c.JSON, c.Own = s.values["root"], s.values["log"], s.values["log-format"] == "json", map[string]string{}
	for _, name := range own {
		c.Own[name] = s.values[name]
	}
	c.head = slices.Concat(s.words, s.mark)
	if err != nil || len(s.rest) == 0 {
		return c, err
	}
	c.head, c.tail = append(c.head, s.rest[0]), s.rest[1:]
	if s.answersItself() {
		return c, nil
	}
	c.Verb = s.rest[0]
	return c, c.parseVerb()
}

// parseVerb reads what stands after the verb.
func (c *Command) parseVerb() error {
	known := verbOptions(c.Verb)
	if known == nil {
		return nil
	}
	s, err := scan(c.tail, known)
	if err != nil && (c.Verb == "exec" || c.Verb == "start") {
		return nil // creates nothing: crun says what is wrong, or knows more
	}
	if err != nil {
		return err
	}
	c.options, c.tail = s.words, slices.Concat(s.mark, s.rest)
	if len(s.rest) == 0 || s.answersItself() {
		c.Verb = "" // crun prints help, or what is missing
		return nil
	}
	_, c.Regex = s.values["regex"]
	c.ID, c.Bundle, c.Config = s.rest[0], s.values["bundle"], s.values["config"]
	return nil
}

// scanned is a part of the command line: options up to the first other argument.
type scanned struct {
	known  map[string]option
	values map[string]string // by long name; the last of several wins, as in crun
	words  []string          // the options as they were given, without our own
	mark   []string          // "--" where it ended them
	rest   []string
}

func (s *scanned) answersItself() bool {
	return slices.ContainsFunc([]string{"help", "usage", "version", "Version"}, func(name string) bool {
		_, ok := s.values[name]
		return ok
	})
}

func scan(args []string, known map[string]option) (*scanned, error) {
	s := &scanned{known: known, values: map[string]string{}, rest: args}
	for len(s.rest) > 0 {
		arg, read := s.rest[0], s.short
		switch {
		case arg == "--":
			s.mark, s.rest = s.rest[:1], s.rest[1:]
			return s, nil
		case len(arg) < 2 || arg[0] != '-':
			return s, nil
		case strings.HasPrefix(arg, "--"):
			read = s.long
		}
		if err := read(arg); err != nil {
			return s, err
		}
	}
	return s, nil
}

// take moves the n next words out of rest, to crun unless they are our own.
func (s *scanned) take(n int, own bool) {
	if !own {
		s.words = append(s.words, s.rest[:n]...)
	}
	s.rest = s.rest[n:]
}

func (s *scanned) long(arg string) error {
	given, value, inline := strings.Cut(arg[2:], "=")
	name, err := s.complete(given)
	if err != nil {
		return err
	}
	n := 1
	if s.known[name].value && !inline {
		if n = 2; len(s.rest) < n {
			return fmt.Errorf("option --%s needs a value", name)
		}
		value = s.rest[1]
	}
	s.values[name] = value
	s.take(n, s.known[name].own)
	return nil
}

// complete finds the option that given names or, as getopt_long(3) allows,
// begins without ambiguity.
func (s *scanned) complete(given string) (string, error) {
	if _, ok := s.known[given]; ok {
		return given, nil
	}
	found := ""
	for name := range s.known {
		if strings.HasPrefix(name, given) {
			if found != "" {
				return "", fmt.Errorf("option --%s is ambiguous", given)
			}
			found = name
		}
	}
	if found == "" {
		return "", fmt.Errorf("option --%s is not known, expected one of crun's", given)
	}
	return found, nil
}

// short reads a cluster: letters without a value, the last perhaps with one.
func (s *scanned) short(arg string) error {
	for i := 1; i < len(arg); i++ {
		name := s.byLetter(arg[i])
		switch {
		case name == "":
			return fmt.Errorf("option -%c is not known, expected one of crun's", arg[i])
		case !s.known[name].value:
			s.values[name] = ""
			continue
		case i+1 < len(arg):
			s.values[name] = arg[i+1:]
			s.take(1, false)
			return nil
		case len(s.rest) < 2:
			return fmt.Errorf("option -%c needs a value", arg[i])
		}
		s.values[name] = s.rest[1]
		s.take(2, false)
		return nil
	}
	s.take(1, false)
	return nil
}

func (s *scanned) byLetter(letter byte) string {
	for name, o := range s.known {
		if o.short != 0 && o.short == letter {
			return name
		}
	}
	return ""
}
