package main

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/workload"
)

// replaceFlag is --replace or --replace=DATE: without '=' it takes no argument.
type replaceFlag struct{ *cli.GenericFlag }

// TakesValue keeps the next argument from being taken for its value.
func (replaceFlag) TakesValue() bool { return false }

func newReplaceFlag() cli.Flag { return replaceFlagOf("make the next version of --workload-id") }

func replaceFlagOf(does string) cli.Flag {
	return replaceFlag{&cli.GenericFlag{Name: "replace", Value: new(optionalValue),
		Usage: does + "; the one before stays valid for 30 days, or until =DATE, as in =2027-01-31T00:00:00Z, =72h or =now"}}
}

// optionalValue is set without a value, too.
type optionalValue string

// set says that there was none.
const set = "true"

func (v *optionalValue) Set(s string) error {
	*v = optionalValue(s)
	return nil
}

func (v *optionalValue) String() string { return string(*v) }

// IsBoolFlag tells package flag that the value may be left out.
func (v *optionalValue) IsBoolFlag() bool { return true }

func setReplace(c *cli.Context, o *workload.Options) error {
	if !c.IsSet("replace") {
		return nil
	}
	if o.WorkloadID == "" {
		return face.Usagef("--replace: which workload? Say --workload-id ID")
	}
	if c.Bool("no-register") {
		return face.Usagef("--replace and --no-register: what is not registered replaces nothing")
	}
	var err error
	o.Replace, err = replacementOf(c)
	return err
}

// replacementOf is what --replace says; nil without it.
func replacementOf(c *cli.Context) (*workload.Replacement, error) {
	if !c.IsSet("replace") {
		return nil, nil
	}
	r := &workload.Replacement{}
	switch v := c.Generic("replace").(*optionalValue); *v {
	case set:
	case "now":
		r.AtOnce = true
	case "":
		return nil, face.Usagef("--replace= without a date: leave '=' out for 30 days")
	default:
		var err error
		if r.Until, err = face.Until("--replace", string(*v), time.Now()); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func printReplaced(w io.Writer, r *workload.Replaced) {
	switch {
	case r == nil:
	case r.Revoked:
		fmt.Fprintf(w, "replaces:    %s, which is revoked\n", r.WorkloadID)
	default:
		fmt.Fprintf(w, "replaces:    %s, valid until %s; `ccrun workload revoke %s` ends it before\n", r.WorkloadID, r.Until.Format(time.RFC3339), r.WorkloadID)
	}
}
