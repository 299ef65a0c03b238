package attestserver

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
)

// fakeAnchor is what a test says of the audit log.
type fakeAnchor struct {
	refusal    error
	checkpoint []byte
}

func (a *fakeAnchor) Ready() error       { return a.refusal }
func (a *fakeAnchor) Checkpoint() []byte { return a.checkpoint }

// TestNothingIsReleasedUnanchored: while the log is not what its witnesses have
// seen, no dialect grants or releases anything, no nonce is spent for it, no
// denial counted, and a balancer is told.
func TestNothingIsReleasedUnanchored(t *testing.T) {
	anchor := &fakeAnchor{}
	r := newRig(t, withSNP(t, session.Native, session.Trustee), func(c *Config) { c.Anchor = anchor })
	r.register("w1", 1)
	r.registerSNP("w2", kbs.TypeTrustee, 2)
	early, late := r.begin("w1", 1), r.begin("w1", 1)
	if got := early.doAttest(); got != "" {
		t.Fatalf("attest: %s", got)
	}
	granted := r.coco("P-256", 2)
	if _, err := granted.resource(diskKeyOf + "w2"); err != nil {
		t.Fatal(err)
	}

	// Guests are told what the witnesses have; a note too long for a header is not.
	anchor.checkpoint = []byte("x\n1\n...\n")
	if h := r.header(early, "/v1/workloads/w1/key"); h != base64.StdEncoding.EncodeToString(anchor.checkpoint) {
		t.Errorf("the answer's checkpoint is %q", h)
	}
	anchor.checkpoint = make([]byte, 16<<10)
	if h := r.header(early, "/v1/workloads/w1/key"); h != "" {
		t.Errorf("a header of %d bytes", len(h))
	}
	anchor.checkpoint = nil
	anchor.refusal = errors.New("behind")
	for what, got := range map[string]string{"attest": late.doAttest(), "key": early.doKey(), "staged key": early.get("/v1/workloads/w1/key/staged"), "resource": early.get("/v1/resources/a/b/c")} {
		if got != kbs.CodeUnavailable {
			t.Errorf("%s: %q, expected %s", what, got, kbs.CodeUnavailable)
		}
	}
	if _, err := granted.resource(diskKeyOf + "w2"); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a session granted before gets %v", err)
	}
	if _, err := r.coco("P-256", 2).resource(diskKeyOf + "w2"); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a new session in the trustee dialect gets %v", err)
	}
	if status, b := r.call("GET", "/readyz", "", nil); status != http.StatusServiceUnavailable {
		t.Errorf("readyz: %d %s", status, b)
	}
	if st, err := r.admin.Get(t.Context(), "w1"); err != nil || st.Releases != 2 || st.Denials != 0 {
		t.Errorf("status %+v, %v", st, err)
	}

	anchor.refusal = nil
	for what, got := range map[string]string{"attest": late.doAttest(), "key": early.doKey()} {
		if got != "" {
			t.Errorf("%s, once it is: %q", what, got)
		}
	}
}

// header is the checkpoint that comes with an answer in h's session.
func (r *rig) header(h *handshake, path string) string {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodGet, r.http.URL+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.bearer)
	resp, err := r.http.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		r.t.Fatalf("%s: %s", path, resp.Status)
	}
	return resp.Header.Get(kbs.CheckpointHeader)
}

// get is the problem code of a request in the session.
func (h *handshake) get(path string) string {
	status, b := h.r.call("GET", path, h.bearer, nil)
	return code(h.r.t, status, b)
}
