package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/workload"
)

// releaseFlags limit how often a registered key is released.
func releaseFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "release-limit", Usage: "release the disk key `once`, to N guests in all, or to N/day (UTC); may be repeated"},
		&cli.StringFlag{Name: "release-until", Usage: "release no disk key after `TIME`, RFC 3339 or from now as in 720h"},
		&cli.StringSliceFlag{Name: "release-approval", Usage: "`TENANT` that must approve before the disk key is released; may be repeated"},
	}
}

// releaseLimits is what releaseFlags say, nil if nothing.
func releaseLimits(c *cli.Context, now time.Time) (*kbs.ReleaseLimits, error) {
	l := kbs.ReleaseLimits{Approvals: c.StringSlice("release-approval")}
	for _, s := range c.StringSlice("release-limit") {
		number, perDay := strings.CutSuffix(s, "/day")
		if s == "once" {
			number = "1"
		}
		n, err := strconv.ParseInt(number, 10, 64)
		to := &l.Total
		if perDay {
			to = &l.PerDay
		}
		if err != nil || n < 1 || *to != 0 {
			return nil, face.Usagef("--release-limit %q: expected once, N or N/day, each at most once", s)
		}
		*to = n
	}
	if s := c.String("release-until"); s != "" {
		until, err := time.Parse(time.RFC3339, s)
		if d, derr := time.ParseDuration(s); derr == nil && d > 0 {
			until, err = now.Add(d), nil
		}
		if err != nil {
			return nil, face.Usagef("--release-until %q: expected a time as in 2027-01-31T00:00:00Z, or 720h", s)
		}
		until = until.UTC().Truncate(time.Second)
		l.NotAfter = &until
	}
	if l.Total == 0 && l.PerDay == 0 && l.NotAfter == nil && len(l.Approvals) == 0 {
		return nil, nil
	}
	return &l, nil
}

func setRelease(c *cli.Context, o *workload.Options) (err error) {
	o.Release, err = releaseLimits(c, time.Now())
	return err
}
