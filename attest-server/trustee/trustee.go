// Package trustee is the trustee dialect: the KBS protocol of Confidential
// Containers, version 0.4.0, as guest-components v0.14 and later speak it.
package trustee

import (
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/release"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/verifier/evidence"
)

const (
	version = "0.4.0"
	cookie  = "kbs-session-id"
)

// tees are the names that Evidence may come under, the kind of TEE that
// stands behind each, and the shapes it may have. CoCo's own "sample" Evidence
// is signed by nobody and measures nothing, so that it could mean any
// workload: under that name a simulated SNP report is taken, by a server that
// trusts the simulation.
var tees = map[string]struct {
	tee    kbs.TEE
	shapes []string
}{
	"snp":         {kbs.SNP, []string{"coco snp"}},
	"tdx":         {kbs.TDX, []string{"coco tdx"}},
	"az-snp-vtpm": {kbs.SNP, []string{"az-snp-vtpm"}},
	"az-tdx-vtpm": {kbs.TDX, []string{"az-tdx-vtpm"}},
	"sample":      {kbs.Sample, []string{"coco snp"}},
}

// API answers guests of the dialect. All fields are needed.
type API struct {
	Sessions *session.Sessions
	Engine   *release.Engine
	Verifies func(kbs.TEE) bool // says whose Evidence can be verified
	Life     time.Duration      // of a token
	Clock    func() time.Time
	Log      *slog.Logger
}

// Auth opens a session.
func (a *API) Auth(w http.ResponseWriter, r *http.Request, body []byte) error {
	var req struct {
		Version *string         `json:"version"`
		TEE     *string         `json:"tee"`
		Extra   json.RawMessage `json:"extra-params"`
	}
	if err := answer.ReadForeign(body, &req); err != nil {
		return err
	}
	if req.Version == nil || req.TEE == nil || len(req.Extra) == 0 {
		return refusal.New(kbs.CodeBadRequest, "body: expected version, tee and extra-params")
	}
	if *req.Version != version {
		return refusal.NewKind("AttestationError", kbs.CodeUnauthorized,
			"RCAR handshake Auth failed: KBS Client Protocol Version Mismatch: expect =%s while the request is %s", version, answer.Short(*req.Version))
	}
	t, ok := tees[*req.TEE]
	if !ok {
		return refusal.New(kbs.CodeBadRequest, "unknown tee %q: expected snp, tdx, az-snp-vtpm, az-tdx-vtpm or sample", answer.Short(*req.TEE))
	}
	if !a.Verifies(t.tee) {
		return refusal.NewKind("AttestationError", kbs.CodeUnauthorized, "this server takes no evidence of tee %q", *req.TEE)
	}
	sess, bearer, err := a.Sessions.Open(session.Trustee, kbs.TEE(*req.TEE), "")
	if err != nil {
		return err
	}
	a.Log.Debug("session opened", "session", sess.ID.String(), "dialect", session.Trustee, "tee", *req.TEE, "peer", answer.Peer(r))
	setCookie(w, r, bearer)
	return answer.WriteJSON(w, http.StatusOK, struct {
		Nonce string `json:"nonce"`
		Extra string `json:"extra-params"`
	}{Nonce: base64.StdEncoding.EncodeToString(sess.Nonce[:])})
}

// setCookie: no expiry, because it would be compared with the host's clock; the
// session ends here.
func setCookie(w http.ResponseWriter, r *http.Request, bearer string) {
	http.SetCookie(w, &http.Cookie{Name: cookie, Value: bearer, Path: "/kbs/v0", HttpOnly: true, Secure: r.TLS != nil})
}

// attestation is the body of attest. Init-data is not read: what counts of it
// is in HOST_DATA or MRCONFIGID, which the registration names.
type attestation struct {
	Runtime struct {
		Nonce string          `json:"nonce"`
		Key   json.RawMessage `json:"tee-pubkey"`
	} `json:"runtime-data"`
	Evidence struct {
		Primary    json.RawMessage `json:"primary_evidence"`
		Additional string          `json:"additional_evidence"`
	} `json:"tee-evidence"`
}

// attesting is the open session that a request to attest comes in, and its
// cookie's value.
func (a *API) attesting(r *http.Request) (sess *session.Session, bearer []byte, err error) {
	bearer, ok := answer.OneCookie(r, cookie)
	if !ok {
		return nil, nil, refusal.NewKind("AttestationError", kbs.CodeUnauthorized, "RCAR handshake Attest failed: no cookie %s", cookie)
	}
	if sess, err = a.Sessions.Parse(session.Trustee, bearer); err == nil {
		err = a.Sessions.Fresh(sess)
	}
	if err != nil {
		return nil, nil, refusal.NewKind("AttestationError", kbs.CodeSessionExpired, "RCAR handshake Attest failed: %v", err)
	}
	return sess, bearer, nil
}

// InSession refuses a request to attest in no open session.
func (a *API) InSession(r *http.Request) error {
	_, _, err := a.attesting(r)
	return err
}

// OfTD says whether a request to attest comes in an open session of a TD.
func (a *API) OfTD(r *http.Request) bool {
	sess, _, err := a.attesting(r)
	return err == nil && tees[string(sess.TEE)].tee == kbs.TDX
}

// Attest appraises a guest, and grants it a token that names its session.
func (a *API) Attest(w http.ResponseWriter, r *http.Request, body []byte) error {
	sess, bearer, err := a.attesting(r)
	if err != nil {
		return err
	}
	var req attestation
	if err := answer.ReadForeign(body, &req); err != nil {
		return err
	}
	if len(req.Runtime.Key) == 0 || len(req.Evidence.Primary) == 0 {
		return refusal.New(kbs.CodeBadRequest, "body: expected runtime-data with tee-pubkey, and tee-evidence with primary_evidence")
	}
	q, err := request(sess, req)
	if err != nil {
		return err
	}
	if err := a.Engine.Attest(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, q); err != nil {
		return err
	}
	token, err := a.Sessions.IssueToken(sess.ID, a.Clock(), a.Life)
	if err != nil {
		return err
	}
	setCookie(w, r, string(bearer))
	return answer.WriteJSON(w, http.StatusOK, map[string]string{"token": token})
}

// request checks what needs no Evidence to be verified.
func request(sess *session.Session, req attestation) (release.Request, error) {
	t := tees[string(sess.TEE)]
	q := release.Request{Accepts: []kbs.RegistrationType{kbs.TypeNative, kbs.TypeTrustee}, Denial: release.DenialNaming(sess)}
	q.Checks.AddNonce([]byte(base64.StdEncoding.EncodeToString(sess.Nonce[:])), []byte(req.Runtime.Nonce))
	jwk, public, err := recipient.ParseJWK(req.Runtime.Key)
	q.SetKey(public, err, recipient.JWKsAccepted, "one of them")
	if q.ReportData, err = reportData(jwk, req.Runtime.Nonce, req.Evidence.Additional); err != nil {
		return q, err
	}
	parsed, err := evidence.Parse(req.Evidence.Primary)
	if err == nil && slices.Contains(t.shapes, parsed.Shape) {
		parsed.Evidence.TEE = t.tee // "sample" comes in the shape of snp
	}
	q.SetEvidence(sess, parsed, err, t.shapes)
	return q, nil
}

// resourceSegment is what CoCo allows in a resource's path.
var resourceSegment = regexp.MustCompile(`^[A-Za-z0-9_-]+[A-Za-z0-9_.-]*$`)

// Resource releases the DiskKey of the session's own workload, or a resource
// whose policy names that workload. Whoever asks for another is told the same
// whether it exists or not.
func (a *API) Resource(w http.ResponseWriter, r *http.Request) error {
	parts := strings.Split(r.PathValue("path"), "/")
	if len(parts) != 3 || slices.ContainsFunc(parts, func(p string) bool { return len(p) > 128 || !resourceSegment.MatchString(p) }) {
		return refusal.NewKind("InvalidRequestPath", kbs.CodeNotFound, "request path is invalid: expected resource/REPO/TYPE/TAG")
	}
	sess, err := a.session(r)
	if err != nil {
		return err
	}
	get, name := a.Engine.Resource, strings.Join(parts, "/")
	switch {
	case parts[0] == kbs.DiskKeyRepo && parts[1] == kbs.DiskKeyType:
		get, name = a.Engine.DiskKey, parts[2]
	case parts[0] == kbs.DiskKeyRepo && parts[1] == kbs.StagedDiskKeyType:
		get, name = a.Engine.StagedDiskKey, parts[2]
	}
	b, err := get(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, name)
	if err != nil {
		return err
	}
	answer.SetCheckpoint(w, a.Engine.Anchor.Checkpoint())
	return answer.WriteWhole(w, "application/json", b)
}

// session is that of the cookie, or else of the token.
func (a *API) session(r *http.Request) (*session.Session, error) {
	var sess *session.Session
	var err error
	if len(r.CookiesNamed(cookie)) > 0 {
		bearer, _ := answer.OneCookie(r, cookie)
		sess, err = a.Sessions.Parse(session.Trustee, bearer)
	} else {
		token := answer.Bearer(r)
		if token.Len() == 0 {
			return nil, refusal.NewKind("TokenNotFound", kbs.CodeUnauthorized, "Attestation Token not found")
		}
		sess, err = a.Sessions.ParseToken(token.Reveal())
	}
	if err != nil {
		return nil, refusal.NewKind("TokenVerifierError", kbs.CodeSessionExpired, "%v", err)
	}
	return sess, nil
}

// reportData is what a CoCo client binds: SHA-384 over the RFC 8785 form of the
// runtime data with the devices' evidence, then zeros.
func reportData(k recipient.JWK, nonce, additional string) (kbs.ReportData, error) {
	b, err := kbs.Canonical(struct {
		Key        recipient.JWK `json:"tee-pubkey"`
		Nonce      string        `json:"nonce"`
		Additional string        `json:"additional-evidence"`
	}{k, nonce, additional})
	if err != nil {
		return kbs.ReportData{}, fmt.Errorf("binding report data: %w", err)
	}
	sum := sha512.Sum384(b)
	var rd kbs.ReportData
	copy(rd[:], sum[:])
	return rd, nil
}
