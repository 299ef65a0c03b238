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
	var err error
	if l.NotAfter, err = face.Until("--release-until", c.String("release-until"), now); err != nil {
		return nil, err
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
