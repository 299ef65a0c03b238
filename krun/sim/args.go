package sim

import (
	"fmt"
	"slices"
	"strings"
)

// cmdline is an OCI runtime's command line, as far as it matters here.
type cmdline struct {
	args      []string // for crun: without the options that are ours
	verb      string
	verbIndex int // of verb in args
	bundle    string
	config    string
	root      string // --sample-root
	firmware  string // --firmware
	log       string
	logJSON   bool
}

// Options of crun, before and after the verb, that take a value.
var (
	globalValues = []string{"--cgroup-manager", "--log", "--log-format", "--log-level", "--root", "--rootless", "--criu"}
	createValues = []string{"--bundle", "-b", "--config", "-f", "--console-socket", "--pid-file", "--preserve-fds"}
	ownValues    = []string{"--sample-root", "--firmware"}
)

// parseArgs understands args as crun does, and takes out `--sample-root DIR`
// and `--firmware DIR`, which come from podman --runtime-flag.
func parseArgs(args []string) (*cmdline, error) {
	c := &cmdline{verbIndex: -1}
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			c.args = append(c.args, args[i:]...)
			break
		}
		if !strings.HasPrefix(a, "-") || a == "-" {
			if c.verbIndex < 0 {
				c.verb, c.verbIndex = a, len(c.args)
			}
			c.args = append(c.args, a)
			continue
		}
		name, value, joined := strings.Cut(a, "=")
		own := c.verbIndex < 0 && slices.Contains(ownValues, name)
		if !joined && c.takesValue(name) {
			if i++; i == len(args) {
				return nil, fmt.Errorf("option %s needs a value", a)
			}
			value = args[i]
		}
		c.note(name, value)
		switch {
		case own:
			c.noteOwn(name, value)
		case !joined && c.takesValue(name):
			c.args = append(c.args, a, value)
		default:
			c.args = append(c.args, a)
		}
	}
	return c, nil
}

// takesValue says whether the next argument belongs to option name. After
// verbs other than create and run nothing needs to be understood.
func (c *cmdline) takesValue(name string) bool {
	switch {
	case c.verbIndex < 0:
		return slices.Contains(globalValues, name) || slices.Contains(ownValues, name)
	case c.verb == "create" || c.verb == "run":
		return slices.Contains(createValues, name)
	}
	return false
}

func (c *cmdline) note(name, value string) {
	switch name {
	case "--bundle", "-b":
		c.bundle = value
	case "--config", "-f":
		c.config = value
	case "--log":
		c.log = value
	case "--log-format":
		c.logJSON = value == "json"
	}
}

func (c *cmdline) noteOwn(name, value string) {
	if name == "--firmware" {
		c.firmware = value
	} else {
		c.root = value
	}
}

// JSONLog is the file into which args tell the runtime to log as JSON, or "".
func JSONLog(args []string) string {
	c, err := parseArgs(args)
	if err != nil || !c.logJSON {
		return ""
	}
	return c.log
}
