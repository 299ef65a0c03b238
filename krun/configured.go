package krun

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// An EnvRule is one of LaunchPolicy.EnvAllow: a variable that the key server may
// set, to any value or to one that matches an expression as a whole.
type EnvRule struct {
	Name  string
	value *regexp.Regexp // nil: any
}

// ParseEnvRule reads NAME or NAME=REGEX.
func ParseEnvRule(s string) (EnvRule, error) {
	name, expr, limited := strings.Cut(s, "=")
	if !kbs.ValidVariable(name) {
		return EnvRule{}, fmt.Errorf("environment name %.40q, expected letters, digits and '_'", name)
	}
	if !limited {
		return EnvRule{Name: name}, nil
	}
	// By itself first: "a)|(b" makes one of its own and the anchors around it.
	if _, err := regexp.Compile(expr); err != nil {
		return EnvRule{}, fmt.Errorf("environment rule %.80q: %w", s, err)
	}
	value, err := regexp.Compile(`\A(?:` + expr + `)\z`)
	if err != nil {
		return EnvRule{}, fmt.Errorf("environment rule %.80q: %w", s, err)
	}
	return EnvRule{name, value}, nil
}

// allows says whether the variable may be set to value.
func (r EnvRule) allows(name, value string) bool {
	return r.Name != "" && r.Name == name && (r.value == nil || r.value.MatchString(value))
}

// TakesConfig says whether the key server may set anything of the process.
func (p *LaunchPolicy) TakesConfig() bool { return len(p.EnvAllow) > 0 || p.ArgsAllow }

// CheckConfig refuses a configuration of which anything is not allowed: of half
// of one, nobody knows what it does. The error names variables, never values.
func (p *LaunchPolicy) CheckConfig(c *kbs.WorkloadConfig) error {
	if err := c.Validate(); err != nil {
		return err
	}
	rules := make([]EnvRule, len(p.EnvAllow))
	for i, s := range p.EnvAllow {
		var err error
		if rules[i], err = ParseEnvRule(s); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		if err := checkVariable(rules, name, c.Env[name]); err != nil {
			return err
		}
	}
	if c.Args != nil && !p.ArgsAllow {
		return errors.New("arguments are set, and the image was not built with --args-allow")
	}
	return nil
}

func checkVariable(rules []EnvRule, name, value string) error {
	named := false
	for _, r := range rules {
		if r.allows(name, value) {
			return nil
		}
		named = named || r.Name == name
	}
	if named {
		return fmt.Errorf("variable %s has a value that the image's --env-allow %s=REGEX does not match as a whole", name, name)
	}
	return fmt.Errorf("variable %s is set, and the image was not built with --env-allow %s", name, name)
}

// Configure gives p what the key server sets: variables in the place of the
// image's of the same name, arguments in that of its Cmd.
func (p *Process) Configure(c *kbs.WorkloadConfig) {
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		p.SetVariable(name, c.Env[name])
	}
	if c.Args != nil {
		p.Cmd = c.Args
	}
}

// SetVariable sets one, in the place of all of that name.
func (p *Process) SetVariable(name, value string) {
	p.Env = slices.DeleteFunc(slices.Clone(p.Env), func(e string) bool { return e == name || strings.HasPrefix(e, name+"=") })
	p.Env = append(p.Env, name+"="+value)
}
