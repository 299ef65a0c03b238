package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/cmd/face"
)

// attackCommand plays attackers against a server of one's own, for demo and
// tests. The simulated TEE signs whatever they ask, as a root workload in a
// genuine TEE could have it signed.
func attackCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "workload", Required: true, Usage: "registered workload `ID` whose guest the attacker controls"},
		&cli.StringFlag{Name: "server", Required: true, EnvVars: []string{"CCRUN_SERVER"}, Usage: "attestation server `URL`"},
		&cli.StringFlag{Name: "token-file", Required: true, EnvVars: []string{"CCRUN_TOKEN_FILE"}, Usage: "admin token, to look up public values only"},
		&cli.StringFlag{Name: "ca", Required: true, EnvVars: []string{"CCRUN_CA"}, Usage: "the server's CA `FILE`"},
		&cli.StringFlag{Name: "sample-root", EnvVars: []string{"CCRUN_SIM_ROOT"}, Value: "/var/lib/ccrun-sim", Usage: "simulated platform `DIR`"},
	}
	victim := &cli.StringFlag{Name: "victim", Required: true, Usage: "workload `ID` whose key the attacker wants"}
	return &cli.Command{
		Name:        "attack",
		Usage:       "try to get a key that is not ours (exit 3: refused, 0: the server is broken)",
		Description: "Example:\n   ccrun-sim attack replay --workload shop",
		Subcommands: []*cli.Command{
			{Name: "replay", Usage: "show an earlier session's Evidence again", Description: "Example:\n   ccrun-sim attack replay --workload shop --server https://127.0.0.1:8443 --ca ca.pem --token-file token", Flags: flags, Action: attack((*attacker).replay)},
			{Name: "other-key", Usage: "ask for another workload's key with genuine Evidence", Description: "Example:\n   ccrun-sim attack other-key --workload shop --victim bank --server https://127.0.0.1:8443 --ca ca.pem --token-file token", Flags: append([]cli.Flag{victim}, flags...), Action: attack((*attacker).otherKey)},
			{Name: "second-release", Usage: "ask again from a VM whose disk is open", Description: "Plays a program that reached the report device of a running VM.\n\nExample:\n   ccrun-sim attack second-release --workload shop --server https://127.0.0.1:8443 --ca ca.pem --token-file token", Flags: flags, Action: attack((*attacker).secondRelease)},
		},
	}
}

// attacker controls a genuine guest of one workload.
type attacker struct {
	client   kbs.Client
	workload kbs.Registration
	victim   string
	tee      *sample.Attester
	out      io.Writer
}

func attack(run func(*attacker, context.Context) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		a, err := newAttacker(c)
		if err != nil {
			return err
		}
		return run(a, c.Context)
	}
}

func newAttacker(c *cli.Context) (*attacker, error) {
	pem, err := os.ReadFile(c.String("ca"))
	if err != nil {
		return nil, fmt.Errorf("reading CA: %w", err)
	}
	token, err := face.ReadTokenFile(c.String("token-file"))
	if err != nil {
		return nil, fmt.Errorf("reading token: %w", err)
	}
	pins, err := kbs.PinsFromPEM(pem)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	admin := kbs.AdminClient{URL: c.String("server"), Token: token, RootCAs: roots}
	status, err := admin.Get(c.Context, c.String("workload"))
	if err != nil {
		return nil, err
	}
	tee, err := sample.OpenAttester(c.String("sample-root"))
	if err != nil {
		return nil, err
	}
	return &attacker{
		client:   kbs.Client{URLs: []string{c.String("server")}, PinnedKeys: pins},
		workload: status.Registration, victim: c.String("victim"), tee: tee, out: c.App.Writer,
	}, nil
}

// evidence is what the attacker's genuine guest can have signed: any report
// data, but only its own launch digest.
func (a *attacker) evidence(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
	launch, err := a.launch()
	if err != nil {
		return kbs.Evidence{}, err
	}
	return a.tee.Sign(rd, launch)
}

// launch is a new VM of the workload.
func (a *attacker) launch() (sample.Launch, error) {
	if len(a.workload.ReferenceValues.Measurements) == 0 {
		return sample.Launch{}, errors.New("workload has no measurement")
	}
	return sample.NewLaunch(a.workload.ReferenceValues.Measurements[0].LaunchDigest)
}

// request is what a guest of workload id would ask with, but for the identity
// and footer, which are the attacker's own.
func (a *attacker) request(id string, attest func(context.Context, kbs.ReportData) (kbs.Evidence, error)) kbs.ReleaseRequest {
	return kbs.ReleaseRequest{
		WorkloadID: id, TEE: kbs.Sample, Attest: attest,
		IdentityDigest: a.workload.IdentityDigest, FooterDigest: a.workload.FooterDigest,
	}
}

func (a *attacker) release(ctx context.Context, id string, attest func(context.Context, kbs.ReportData) (kbs.Evidence, error)) error {
	diskKey, err := a.client.Release(ctx, a.request(id, attest))
	diskKey.Wipe()
	return err
}

// replay first proves that its Evidence is good: once, for its own nonce.
func (a *attacker) replay(ctx context.Context) error {
	var old kbs.Evidence
	err := a.release(ctx, a.workload.WorkloadID, func(ctx context.Context, rd kbs.ReportData) (ev kbs.Evidence, err error) {
		old, err = a.evidence(ctx, rd)
		return old, err
	})
	if err != nil {
		return fmt.Errorf("the honest session before the replay: %w", err)
	}
	a.say("session 1, fresh Evidence: key released")
	return a.mustRefuse("session 2, the same Evidence", a.release(ctx, a.workload.WorkloadID,
		func(context.Context, kbs.ReportData) (kbs.Evidence, error) { return old, nil }))
}

// otherKey tries both ways: attest as the victim with another launch digest,
// and ask an honestly attested session for the victim's key.
func (a *attacker) otherKey(ctx context.Context) error {
	err := a.mustRefuse("attesting as "+a.victim+" from a guest of "+a.workload.WorkloadID, a.release(ctx, a.victim, a.evidence))
	if face.Status(err) != face.Denied {
		return err
	}
	session, err := a.client.Attest(ctx, a.request(a.workload.WorkloadID, a.evidence))
	if err != nil {
		return fmt.Errorf("the honest session of %s: %w", a.workload.WorkloadID, err)
	}
	defer session.Close()
	a.say("a session of %s, honestly attested", a.workload.WorkloadID)
	diskKey, err := session.DiskKeyOf(ctx, a.victim)
	diskKey.Wipe()
	return a.mustRefuse("that session asking for "+a.victim+"'s key", err)
}

// secondRelease is an honest agent up to the point where its workload starts.
// Then the attacker has reports made in that VM, over a key of his own.
func (a *attacker) secondRelease(ctx context.Context) error {
	launch, err := a.launch()
	if err != nil {
		return err
	}
	inVM := func(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) { return a.tee.Sign(rd, launch) }
	request := a.request(a.workload.WorkloadID, inVM)
	session, diskKey, err := a.client.Open(ctx, request)
	if err != nil {
		return fmt.Errorf("the agent's session: %w", err)
	}
	defer session.Close()
	diskKey.Wipe()
	if err := a.client.Confirm(ctx, request, session); err != nil {
		return fmt.Errorf("the agent's confirmation: %w", err)
	}
	a.say("the agent has the key, and has confirmed that its disk opened")
	again, err := session.DiskKey(ctx)
	again.Wipe()
	if err := a.mustRefuse("the agent's session asking again", err); face.Status(err) != face.Denied {
		return err
	}
	return a.mustRefuse("a new session of the same VM", a.release(ctx, a.workload.WorkloadID, inVM))
}

func (a *attacker) say(format string, v ...any) {
	fmt.Fprintf(a.out, "attack: "+format+"\n", v...)
}

// mustRefuse reports success only for a refusal by the server: an attack that
// failed for want of a network proves nothing.
func (a *attacker) mustRefuse(what string, err error) error {
	var p *kbs.ProblemError
	switch {
	case err == nil:
		a.say("%s: KEY RELEASED", what)
		return nil
	case errors.As(err, &p):
		a.say("%s: refused (%s)", what, p.Code)
		return face.WithStatus(face.Denied, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
