package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/workload"
)

func registerCommand() *cli.Command {
	return &cli.Command{
		Name:      "register",
		Usage:     "register a workload from the record of `ccrun build --no-register`",
		ArgsUsage: "RECORD",
		Description: `Registering the same record twice does no harm. The record holds the disk
key: delete it once the server has it, or keep it as you keep keys.

Example:
   ccrun register --server https://kbs.example:8443 --ca ca.pem --token-file token app.record`,
		Flags:  append(append(serverFlags(), releaseFlags()...), policyFlag(), formatFlag()),
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
		return nil, fail(exitUsage, errors.New("no attestation server"), "give --server URL or set CCRUN_SERVER")
	}
	if tokenFile == "" {
		return nil, fail(exitUsage, errors.New("no token for "+server),
			"give --token-file FILE or set CCRUN_TOKEN_FILE; `attest-server token create --role publisher` makes a token")
	}
	token, err := readSecretFile(tokenFile)
	if err != nil {
		return nil, fmt.Errorf("reading --token-file: %w", err)
	}
	if token.Len() == 0 {
		return nil, fail(exitUsage, fmt.Errorf("--token-file %s is empty", tokenFile), "put the token that `attest-server init` or `token create` printed into it")
	}
	c := &kbs.AdminClient{URL: server, Token: token}
	if ca == "" {
		return c, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("reading --ca: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, usage("--ca %s: no PEM certificate in it", ca)
	}
	return c, nil
}

func runRegister(c *cli.Context) error {
	if err := args(c, 1, 1, "RECORD"); err != nil {
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
	client, err := adminClient(c.String("server"), c.String("ca"), c.String("token-file"))
	if err != nil {
		return err
	}
	created, err := workload.Register(c.Context, client, r)
	if err != nil {
		return err
	}
	out := struct {
		WorkloadID string `json:"workload_id"`
		Created    bool   `json:"created"`
	}{r.Registration.WorkloadID, created}
	return printFormatted(c, out, func(w io.Writer, _ any) error {
		state := "registered"
		if !created {
			state = "was registered already, unchanged"
		}
		_, err := fmt.Fprintf(w, "workload %s %s\n", out.WorkloadID, state)
		return err
	})
}
