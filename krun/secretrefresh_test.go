package krun

import "testing"

func TestParseSecretRefresh(t *testing.T) {
	for s, want := range map[string]SecretRefresh{
		"1s": {1, ""}, "10m": {600, ""}, "8784h": {31622400, ""}, "90s,signal=HUP": {90, "SIGHUP"}, "1h,signal=sigusr1": {3600, "SIGUSR1"}, "1m,signal=TERM": {60, "SIGTERM"},
	} {
		if r, err := ParseSecretRefresh(s); err != nil || *r != want {
			t.Errorf("%s: %+v, %v", s, r, err)
		}
	}
	for _, s := range []string{"", "0", "0s", "-1s", "10", "1500ms", "8785h", "1m,", "1m,signal=", "1m,signal=KILL", "1m,signal=STOP", "1m,signal=SEGV", "1m,signal=1", "1m,HUP", "1m,signal=HUP,signal=HUP"} {
		if r, err := ParseSecretRefresh(s); err == nil {
			t.Errorf("%q: %+v", s, r)
		}
	}
}

func TestValidateRefresh(t *testing.T) {
	file, env := []SecretRule{{Name: "a/b/c", Path: "/x"}}, []SecretRule{{Name: "a/b/c", Env: "X"}}
	for name, x := range map[string]struct {
		policy  LaunchPolicy
		network NetworkMode
		ok      bool
	}{
		"none":           {LaunchPolicy{}, NetworkNone, true},
		"a file":         {LaunchPolicy{Secrets: file, SecretRefresh: &SecretRefresh{Seconds: 1, Signal: "SIGHUP"}}, NetworkTSI, true},
		"variables":      {LaunchPolicy{Secrets: env, SecretRefresh: &SecretRefresh{Seconds: 1}}, NetworkTSI, false},
		"what is asked":  {LaunchPolicy{SecretRefresh: &SecretRefresh{Seconds: 1}}, NetworkTSI, true},
		"no network":     {LaunchPolicy{Secrets: file, SecretRefresh: &SecretRefresh{Seconds: 1}}, NetworkNone, false},
		"zero":           {LaunchPolicy{Secrets: file, SecretRefresh: &SecretRefresh{}}, NetworkTSI, false},
		"too seldom":     {LaunchPolicy{Secrets: file, SecretRefresh: &SecretRefresh{Seconds: 1 << 31}}, NetworkTSI, false},
		"another signal": {LaunchPolicy{Secrets: file, SecretRefresh: &SecretRefresh{Seconds: 1, Signal: "SIGKILL"}}, NetworkTSI, false},
	} {
		if err := x.policy.SecretRefresh.Validate(x.policy.Secrets, x.network); (err == nil) != x.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
