// Package crun is what this house knows of the OCI runtime crun: how its
// command line is read, and the container specification beside it, for both of
// our runtimes alike.
package crun

import (
	"fmt"
	"strings"
)

// Command is what a crun command line asks for, as far as it matters here.
type Command struct {
	Verb   string
	ID     string
	Bundle string // as given; empty for the working directory
	Config string // as given; empty for config.json in the bundle
	Regex  bool   // delete: ID is a pattern
	Log    string
	JSON   bool // log format
}

// option is one of crun's, by its long name.
type option struct {
	short byte
	value bool
}

// crun's options (src/crun.c, src/create.c, src/run.c, src/delete.c).
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
			"bundle": {'b', true}, "config": {'f', true}, "console-socket": {value: true}, "preserve-fds": {value: true},
			"pid-file": {value: true}, "no-pivot": {}, "no-subreaper": {}, "no-new-keyring": {},
			"detach": {short: 'd'}, "keep": {}, "help": {short: '?'}, "usage": {},
		}
	case "delete":
		return map[string]option{"force": {short: 'f'}, "regex": {short: 'r'}, "help": {short: '?'}, "usage": {}}
	}
	return nil
}

// Parse reads argv as crun's argp does: options before the verb are global,
// options after it the verb's, and the first other argument ends each. What
// crun would answer itself (help, version, no verb) has no verb. A command
// line that is not understood is an error where a container would be created
// from it: guessing would start a workload without its library.
func Parse(argv []string) (Command, error) {
	var c Command
	if len(argv) == 0 {
		return c, nil
	}
	global, rest, err := scan(argv[1:], globalOptions())
	c.Log, c.JSON = global["log"], global["log-format"] == "json"
	if err != nil || len(rest) == 0 || answersItself(global) {
		return c, err
	}
	c.Verb = rest[0]
	known := verbOptions(c.Verb)
	if known == nil {
		return c, nil
	}
	own, rest, err := scan(rest[1:], known)
	if err != nil {
		return c, err
	}
	if len(rest) == 0 || answersItself(own) {
		c.Verb = "" // crun prints help, or what is missing
		return c, nil
	}
	_, c.Regex = own["regex"]
	c.ID, c.Bundle, c.Config = rest[0], own["bundle"], own["config"]
	return c, nil
}

func answersItself(opts map[string]string) bool {
	for _, name := range []string{"help", "usage", "version", "Version"} {
		if _, ok := opts[name]; ok {
			return true
		}
	}
	return false
}

// scan reads options up to the first other argument. The last of several
// wins, as in crun.
func scan(args []string, known map[string]option) (opts map[string]string, rest []string, err error) {
	opts = map[string]string{}
	for len(args) > 0 {
		arg := args[0]
		if arg == "--" {
			return opts, args[1:], nil
		}
		if len(arg) < 2 || arg[0] != '-' {
			return opts, args, nil
		}
		if strings.HasPrefix(arg, "--") {
			args, err = scanLong(args, known, opts)
		} else {
			args, err = scanShort(args, known, opts)
		}
		if err != nil {
			return opts, nil, err
		}
	}
	return opts, nil, nil
}

func scanLong(args []string, known map[string]option, opts map[string]string) ([]string, error) {
	given, value, inline := strings.Cut(args[0][2:], "=")
	name, err := complete(given, known)
	if err != nil {
		return nil, err
	}
	args = args[1:]
	if known[name].value && !inline {
		if len(args) == 0 {
			return nil, fmt.Errorf("option --%s needs a value", name)
		}
		value, args = args[0], args[1:]
	}
	opts[name] = value
	return args, nil
}

// complete finds the option that given names or, as getopt_long(3) allows,
// begins without ambiguity.
func complete(given string, known map[string]option) (string, error) {
	if _, ok := known[given]; ok {
		return given, nil
	}
	found := ""
	for name := range known {
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

func scanShort(args []string, known map[string]option, opts map[string]string) ([]string, error) {
	cluster := args[0][1:]
	args = args[1:]
	for i := range len(cluster) {
		name := ""
		for n, o := range known {
			if o.short == cluster[i] {
				name = n
			}
		}
		if name == "" {
			return nil, fmt.Errorf("option -%c is not known, expected one of crun's", cluster[i])
		}
		if !known[name].value {
			opts[name] = ""
			continue
		}
		if rest := cluster[i+1:]; rest != "" {
			opts[name] = rest
			return args, nil
		}
		if len(args) == 0 {
			return nil, fmt.Errorf("option -%c needs a value", cluster[i])
		}
		opts[name] = args[0]
		return args[1:], nil
	}
	return args, nil
}
