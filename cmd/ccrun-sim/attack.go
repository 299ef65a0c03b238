package main

import (
	"context"
	"crypto/hpke"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

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
		},
	}
}

// attacker controls a genuine guest of one workload.
type attacker struct {
	client   kbs.Client
	http     *http.Client
	url      string
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
	token, err := face.ReadSecretFile(c.String("token-file"))
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
		client:   kbs.Client{URLs: []string{c.String("server")}, PinnedKeys: pins, Rounds: 1},
		http:     &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}},
		url:      strings.TrimSuffix(c.String("server"), "/"),
		workload: status.Registration, victim: c.String("victim"), tee: tee, out: c.App.Writer,
	}, nil
}

// evidence is what the attacker's genuine guest can have signed: any report
// data, but only its own launch digest.
func (a *attacker) evidence(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
	if len(a.workload.ReferenceValues.Measurements) == 0 {
		return kbs.Evidence{}, errors.New("workload has no measurement")
	}
	launch, err := sample.NewLaunch(a.workload.ReferenceValues.Measurements[0].LaunchDigest)
	if err != nil {
		return kbs.Evidence{}, err
	}
	return a.tee.Sign(rd, launch)
}

func (a *attacker) release(ctx context.Context, id string, attest func(context.Context, kbs.ReportData) (kbs.Evidence, error)) error {
	key, err := a.client.Release(ctx, kbs.ReleaseRequest{
		WorkloadID: id, TEE: kbs.Sample, Attest: attest,
		IdentityDigest: a.workload.IdentityDigest, FooterDigest: a.workload.FooterDigest,
	})
	key.Wipe()
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
	session, err := a.attest(ctx)
	if err != nil {
		return fmt.Errorf("the honest session of %s: %w", a.workload.WorkloadID, err)
	}
	a.say("a session of %s, honestly attested", a.workload.WorkloadID)
	return a.mustRefuse("that session asking for "+a.victim+"'s key",
		a.do(ctx, http.MethodGet, "/v1/workloads/"+a.victim+"/key", session, nil, nil))
}

// attest runs the protocol by hand up to the key.
func (a *attacker) attest(ctx context.Context) (session string, err error) {
	var auth kbs.AuthAnswer
	if err := a.do(ctx, http.MethodPost, "/v1/auth", "", kbs.AuthRequest{Version: 1, TEE: kbs.Sample, WorkloadID: a.workload.WorkloadID}, &auth); err != nil {
		return "", err
	}
	k, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return "", err
	}
	runtime := kbs.RuntimeData{
		Nonce: auth.Nonce, TEEKey: kbs.TEEKey{KEM: k.KEM().ID(), Public: k.PublicKey().Bytes()},
		IdentityDigest: a.workload.IdentityDigest, FooterDigest: a.workload.FooterDigest,
	}
	rd, err := kbs.Binding(a.workload.WorkloadID, runtime)
	if err != nil {
		return "", err
	}
	evidence, err := a.evidence(ctx, rd)
	if err != nil {
		return "", err
	}
	return auth.Session, a.do(ctx, http.MethodPost, "/v1/attest", auth.Session, kbs.AttestRequest{RuntimeData: runtime, Evidence: evidence}, nil)
}

func (a *attacker) do(ctx context.Context, method, path, session string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if session != "" {
		req.Header.Set("Authorization", "Bearer "+session)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var p kbs.Problem
		if err := kbs.DecodeStrict(resp.Body, kbs.MaxAnswerBody, &p); err != nil {
			return fmt.Errorf("server answers %s: %w", resp.Status, err)
		}
		return &kbs.ProblemError{Problem: p}
	}
	if out == nil {
		return nil
	}
	return kbs.DecodeStrict(resp.Body, kbs.MaxAnswerBody, out)
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
