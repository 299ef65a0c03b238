package krun

import (
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestCheckConfig: what the image's policy does not let the key server set is
// refused, whole, and no value is in the error.
func TestCheckConfig(t *testing.T) {
	env := func(name, value string) kbs.WorkloadConfig {
		return kbs.WorkloadConfig{Env: map[string]string{name: value}}
	}
	for name, c := range map[string]struct {
		allow  []string
		args   bool
		config kbs.WorkloadConfig
		want   string // of the error; empty: none
	}{
		"nothing":                  {nil, false, kbs.WorkloadConfig{}, ""},
		"any value":                {[]string{"A"}, false, env("A", "x\ny"), ""},
		"match":                    {[]string{"A=[0-9]+"}, false, env("A", "12"), ""},
		"second rule":              {[]string{"A=[0-9]+", "A=auto"}, false, env("A", "auto"), ""},
		"empty by an empty rule":   {[]string{"A="}, false, env("A", ""), ""},
		"something by that":        {[]string{"A="}, false, env("A", "x"), "--env-allow A=REGEX"},
		"not named":                {[]string{"A"}, false, env("LD_PRELOAD", "secret"), "--env-allow LD_PRELOAD"},
		"prefix of a name":         {[]string{"AB"}, false, env("A", "secret"), "--env-allow A"},
		"other letters":            {[]string{"a"}, false, env("A", "secret"), "--env-allow A"},
		"one of two":               {[]string{"A"}, false, kbs.WorkloadConfig{Env: map[string]string{"A": "1", "B": "secret"}}, "B"},
		"no match":                 {[]string{"A=[0-9]+"}, false, env("A", "secret"), "REGEX"},
		"begin matches":            {[]string{"A=[0-9]+"}, false, env("A", "1secret"), "REGEX"},
		"end matches":              {[]string{"A=[0-9]+"}, false, env("A", "secret1"), "REGEX"},
		"line matches":             {[]string{"A=[0-9]+"}, false, env("A", "1\nsecret"), "REGEX"},
		"line of many":             {[]string{"A=(?m)^[0-9]+$"}, false, env("A", "1\nsecret"), "REGEX"},
		"line end":                 {[]string{"A=[0-9]+"}, false, env("A", "1\n"), "REGEX"},
		"first of an alternative":  {[]string{"A=a|b"}, false, env("A", "asecret"), "REGEX"},
		"shorter alternative":      {[]string{"A=a|ab"}, false, env("A", "ab"), ""},
		"alternative of the rule":  {[]string{"A=a)|(?:b"}, false, env("A", "xsecret b"), "rule"},
		"name with =":              {[]string{"A"}, false, env("A=B", "secret"), "variable"},
		"name with NUL":            {[]string{"A"}, false, env("A\x00", "secret"), "variable"},
		"empty name":               {[]string{"A"}, false, env("", "secret"), "variable"},
		"value with NUL":           {[]string{"A"}, false, env("A", "secret\x00"), "NUL"},
		"arguments":                {nil, true, kbs.WorkloadConfig{Args: []string{"secret"}}, ""},
		"no arguments":             {nil, true, kbs.WorkloadConfig{Args: []string{}}, ""},
		"arguments, not allowed":   {[]string{"A"}, false, kbs.WorkloadConfig{Args: []string{"secret"}}, "--args-allow"},
		"none, that not allowed":   {[]string{"A"}, false, kbs.WorkloadConfig{Args: []string{}}, "--args-allow"},
		"arguments allow no names": {nil, true, env("A", "secret"), "--env-allow A"},
		"argument with NUL":        {nil, true, kbs.WorkloadConfig{Args: []string{"secret\x00"}}, "NUL"},
	} {
		p := LaunchPolicy{EnvAllow: c.allow, ArgsAllow: c.args}
		err := p.CheckConfig(&c.config)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
		if takes := p.TakesConfig(); takes != (len(c.allow) > 0 || c.args) {
			t.Errorf("%s: TakesConfig = %v", name, takes)
		}
	}
}

func TestConfigure(t *testing.T) {
	p := Process{Entrypoint: []string{"e"}, Cmd: []string{"c"}, Env: []string{"A=1", "AB=2", "A=3", "C"}}
	was := slices.Clone(p.Env)
	image := p
	image.Configure(&kbs.WorkloadConfig{Env: map[string]string{"A": "x=y", "N": ""}})
	if want := []string{"AB=2", "C", "A=x=y", "N="}; !slices.Equal(image.Env, want) || image.Cmd[0] != "c" {
		t.Errorf("%q %q, expected %q", image.Env, image.Cmd, want)
	}
	if !slices.Equal(p.Env, was) {
		t.Errorf("the image's own became %q", p.Env)
	}
	p.Configure(&kbs.WorkloadConfig{Args: []string{}})
	if len(p.Cmd) != 0 || p.Entrypoint[0] != "e" || !slices.Equal(p.Env, was) {
		t.Errorf("%+v", p)
	}
}
