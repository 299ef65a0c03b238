package sim

import (
	"fmt"
	"slices"
	"strings"
)

// cmdline is an OCI runtime's command line, as far as it matters here.
type cmdline struct {
	args     []string // for crun: without the options that are ours
	vm       []string // the same without --config, for a VMM's own
	verb     string
	verbAt   int // its place in vm
	bundle   string
	config   string
	root     string // --sample-root
	firmware string // --firmware
	log      string
	logJSON  bool
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
	c := new(cmdline)
	for i := 0; i < len(args); i++ {
		n := 1
		name, value, joined := strings.Cut(args[i], "=")
		switch {
		case name == "--":
			c.pass(args[i:]...)
			return c, nil
		case !strings.HasPrefix(name, "-") || name == "-":
			if c.verb == "" {
				c.verb, c.verbAt = args[i], len(c.vm)
			}
			c.pass(args[i])
			continue
		case !joined && c.takesValue(name):
			if n = 2; i+1 == len(args) {
				return nil, fmt.Errorf("option %s needs a value", name)
			}
			value = args[i+1]
		}
		c.option(name, value, args[i:i+n])
		i += n - 1
	}
	return c, nil
}

func (c *cmdline) pass(args ...string) {
	c.args = append(c.args, args...)
	c.vm = append(c.vm, args...)
}

// creates says whether the verb makes a container.
func (c *cmdline) creates() bool { return c.verb == "create" || c.verb == "run" }

// takesValue says whether the next argument belongs to option name. After
// other verbs than create and run nothing needs to be understood.
func (c *cmdline) takesValue(name string) bool {
	switch {
	case c.verb == "":
		return slices.Contains(globalValues, name) || slices.Contains(ownValues, name)
	case c.creates():
		return slices.Contains(createValues, name)
	}
	return false
}

// option takes note of an option, spelled as in args, and passes it on unless
// it is ours.
func (c *cmdline) option(name, value string, args []string) {
	switch {
	case c.verb == "" && name == "--firmware":
		c.firmware = value
	case c.verb == "" && name == "--sample-root":
		c.root = value
	case c.creates() && (name == "--config" || name == "-f"):
		c.config = value
		c.args = append(c.args, args...)
	default:
		c.note(name, value)
		c.pass(args...)
	}
}

func (c *cmdline) note(name, value string) {
	switch name {
	case "--bundle", "-b":
		c.bundle = value
	case "--log":
		c.log = value
	case "--log-format":
		c.logJSON = value == "json"
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
