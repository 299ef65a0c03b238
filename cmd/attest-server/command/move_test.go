package command

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
)

func caPins(t *testing.T, dir string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, caName))
	if err != nil {
		t.Fatal(err)
	}
	pins, err := kbs.PinsFromPEM(b)
	if err != nil {
		t.Fatal(err)
	}
	return pins
}

// TestMove is the whole of it, as typed: the store goes to another machine,
// under a TLS identity of its own, and a guest that knows the old address and
// pin gets to where it is now. What is left of the old machine needs no secret
// but its TLS key.
func TestMove(t *testing.T) {
	dir, token := initDir(t)
	url, stop := serve(t, "--data", dir)
	if _, err := admin(t, dir, url, token).Register(t.Context(), registration("shop", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := stop(); err != nil {
		t.Fatal(err)
	}
	elsewhere, _ := initDir(t)
	for _, name := range []string{storeName, "master-key"} {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(elsewhere, name)); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, "certs", "renew", "--data", elsewhere, "--name", "127.0.0.1")
	next, stopNext := serve(t, "--data", elsewhere)
	old, stopOld := listening(t, "move", "--data", dir, "--to", next, "--ca", filepath.Join(elsewhere, caName))
	client := &kbs.Client{URLs: []string{old}, PinnedKeys: leafPins(t, dir)}
	var told string
	_, err := client.Release(t.Context(), kbs.ReleaseRequest{
		WorkloadID: "shop", TEE: kbs.SNP, IdentityDigest: kbs.Sum384([]byte("shop")), FooterDigest: kbs.Sum384([]byte("fshop")),
		Attest: func(context.Context, kbs.ReportData) (kbs.Evidence, error) {
			return kbs.Evidence{TEE: kbs.SNP, Report: []byte("none")}, nil
		},
		OnMoved: func(from, to string) { told = from + " " + to },
	})
	if !errors.Is(err, kbs.ErrDenied) || told != old+" "+next {
		t.Errorf("Release = %v, told %q, expected to be denied by the server at %s", err, told, next)
	}
	if _, err := admin(t, dir, old, token).Get(t.Context(), "shop"); err == nil || !strings.Contains(err.Error(), next) {
		t.Errorf("an owner at the old address: %v", err)
	}
	if st, err := admin(t, elsewhere, next, token).Get(t.Context(), "shop"); err != nil || st.Denials != 1 {
		t.Errorf("status at the new one: %+v, %v", st, err)
	}
	log, err := stopOld()
	if err != nil || !strings.Contains(log, "workload=shop") {
		t.Errorf("stopped: %v\n%s", err, log)
	}
	if _, err := stopNext(); err != nil {
		t.Error(err)
	}
}

func leafPins(t *testing.T, dir string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, serverName))
	if err != nil {
		t.Fatal(err)
	}
	pins, err := kbs.PinsFromPEM(b)
	if err != nil {
		t.Fatal(err)
	}
	return pins[:1]
}

// TestMoveRefuses to send guests where they would find nobody, or another.
func TestMoveRefuses(t *testing.T) {
	dir, _ := initDir(t)
	url, stop := serve(t, "--data", dir)
	pin := caPins(t, dir)[0]
	mustRun(t, "certs", "renew", "--data", dir, "--name", "127.0.0.1")
	empty := t.TempDir()
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"nothing":     {nil, "--to URL"},
		"no pin":      {[]string{"--to", url}, "--to URL"},
		"no URL":      {[]string{"--pin", pin}, "--to URL"},
		"HTTP":        {[]string{"--to", "http://a.example", "--pin", pin}, "expected https://"},
		"half a pin":  {[]string{"--to", url, "--pin", pin[:8]}, "64 hex digits"},
		"another pin": {[]string{"--to", url, "--pin", strings.Repeat("ab", 32)}, "not pinned"},
		"no CA":       {[]string{"--to", url, "--ca", filepath.Join(dir, "none")}, "reading --ca"},
		"identity":    {[]string{"--to", url, "--pin", leafPins(t, dir)[0], "--data", empty}, "TLS identity"},
	} {
		args := append([]string{"move", "--data", dir, "--listen", "127.0.0.1:0"}, c.args...)
		if _, _, err := run(t.Context(), args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
	}
	if _, err := stop(); err != nil {
		t.Fatal(err)
	}
	to := []string{"move", "--data", dir, "--to", url, "--pin", leafPins(t, dir)[0]}
	if _, _, err := run(t.Context(), append(to, "--listen", "127.0.0.1:0")...); err == nil || !strings.Contains(hint.Of(err), "--unseen") {
		t.Errorf("nobody there: %v, hint %q", err, hint.Of(err))
	}
	old, stop := listening(t, append(to, "--unseen")...)
	resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: tlsRoots(admin(t, dir, old, "").RootCAs)}}).Get(old + "/readyz")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("--unseen: %v, %v", resp, err)
	}
	if _, err := stop(); err != nil {
		t.Error(err)
	}
}
