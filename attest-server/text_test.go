package attestserver

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

// TestNoTextIsRefused: bytes that are no text, with or without a token, are the
// caller's mistake and not the server's, on every database.
func TestNoTextIsRefused(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	tok := r.token(store.Admin)
	admin := string(tok.Reveal())
	for _, path := range []string{
		"/v1/workloads/%00", "/v1/workloads/w%ff", "/v1/workloads?after=%ff", "/v1/workloads?after=%00", "/v1/sessions/%00",
		"/v1/resources/a/b/%00", "/ui/workloads/%ff", "/%c3%28", "/kbs/v0/resource/a/%00/c",
	} {
		for _, bearer := range []string{"", admin} {
			if status, body := r.call("GET", path, bearer, nil); status != http.StatusBadRequest {
				t.Errorf("%s: %d %s", path, status, body)
			}
		}
	}
	for _, bearer := range []string{"ccrun_" + strings.Repeat("\xff", 12) + "_x", "ccrun_" + strings.Repeat("z", 12) + "_x"} {
		if status, body := r.call("GET", "/v1/workloads", bearer, nil); status != http.StatusUnauthorized {
			t.Errorf("bearer %q: %d %s", bearer, status, body)
		}
	}
	acme := r.tenant("acme", store.Admin)
	if err := acme.Approve(t.Context(), kbs.Approval{Name: "resource/a\x00", WorkloadID: "w1", RegistrationDigest: kbs.Digest{1}}); err == nil || strings.Contains(err.Error(), "500") {
		t.Errorf("an approval of a name with NUL: %v", err)
	}
	if status, body := r.call("GET", "/v1/workloads/w1", admin, nil); status != http.StatusOK {
		t.Errorf("text: %d %s", status, body)
	}
}

// TestNothingFollowsChunks: after a request whose length is said in two ways,
// or by chunks at all, the connection carries no other.
func TestNothingFollowsChunks(t *testing.T) {
	r := newRig(t)
	for head, closes := range map[string]bool{
		"Content-Length: 5\r\nTransfer-Encoding: chunked": true,
		"Transfer-Encoding: chunked":                      true,
		"Content-Length: 5":                               false,
	} {
		conn, err := tls.Dial("tcp", r.http.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /v1/auth HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s\r\n\r\n0\r\n\r\n", head)
		in := bufio.NewReader(conn)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err = http.ReadResponse(in, nil)
		if resp.Close != closes || (err != nil) != closes {
			t.Errorf("%q: closes %v, the next answer: %v", head, resp.Close, err)
		}
	}
}
