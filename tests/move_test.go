package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// TestServerMoves: a server moves, as docs/operations.md has it typed, to
// another address and under another CA. A guest that was built before follows,
// what the new server refuses is refused, and the old machine has no key left.
func TestServerMoves(t *testing.T) {
	w := newWorld(t)
	const secret = "the-quick-brown-fox-jumps"
	image := w.build("shop", shell("echo "+secret))
	owner := w.env
	w.stopServer()

	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(w.dir, "key.txt"), []byte(key.String()))
	in := func(name string) string { return filepath.Join(w.dir, name) }
	w.must("ccrun-sim", "attest-server", "backup", "--data", in("server"), "--recipient", key.Recipient().String(), "--output", in("move.age"))
	w.must("ccrun-sim", "attest-server", "restore", "--data", in("next"), "--identity", in("key.txt"), "--master-key", in("server/master-key"), in("move.age"))
	w.must("ccrun-sim", "attest-server", "init", "--data", in("identity"), "--name", "127.0.0.1", "--name", gateway(t, w.firmware), "--token-out", in("unused"))
	for _, secret := range []string{"server/store.db", "server/master-key"} {
		if err := os.Remove(in(secret)); err != nil {
			t.Fatal(err)
		}
	}

	next := *w
	next.port = freePort(t)
	next.url = "https://" + gateway(t, w.firmware) + ":" + next.port
	next.env = append(owner, "CCRUN_SERVER=https://127.0.0.1:"+next.port, "CCRUN_CA="+in("identity/ca.pem"))
	next.startServerAs("serve", "--data", in("next"), "--tls-cert", in("identity/server.pem"), "--tls-key", in("identity/server.key"))
	defer next.stopServer()
	// Guests reach it by an address that this machine does not have.
	w.startServerAs("move", "--to", next.url, "--ca", in("identity/ca.pem"), "--unseen")

	r := w.podman(image)
	if r.code != 0 || !strings.Contains(r.stdout, secret) || !strings.Contains(r.stdout+r.stderr, w.url+" has moved: asking "+next.url) {
		t.Fatal(r)
	}
	if !strings.Contains(w.serverLog.String(), "workload=shop") {
		t.Errorf("the old address does not say who came: %s", w.serverLog.String())
	}
	if r := w.run("ccrun", "workload", "show", "shop"); r.code == 0 || !strings.Contains(r.stderr, next.url) {
		t.Errorf("an owner at the old address: %s", r)
	}
	if out := next.must("ccrun", "workload", "show", "shop"); !strings.Contains(out, "shop") {
		t.Errorf("an owner at the new one: %s", out)
	}
	next.must("ccrun", "workload", "revoke", "shop")
	if r := w.podman(image); r.code != 77 || strings.Contains(r.stdout, secret) {
		t.Errorf("revoked where it is now: %s", r)
	}
	if left, err := os.ReadDir(in("server")); err != nil || len(left) != 4 {
		t.Errorf("left on the old machine: %v, %v", left, err)
	}
}
