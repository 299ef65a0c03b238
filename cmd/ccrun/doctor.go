package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/doctor"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "check whether this host can run confidential workloads, and how to repair it",
		Description: `Judges what the runtime krun would take, by /etc/ccrun/krun.json if it is there: crun,
libkrun as the dynamic loader finds it, libkrunfw, a directory that executes; and
what KVM and Podman say. Run it as the user who runs Podman. Exits 4 when the host
is not capable.

Example:
   ccrun doctor --server https://attest.example:8443`,
		Flags: []cli.Flag{
			face.FormatFlag(),
			&cli.StringFlag{Name: "server", Usage: "also check that the attestation server at `URL` can be reached", EnvVars: []string{"CCRUN_SERVER"}},
		},
		Action: func(c *cli.Context) error {
			host := doctor.Local()
			if s := c.String("server"); s != "" {
				if err := kbs.CheckServerURL(s); err != nil {
					return face.WithStatus(face.Misused, err)
				}
				host.Server = func(ctx context.Context) error { return dial(ctx, s) }
			}
			findings, fit := host.Examine(c.Context)
			if err := printFindings(c, findings); err != nil {
				return err
			}
			if !fit {
				return hint.With(face.WithStatus(face.NotCapable, errors.New("this host cannot run confidential workloads")), "each failed check above names its repair")
			}
			return nil
		},
	}
}

// dial only opens a connection: a host asks the server for nothing, and it is
// for guests to say whether they trust it.
func dial(ctx context.Context, server string) error {
	u, err := url.Parse(server)
	if err != nil {
		return err
	}
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), "443")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

func printFindings(c *cli.Context, findings []doctor.Finding) error {
	return face.Print(c, findings, func(out io.Writer, _ []doctor.Finding) error {
		w := face.Table(out)
		for _, f := range findings {
			fmt.Fprintf(w, "%s\t%s\t%s\n", f.Status, f.Check, f.Got)
			if f.Fix != "" {
				fmt.Fprintf(w, "\t\tfix: %s\n", f.Fix)
			}
		}
		return w.Flush()
	})
}
