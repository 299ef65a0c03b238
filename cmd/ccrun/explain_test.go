package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/servertest"
	"github.com/ccrun/ccrun/attest-server/verifier"
	attestcommand "github.com/ccrun/ccrun/cmd/attest-server/command"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/secret"
)

// startServer runs a real attest-server and points CCRUN_* at it.
func startServer(t *testing.T) *kbs.AdminClient {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	token := filepath.Join(t.TempDir(), "token")
	ctx, cancel := context.WithCancel(t.Context())
	var out, log servertest.Buffer
	attestServer := func(args ...string) error {
		app := attestcommand.Program{Program: face.Program{Name: "attest-server"}, Verifiers: func(_ *cli.Context, e attestcommand.Endorsements) (map[kbs.TEE]verifier.Verifier, error) {
			return attestcommand.Production(e)
		}}.App()
		app.Writer, app.ErrWriter = &out, &log
		return app.RunContext(ctx, append([]string{"attest-server"}, args...))
	}
	if err := attestServer("init", "--data", dir, "--token-out", token); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- attestServer("serve", "--data", dir, "--listen", "127.0.0.1:0") }()
	t.Cleanup(func() { cancel(); <-done })
	for deadline := time.Now().Add(2 * time.Minute); !strings.Contains(out.String(), "\n"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(log.String())
		}
	}
	url, ca := strings.TrimSpace(out.String()), filepath.Join(dir, "ca.pem")
	t.Setenv("CCRUN_SERVER", url)
	t.Setenv("CCRUN_TOKEN_FILE", token)
	t.Setenv("CCRUN_CA", ca)
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(token)
	if err != nil {
		t.Fatal(err)
	}
	c := &kbs.AdminClient{URL: url, Token: secret.New(bytes.TrimSpace(text)), RootCAs: x509.NewCertPool()}
	c.RootCAs.AppendCertsFromPEM(pem)
	return c
}

func ccrun(args ...string) (string, error) {
	app := newApp()
	var out bytes.Buffer
	app.Writer = &out
	err := app.Run(face.Intersperse(app, append([]string{"ccrun"}, args...), program.Raw...))
	return out.String(), err
}

func TestGivenText(t *testing.T) {
	for want, g := range map[string]kbs.Given{
		"1 secret": {Secrets: 1},
		"102 secrets, configuration version 3, the keys of volumes data logs": {Secrets: 102, Config: 3, Volumes: []string{"data", "logs"}},
	} {
		if got := givenText(&g); got != want {
			t.Errorf("%q, expected %q", got, want)
		}
	}
}

func TestWorkloadAndExplain(t *testing.T) {
	c := startServer(t)
	for i, id := range []string{"bakery", "shop"} {
		if _, err := c.Register(t.Context(), kbs.RegisterRequest{DiskKey: []byte("very secret"), Registration: kbs.Registration{
			Version: 1, WorkloadID: id, IdentityDigest: kbs.Sum384([]byte(id)), FooterDigest: kbs.Sum384([]byte("f")), Image: "sha256:\x1b[31m",
			ReferenceValues: kbs.ReferenceValues{TEE: kbs.SNP, Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{byte(i + 1)}, Profile: "p", CPUs: 2, MemoryMiB: 512}}},
		}}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := ccrun("workload", "ls")
	if err != nil || !strings.Contains(out, "bakery") || !strings.Contains(out, "active") || strings.Contains(out, "\x1b") {
		t.Errorf("ls: %q, %v", out, err)
	}
	if out, err := ccrun("workload", "list", "-q"); err != nil || out != "bakery\nshop\n" {
		t.Errorf("list -q: %q, %v", out, err)
	}
	out, err = ccrun("workload", "show", "shop", "--format", "json")
	var status kbs.WorkloadStatus
	if err != nil || json.Unmarshal([]byte(out), &status) != nil || status.Registration.WorkloadID != "shop" || strings.Contains(out, "disk_key") {
		t.Errorf("show: %s, %v", out, err)
	}
	if out, err = ccrun("workload", "show", "shop"); err != nil || !strings.Contains(out, (kbs.LaunchDigest{2}).String()) {
		t.Errorf("show: %s, %v", out, err)
	}

	number := denied(t, c)
	out, err = ccrun("explain", number)
	if err != nil || !strings.Contains(out, "denied") || !strings.Contains(out, "NO ") || !strings.Contains(out, "\n  hint ") || !strings.Contains(out, "report") {
		t.Errorf("explain:\n%s\n%v", out, err)
	}
	out, err = ccrun("explain", "--format", "json", number)
	var rec kbs.SessionRecord
	if err != nil || json.Unmarshal([]byte(out), &rec) != nil || rec.Session != number || rec.Granted || len(rec.Result.Rules) == 0 {
		t.Errorf("explain: %s, %v", out, err)
	}

	if out, err = ccrun("workload", "revoke", "shop"); err != nil || out != "shop\n" {
		t.Errorf("revoke: %q, %v", out, err)
	}
	if out, err = ccrun("workload", "ls", "--format", "{{range .}}{{.WorkloadID}}={{if .RevokedAt}}gone{{end}} {{end}}"); err != nil || out != "bakery= shop=gone \n" {
		t.Errorf("ls: %q, %v", out, err)
	}
	if out, err = ccrun("workload", "rm", "bakery", "shop"); err != nil || out != "bakery\nshop\n" {
		t.Errorf("rm: %q, %v", out, err)
	}
	if out, err = ccrun("workload", "ls", "--format", "json"); err != nil || strings.TrimSpace(out) != "[]" {
		t.Errorf("ls: %q, %v", out, err)
	}
	for _, args := range [][]string{{"workload", "show", "shop"}, {"workload", "rm", "shop"}, {"explain", "0000"}} {
		var p *kbs.ProblemError
		if _, err := ccrun(args...); !errors.As(err, &p) || p.Code != kbs.CodeNotFound {
			t.Errorf("%v: %v", args, err)
		}
	}
	for _, args := range [][]string{{"workload", "show"}, {"workload", "bogus"}, {"explain"}, {"workload", "ls", "x"}} {
		if _, err := ccrun(args...); face.Status(err) != face.Misused {
			t.Errorf("%v: %v, expected a usage error", args, err)
		}
	}
}

// denied is the number of a session whose guest has forged Evidence.
func denied(t *testing.T, admin *kbs.AdminClient) string {
	t.Helper()
	pem, err := os.ReadFile(os.Getenv("CCRUN_CA"))
	if err != nil {
		t.Fatal(err)
	}
	pins, err := kbs.PinsFromPEM(pem)
	if err != nil {
		t.Fatal(err)
	}
	guest := kbs.Client{URLs: []string{admin.URL}, PinnedKeys: pins}
	_, err = guest.Release(t.Context(), kbs.ReleaseRequest{
		WorkloadID: "shop", TEE: kbs.SNP, IdentityDigest: kbs.Sum384([]byte("shop")), FooterDigest: kbs.Sum384([]byte("f")),
		Attest: func(context.Context, kbs.ReportData) (kbs.Evidence, error) {
			return kbs.Evidence{TEE: kbs.SNP, Report: make([]byte, 1184)}, nil
		},
	})
	var p *kbs.ProblemError
	if !errors.Is(err, kbs.ErrDenied) || !errors.As(err, &p) || p.Session == "" {
		t.Fatalf("Release = %v", err)
	}
	return p.Session
}

// TestExplainOfALack: a session that nobody decided is not shown as denied.
func TestExplainOfALack(t *testing.T) {
	var b strings.Builder
	rec := &kbs.SessionRecord{Session: "s", WorkloadID: "w", Result: kbs.AttestationResult{TEE: kbs.SNP, Result: kbs.Undecided,
		Rules: []kbs.Rule{{Rule: "endorsement", Expected: "the VCEK", Got: "none", Hint: "import it"}}}}
	if err := printSession(&b, rec); err != nil || strings.Contains(b.String(), "denied") || !strings.Contains(b.String(), "not decided, the server lacks") {
		t.Errorf("%s, %v", b.String(), err)
	}
}
