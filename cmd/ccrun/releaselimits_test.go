package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

func TestReleaseLimitFlags(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for _, x := range []struct {
		args []string
		want string // "": refused
	}{
		{nil, "null"},
		{[]string{"--release-limit", "once"}, `{"total":1}`},
		{[]string{"--release-limit", "5", "--release-limit", "2/day"}, `{"total":5,"per_day":2}`},
		{[]string{"--release-until", "1h"}, `{"not_after":"2026-01-02T04:04:05Z"}`},
		{[]string{"--release-until", "2027-01-31T01:00:00+01:00"}, `{"not_after":"2027-01-31T00:00:00Z"}`},
		{[]string{"--release-approval", "bank"}, `{"approvals":["bank"]}`},
		{[]string{"--release-limit", "0"}, ""},
		{[]string{"--release-limit", "-1"}, ""},
		{[]string{"--release-limit", "once/day"}, ""},
		{[]string{"--release-limit", "once", "--release-limit", "2"}, ""},
		{[]string{"--release-limit", "2/week"}, ""},
		{[]string{"--release-until", "tomorrow"}, ""},
		{[]string{"--release-until", "-1h"}, ""},
	} {
		var l *kbs.ReleaseLimits
		app := &cli.App{Flags: releaseFlags(), Action: func(c *cli.Context) (err error) {
			l, err = releaseLimits(c, now)
			return err
		}}
		err := app.Run(append([]string{"x"}, x.args...))
		got, _ := json.Marshal(l)
		if (err != nil) != (x.want == "") || err == nil && string(got) != x.want {
			t.Errorf("%q: %s, %v, expected %s", x.args, got, err, x.want)
		}
	}
}
