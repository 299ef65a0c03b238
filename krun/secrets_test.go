package krun

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

func TestParseSecretRule(t *testing.T) {
	for s, want := range map[string]SecretRule{
		"kbs:///a/b/c,target=/etc/x":                                    {Name: "a/b/c", Path: "/etc/x"},
		"kbs:///a/b/c,target=x":                                         {Name: "a/b/c", Path: "/run/secrets/x"},
		"kbs:///a/b/c,target=x/y=z":                                     {Name: "a/b/c", Path: "/run/secrets/x/y=z"},
		"kbs:///a/b/c,optional,env=X":                                   {Name: "a/b/c", Env: "X", Optional: true},
		"kbs:///a/b/c,gid=8,target=/etc/x,mode=0400,uid=7,optional":     {Name: "a/b/c", Path: "/etc/x", Mode: 0o400, UID: 7, GID: 8, Optional: true},
		"kbs:///a/b/c,target=/etc/x,uid=2147483647,mode=777":            {Name: "a/b/c", Path: "/etc/x", Mode: 0o777, UID: 1<<31 - 1},
		"kbs:///a/b/" + strings.Repeat("c", 64) + ",target=/etc/ü x+.y": {Name: "a/b/" + strings.Repeat("c", 64), Path: "/etc/ü x+.y"},
	} {
		if r, err := ParseSecretRule(s); err != nil || r != want {
			t.Errorf("%s: %+v, %v", s, r, err)
		}
	}
	for _, s := range []string{
		"", "a/b/c,env=X", "kbs:///a/b/c", "kbs:///a/b,env=X", "kbs:///a/b/c/d,env=X", "kbs:///../b/c,env=X", "kbs:///a/b/c%2f,env=X", "kbs://host/a/b/c,env=X", "KBS:///a/b/c,env=X",
		"kbs:///a/b/c,env=X,target=/x", "kbs:///a/b/c,env=", "kbs:///a/b/c,target=", "kbs:///a/b/c,env=X=Y", "kbs:///a/b/c,env=1X", "kbs:///a/b/c,env=X,env=Y",
		"kbs:///a/b/c,env=X,mode=0400", "kbs:///a/b/c,env=X,uid=1", "kbs:///a/b/c,target=/x,mode=8", "kbs:///a/b/c,target=/x,mode=1777", "kbs:///a/b/c,target=/x,mode=4755",
		"kbs:///a/b/c,target=/x,mode=0", "kbs:///a/b/c,target=/x,mode=-1", "kbs:///a/b/c,target=/x,uid=root", "kbs:///a/b/c,target=/x,uid=2147483648", "kbs:///a/b/c,target=/x,optional=no",
		"kbs:///a/b/c,target=/x,ro", "kbs:///a/b/c,target=/x,", "kbs:///a/b/c,,target=/x", "kbs:///a/b/c,target=../x", "kbs:///a/b/c,target=.", "kbs:///a/b/c,target=/", "kbs:///a/b/c,target=//x",
		"kbs:///a/b/c,target=/x/", "kbs:///a/b/c,target=/x/../y", "kbs:///a/b/c,target=/x\n", "kbs:///a/b/c,target=/x\x00", "kbs:///a/b/c,target=/\xff", "kbs:///a/b/c,target=/proc/x",
		"kbs:///a/b/c,target=/dev/shm/x", "kbs:///a/b/c,target=/run/x", "kbs:///a/b/c,target=/run/secrets", "kbs:///a/b/c,target=.at", "kbs:///a/b/c,target=.at/0/x", "kbs:///a/b/c,target=1/2/3/4/5/6/7/8/9",
		"kbs:///a/b/c,target=/etc/hosts", "kbs:///a/b/c,target=/tmp/x", "kbs:///ccrun/disk-key/w,env=X", "kbs:///ccrun/disk-key.staged/w,env=X",
		"kbs:///a/b/c,target=/" + strings.Repeat("x", maxSecretPath),
	} {
		if r, err := ParseSecretRule(s); err == nil {
			t.Errorf("%q: %+v", s, r)
		}
	}
}

// TestValidateSecrets: no two things in one place, and not more than a guest asks
// for.
func TestValidateSecrets(t *testing.T) {
	file := func(p string) SecretRule { return SecretRule{Name: "a/b/c", Path: p} }
	var many []SecretRule
	for i := range kbs.MaxSecrets + 1 {
		many = append(many, file(fmt.Sprintf("/etc/s%d", i)))
	}
	for name, x := range map[string]struct {
		policy  LaunchPolicy
		volumes []Volume
		ok      bool
	}{
		"none":               {LaunchPolicy{}, nil, true},
		"several":            {LaunchPolicy{Secrets: []SecretRule{file("/etc/a"), file("/etc/ab"), {Name: "a/b/c", Env: "A"}, {Name: "a/b/c", Env: "B"}}, EnvAllow: []string{"AB", "a=A"}}, []Volume{{Name: "v", Path: "/var/lib"}}, true},
		"most":               {LaunchPolicy{Secrets: many[1:]}, nil, true},
		"too many":           {LaunchPolicy{Secrets: many}, nil, false},
		"one path":           {LaunchPolicy{Secrets: []SecretRule{file("/etc/a"), file("/etc/a")}}, nil, false},
		"one below another":  {LaunchPolicy{Secrets: []SecretRule{file("/etc/a"), file("/etc/a/b")}}, nil, false},
		"one above another":  {LaunchPolicy{Secrets: []SecretRule{file("/etc/a/b"), file("/etc/a")}}, nil, false},
		"one variable":       {LaunchPolicy{Secrets: []SecretRule{{Name: "a/b/c", Env: "A"}, {Name: "a/b/d", Env: "A"}}}, nil, false},
		"of configuration":   {LaunchPolicy{Secrets: []SecretRule{{Name: "a/b/c", Env: "A"}}, EnvAllow: []string{"A=[0-9]+"}}, nil, false},
		"in a volume":        {LaunchPolicy{Secrets: []SecretRule{file("/var/lib/a")}}, []Volume{{Name: "v", Path: "/var/lib"}}, false},
		"around a volume":    {LaunchPolicy{Secrets: []SecretRule{file("/var/lib")}}, []Volume{{Name: "v", Path: "/var/lib/a"}}, false},
		"a volume in theirs": {LaunchPolicy{Secrets: []SecretRule{{Name: "a/b/c", Env: "A"}}}, []Volume{{Name: "v", Path: "/run/secrets/v"}}, false},
		"zero":               {LaunchPolicy{Secrets: []SecretRule{{}}}, nil, false},
	} {
		if err := ValidateSecrets(x.policy.Secrets, x.policy.EnvAllow, x.volumes); (err == nil) != x.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSecretPlaces(t *testing.T) {
	for p, want := range map[string][2]string{
		"/etc/app/db.pem":  {".at/7/db.pem", "/run/secrets/.at/7/db.pem"},
		"/run/secrets/a/b": {"a/b", ""},
		"/run/secretsx":    {".at/7/secretsx", "/run/secrets/.at/7/secretsx"},
	} {
		if r := (SecretRule{Path: p}); r.Place(7) != want[0] || r.Link(7) != want[1] {
			t.Errorf("%s: %q, %q", p, r.Place(7), r.Link(7))
		}
	}
	if names := SecretNames([]SecretRule{{Name: "a/b/c"}, {Name: "a/b/d"}, {Name: "a/b/c"}}); !slices.Equal(names, []string{"a/b/c", "a/b/d"}) {
		t.Errorf("%q", names)
	}
	for text, ok := range map[string]bool{"pass word\n": true, "ü": true, "a\x00": false, "\xff": false} {
		if v, err := SecretVariable([]byte(text)); (err == nil) != ok || ok && v != text || err != nil && strings.Contains(err.Error(), text) {
			t.Errorf("%q: %q, %v", text, v, err)
		}
	}
}

func FuzzParseSecretRule(f *testing.F) {
	f.Add("kbs:///a/b/c,target=/etc/x,mode=0400,uid=7,gid=8,optional")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseSecretRule(s)
		if err != nil {
			return
		}
		if ValidateSecrets([]SecretRule{r}, nil, nil) != nil {
			t.Errorf("%q: %+v", s, r)
		}
		if place := r.Place(0); r.Path != "" && (strings.HasPrefix(place, "/") || strings.HasPrefix(place, "..")) {
			t.Errorf("%q is at %q", s, place)
		}
	})
}
