package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload"
)

func registerCommand() *cli.Command {
	return &cli.Command{
		Name:      "register",
		Usage:     "register a workload from the record of `ccrun build --no-register`",
		ArgsUsage: "RECORD",
		Description: `Registering the same record twice does no harm. The record holds the disk
key: delete it once the server has it, or keep it as you keep keys.

Examples:
   ccrun register --server https://kbs.example:8443 --ca ca.pem --token-file token app.record
   ccrun register --replace=72h app-2.record    # the next version of a workload`,
		Flags: append(slices.Concat(serverFlags(), releaseFlags(), ruleFlags()), face.FormatFlag(),
			replaceFlagOf("register the next version of the record's workload"),
			&cli.BoolFlag{Name: "allow-acpi", Usage: "register a machine whose kernel runs the host's ACPI code, which nothing measures"}),
		Action: runRegister,
	}
}

// serverFlags are those of every command that talks to the server as an admin.
func serverFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "server", EnvVars: []string{"CCRUN_SERVER"}, Usage: "`URL` of the attestation server"},
		&cli.StringFlag{Name: "token-file", EnvVars: []string{"CCRUN_TOKEN_FILE"}, Usage: "`FILE` with the admin or publisher token"},
		&cli.StringFlag{Name: "ca", EnvVars: []string{"CCRUN_CA"}, Usage: "PEM `FILE` with the server's or its CA's certificate (default: the system's CAs)"},
	}
}

// adminClient is the client for server, which is trusted by ca, a PEM file,
// or by the system's CAs if ca is empty.
func adminClient(server, ca, tokenFile string) (*kbs.AdminClient, error) {
	if server == "" {
		return nil, hint.With(face.Usagef("no attestation server"), "`ccrun login URL` remembers one; or give --server URL, or set CCRUN_SERVER")
	}
	if err := kbs.CheckServerURL(server); err != nil {
		return nil, face.WithStatus(face.Misused, err)
	}
	if tokenFile == "" {
		return nil, hint.With(face.Usagef("no token for %s", server),
			"give --token-file FILE or set CCRUN_TOKEN_FILE; `attest-server token create --role publisher` makes a token")
	}
	token, err := face.ReadTokenFile(tokenFile)
	if err != nil {
		return nil, fmt.Errorf("reading --token-file: %w", err)
	}
	c := &kbs.AdminClient{URL: server, Token: token}
	if ca == "" {
		return c, nil
	}
	if c.RootCAs, err = face.Roots("--ca", ca); err != nil {
		return nil, err
	}
	return c, nil
}

// registered is the JSON of `ccrun register`.
type registered struct {
	WorkloadID string             `json:"workload_id"`
	Created    bool               `json:"created"`
	Replaced   *workload.Replaced `json:"replaced,omitempty"`
}

// registeredClassic is the same for a classic image, whose protocol does not
// tell whether the workload was there before.
type registeredClassic struct {
	WorkloadID string `json:"workload_id"`
}

func runRegister(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "RECORD"); err != nil {
		return err
	}
	if legacy, err := workload.ReadLegacyRecord(c.Args().First()); err == nil {
		return registerClassic(c, legacy)
	}
	r, err := workload.ReadRecord(c.Args().First())
	if err != nil {
		return err
	}
	defer clear(r.DiskKey)
	if err := workload.CheckACPI(r, c.Bool("allow-acpi")); err != nil {
		return err
	}
	limits, err := releaseLimits(c, time.Now())
	if err != nil {
		return err
	}
	if limits != nil {
		r.Registration.Release = limits
	}
	if r.Registration.ReferenceValues, err = withPolicy(c, r.Registration.ReferenceValues); err != nil {
		return err
	}
	next, err := replacementOf(c)
	if err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	out := registered{WorkloadID: r.Registration.WorkloadID}
	if out.Created, out.Replaced, err = workload.Register(c.Context, client, r, next); err != nil {
		return err
	}
	return face.Print(c, out, func(w io.Writer, _ registered) error {
		state := "registered"
		if !out.Created {
			state = "was registered already, unchanged"
		}
		_, err := fmt.Fprintf(w, "workload %s %s\n", out.WorkloadID, state)
		printReplaced(w, out.Replaced)
		return err
	})
}

func registerClassic(c *cli.Context, r *workload.LegacyRegistration) error {
	if c.IsSet("replace") {
		return face.Usagef("--replace: the classic protocol has no versions; register the image under another id, or remove the workload first")
	}
	if c.IsSet("policy") || c.IsSet("allow-advisory") {
		return face.Usagef("--policy and --allow-advisory: the classic protocol cannot register rules; a tenant's or server's policy holds for it, too")
	}
	v, err := connectionOf(c)
	if err != nil {
		return err
	}
	client, err := legacyClient(v)
	if err != nil {
		return err
	}
	if err := client.RegisterLegacy(c.Context, *r); err != nil {
		return fmt.Errorf("registering workload %s: %w", r.WorkloadID, err)
	}
	out := registeredClassic{r.WorkloadID}
	return face.Print(c, out, func(w io.Writer, _ registeredClassic) error {
		_, err := fmt.Fprintf(w, "workload %s registered\n", out.WorkloadID)
		return err
	})
}

func legacyClient(v connection) (*workload.LegacyClient, error) {
	a, err := adminClient(v.server, v.ca, v.tokenFile)
	if err != nil {
		return nil, err
	}
	return &workload.LegacyClient{URL: a.URL, Token: a.Token, RootCAs: a.RootCAs}, nil
}
