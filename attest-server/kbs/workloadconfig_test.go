package kbs

import (
	"bytes"
	"maps"
	"reflect"
	"strings"
	"testing"
)

func TestConfigEncode(t *testing.T) {
	many := map[string]string{}
	for i := range maxConfigVariables + 1 {
		many["A"+strings.Repeat("B", i%100)+string(rune('a'+i/100))] = ""
	}
	for name, c := range map[string]struct {
		config WorkloadConfig
		want   string // encoded; empty: refused
	}{
		"nothing":         {WorkloadConfig{}, "{}"},
		"no arguments":    {WorkloadConfig{Args: []string{}}, `{"args":[]}`},
		"both":            {WorkloadConfig{Env: map[string]string{"B": "2", "A": "1"}, Args: []string{"x"}}, `{"args":["x"],"env":{"A":"1","B":"2"}}`},
		"1 MiB":           {WorkloadConfig{Env: map[string]string{"A": strings.Repeat("x", 1<<20)}}, ""},
		"many variables":  {WorkloadConfig{Env: many}, ""},
		"many arguments":  {WorkloadConfig{Args: make([]string, maxConfigArgs+1)}, ""},
		"name with =":     {WorkloadConfig{Env: map[string]string{"A=B": ""}}, ""},
		"name with a NUL": {WorkloadConfig{Env: map[string]string{"A\x00": ""}}, ""},
		"name of a line":  {WorkloadConfig{Env: map[string]string{"A\n": ""}}, ""},
		"long name":       {WorkloadConfig{Env: map[string]string{strings.Repeat("A", maxVariableName+1): ""}}, ""},
		"digit first":     {WorkloadConfig{Env: map[string]string{"1A": ""}}, ""},
		"NUL":             {WorkloadConfig{Env: map[string]string{"A": "\x00"}}, ""},
		"no text":         {WorkloadConfig{Env: map[string]string{"A": "\xff"}}, ""},
		"NUL argument":    {WorkloadConfig{Args: []string{"\x00"}}, ""},
	} {
		b, err := c.config.Encode()
		if string(b) != c.want && err == nil || (err == nil) != (c.want != "") {
			t.Errorf("%s: %.80q, %v", name, b, err)
		}
		if err != nil {
			continue
		}
		if back, err := DecodeConfig(b); err != nil || (back.Args == nil) != (c.config.Args == nil) {
			t.Errorf("%s: %+v, %v", name, back, err)
		}
	}
	for _, bad := range []string{"", "null ", "[]", `{"env":{"A":"1"},"x":1}`, `{"env":{"B":"1","A":"1"}}`, `{"env":{"A":"1","A":"2"}}`, `{"args":[], "env":{}}`, `{"env":{"A":1}}`} {
		if c, err := DecodeConfig([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, c)
		}
	}
}

func TestConfigChange(t *testing.T) {
	have := WorkloadConfig{Env: map[string]string{"A": "1", "B": "2"}, Args: []string{"x"}}
	for name, c := range map[string]struct {
		change ConfigChange
		want   WorkloadConfig
		bad    bool
	}{
		"nothing":        {ConfigChange{}, have, false},
		"one variable":   {ConfigChange{Set: WorkloadConfig{Env: map[string]string{"B": "3"}}}, WorkloadConfig{Env: map[string]string{"A": "1", "B": "3"}, Args: have.Args}, false},
		"replace":        {ConfigChange{Replace: true, Set: WorkloadConfig{Env: map[string]string{"C": "3"}}}, WorkloadConfig{Env: map[string]string{"C": "3"}}, false},
		"unset":          {ConfigChange{Unset: []string{"A"}, UnsetArgs: true}, WorkloadConfig{Env: map[string]string{"B": "2"}}, false},
		"no arguments":   {ConfigChange{Set: WorkloadConfig{Args: []string{}}}, WorkloadConfig{Env: have.Env, Args: []string{}}, false},
		"unset unknown":  {ConfigChange{Unset: []string{"C"}}, WorkloadConfig{}, true},
		"unset replaced": {ConfigChange{Replace: true, Unset: []string{"A"}}, WorkloadConfig{}, true},
	} {
		was := maps.Clone(have.Env)
		got, err := c.change.Apply(have)
		if (err != nil) != c.bad || err == nil && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if !maps.Equal(have.Env, was) {
			t.Errorf("%s: changed what there was", name)
		}
	}
}

func FuzzDecodeConfig(f *testing.F) {
	f.Add([]byte(`{"args":["x"],"env":{"A":"1"}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeConfig(b)
		if err != nil {
			return
		}
		if again, err := c.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%q became %q, %v", b, again, err)
		}
	})
}
