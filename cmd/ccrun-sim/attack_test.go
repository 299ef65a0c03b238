package main

import (
	"bufio"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/secret"
)

// attackedServer runs until the test ends. It returns what an attack needs to
// be told, and an owner's client.
func attackedServer(t *testing.T) (flags []string, admin kbs.AdminClient) {
	t.Helper()
	dir := t.TempDir()
	data, token := filepath.Join(dir, "server"), filepath.Join(dir, "token")
	env := []string{"CCRUN_SIM_ROOT=" + filepath.Join(dir, "root")}
	for _, args := range [][]string{{"init"}, {"attest-server", "init", "--data", data, "--name", "127.0.0.1", "--token-out", token}} {
		if got := execute(t, env, "ccrun-sim", args...); got.code != 0 {
			t.Fatalf("%v: %+v", args, got)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, "attest-server", "serve", "--data", data, "--listen", "127.0.0.1:0")
	c.Env = append(env, asProgram+"=1")
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
	})
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url = strings.TrimSpace(url)
	ca := filepath.Join(data, "ca.pem")
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(token)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	admin = kbs.AdminClient{URL: url, Token: secret.New([]byte(strings.TrimSpace(string(text)))), RootCAs: roots}
	return []string{"--server", url, "--token-file", token, "--ca", ca, "--sample-root", filepath.Join(dir, "root")}, admin
}

// TestAttacksAreRefused: each attacker first does what he honestly may, and is
// then refused by the server.
func TestAttacksAreRefused(t *testing.T) {
	flags, admin := attackedServer(t)
	for i, id := range []string{"shop", "bank"} {
		_, err := admin.Register(t.Context(), kbs.RegisterRequest{
			Registration: kbs.Registration{
				Version: 1, WorkloadID: id, IdentityDigest: kbs.Sum384([]byte(id)), FooterDigest: kbs.Sum384([]byte("footer of " + id)),
				ReferenceValues: kbs.ReferenceValues{TEE: kbs.Sample, Measurements: []kbs.Measurement{
					{LaunchDigest: kbs.LaunchDigest{byte(i + 1)}, Profile: "p", CPUs: 1, MemoryMiB: 512},
				}},
			},
			DiskKey: []byte(strings.Repeat("k", 64)),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct {
		args []string
		says []string
	}{
		{[]string{"replay"}, []string{"session 1, fresh Evidence: key released", "session 2, the same Evidence: refused (attestation_denied)"}},
		{[]string{"other-key", "--victim", "bank"}, []string{
			"attesting as bank from a guest of shop: refused (attestation_denied)",
			"a session of shop, honestly attested", "that session asking for bank's key: refused (forbidden)",
		}},
		{[]string{"second-release"}, []string{
			"the agent has the key", "the agent's session asking again: refused (already_released)", "a new session of the same VM: refused (already_released)",
		}},
	} {
		got := execute(t, nil, "ccrun-sim", append(append([]string{"attack"}, append(x.args, "--workload", "shop")...), flags...)...)
		if got.code != face.Denied {
			t.Errorf("%v: %+v", x.args, got)
		}
		for _, want := range x.says {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("%v does not say %q:\n%s", x.args, want, got.stdout)
			}
		}
	}
}
