package tests

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

// TestSecrets: what the owner keeps at the key server is there before the
// workload starts, where the image says and nowhere that the host reads; what is
// missing stops the guest, unless the image goes on without.
func TestSecrets(t *testing.T) {
	w := newWorld(t)
	w.secret("acme/db/password", "keeper", "open-sesame")
	w.secret("acme/tls/key", "keeper", "very\x00secret\xff")
	many := []string{}
	for i := range 100 {
		name := fmt.Sprintf("acme/many/s%d", i)
		w.secret(name, "keeper", fmt.Sprintf("value-%d", i))
		many = append(many, "--secret", fmt.Sprintf("kbs:///%s,target=many/%d", name, i))
	}
	script := `
		cat /etc/app/db/password; echo "= $DB"; stat -c '%a %u:%g' -L /etc/app/db/password /run/secrets/key
		busybox wc -c </run/secrets/key; cat /run/secrets/many/*| busybox wc -l; cat /run/secrets/many/99; echo
		test ! -e /etc/app/none && echo "none, ${NONE-unset}"
		echo x >/run/secrets/new || echo "cannot be written"; echo x >/etc/app/db/password || echo "nor through the link"
		grep -c ' /run/secrets tmpfs ro,' /proc/mounts; busybox umount /run/secrets || echo stays`
	image := w.build("keeper", shell(script), append(many,
		"--secret", "kbs:///acme/db/password,target=/etc/app/db/password,mode=0400,uid=7,gid=8", "--secret", "kbs:///acme/db/password,env=DB",
		"--secret", "kbs:///acme/tls/key,target=key", "--secret", "kbs:///acme/no/such,target=/etc/app/none,optional", "--secret", "kbs:///acme/no/such,env=NONE,optional")...)
	r := w.podman(image)
	want := "open-sesame= open-sesame\n400 7:8\n444 0:0\n12\n0\nvalue-99\nnone, unset\ncannot be written\nnor through the link\n1\nstays\n"
	if r.code != 0 || r.stdout != want {
		t.Errorf("%s\nexpected %q", r, want)
	}
	if out := w.must("ccrun", "inspect", image); !strings.Contains(out, `acme/db/password at "/etc/app/db/password", mode 0400, owner 7:8`) {
		t.Errorf("inspect: %s", out)
	}
	if out := w.must("ccrun", "workload", "show", "keeper"); !strings.Contains(out, "acme/db/password, version 1, 11 bytes") || strings.Contains(out, "sesame") {
		t.Errorf("show: %s", out)
	}
	audit := w.must("ccrun-sim", "attest-server", "audit", "export", "--data", filepath.Join(w.dir, "server"))
	if !strings.Contains(audit, "102 to workload keeper: ") {
		t.Error("audit lacks the release")
	}
	w.must("ccrun", "resource", "rm", "acme/tls/key")
	r = w.podman(image)
	number := regexp.MustCompile("ccrun explain ([0-9a-z]+)").FindStringSubmatch(r.stderr)
	if r.code == 0 || number == nil || !strings.Contains(r.stderr, "secrets-refused") || r.stdout != "" {
		t.Fatalf("one is missing: %s", r)
	}
	if out := w.must("ccrun", "explain", number[1]); !strings.Contains(out, "secret acme/tls/key: the server has none") {
		t.Errorf("explain: %s", out)
	}
	if r := w.run("ccrun", w.buildSecret("kbs:///acme/tls/key,target=/bin/sh")...); r.code != 2 || !strings.Contains(r.stderr, "the image has a") {
		t.Errorf("over a file of the image: %s", r)
	}
}

// secret sets a resource for one workload.
func (w *world) secret(name, workload, value string) {
	w.t.Helper()
	id, err := kbs.ParseResourceID(name)
	if err != nil {
		w.t.Fatal(err)
	}
	token, err := os.ReadFile(filepath.Join(w.dir, "token"))
	if err != nil {
		w.t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(w.dir, "server/ca.pem"))
	if err != nil {
		w.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	owner := kbs.AdminClient{URL: "https://127.0.0.1:" + w.port, Token: secret.New(bytes.TrimSpace(token)), RootCAs: roots}
	_, err = owner.SetResource(w.t.Context(), id, kbs.ResourceRequest{Value: []byte(value), Policy: kbs.ResourcePolicy{Workloads: []string{workload}}})
	if err != nil {
		w.t.Fatal(err)
	}
}

// buildSecret builds the workload's source again, with one secret.
func (w *world) buildSecret(rule string) []string {
	return []string{"build", "-q", "--tee", "sample", "--attest-url", w.url, "--attest-ca", filepath.Join(w.dir, "server/ca.pem"), "--firmware", w.firmware,
		"--no-register", "--record", filepath.Join(w.dir, "never"), "--secret", rule, "oci:" + filepath.Join(w.dir, "src/keeper"), "oci:" + filepath.Join(w.dir, "never-cw")}
}

// TestSecretRefresh: a secret that its owner changes is in the running workload
// soon, which is told; while the server is away, or has it no longer, the workload
// keeps what it has.
func TestSecretRefresh(t *testing.T) {
	w := newWorld(t)
	w.secret("acme/db/password", "fresh", "first")
	image := w.build("fresh", shell(`
		trap 'echo "told: $(cat /etc/password) $(cat /run/secrets/password)"' USR1
		echo "begins: $(cat /etc/password)"
		while :; do sleep 1; done`),
		"--secret", "kbs:///acme/db/password,target=/etc/password", "--secret", "kbs:///acme/db/password,target=password", "--secret-refresh", "2s,signal=USR1")
	name := "fresh-" + w.port
	w.must("podman", "run", "-d", "--name", name, "--runtime", "krun-sim", "--network", "host", image)
	defer w.run("podman", "rm", "-f", "-t", "1", name)
	logs := func(want string) string {
		t.Helper()
		var r result
		for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
			if r = w.run("podman", "logs", name); strings.Contains(r.stdout+r.stderr, want) {
				return r.stdout + r.stderr
			}
		}
		t.Fatalf("no %q in %s", want, r)
		return ""
	}
	logs("begins: first")
	w.secret("acme/db/password", "fresh", "second")
	logs("told: second second")
	w.must("ccrun", "resource", "rm", "acme/db/password")
	w.stopServer()
	logs("refreshing the secrets: ")
	w.startServer()
	w.secret("acme/db/password", "fresh", "third")
	out := logs("told: third third")
	if !strings.Contains(out, "the secrets are refreshed again") || strings.Count(out, "told:") != 2 {
		t.Errorf("%s", out)
	}
}

// TestSecretRequest: a host asks for more, and gets what the image lets it ask for.
func TestSecretRequest(t *testing.T) {
	w := newWorld(t)
	w.secret("acme/extra/token", "asking", "open-sesame")
	image := w.build("asking", shell(`cat /run/secrets/token; echo "= ${TOKEN-unset}"`), "--secret-allow", "acme/extra/*", "--secret-allow", "acme/extra/token,env=TOKEN")
	if r := w.podman(image); r.code != 0 || r.stdout != "= unset\n" {
		t.Errorf("nothing asked: %s", r)
	}
	args := []string{"run", "--rm", "--runtime", "krun-sim", "--network", "host"}
	r := w.run("ccrun", append(args, "--secret", "kbs:///acme/extra/token,target=token", "--secret", "kbs:///acme/extra/token,env=TOKEN", image)...)
	if r.code != 0 || r.stdout != "open-sesame= open-sesame\n" || strings.Contains(r.stderr, "sesame") {
		t.Errorf("asked: %s", r)
	}
	// Quoted as CSV: Podman 4.3 takes commas for annotations' ends.
	if r := w.podman(image, "--annotation", `"io.ccrun.secrets=kbs:///acme/extra/token,env=LD_PRELOAD"`); r.code == 0 || !strings.Contains(r.stderr, "--secret-allow") || r.stdout != "" {
		t.Errorf("another variable: %s", r)
	}
}
