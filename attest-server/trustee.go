package attestserver

import (
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/release"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// The trustee dialect: the KBS protocol of Confidential Containers, version
// 0.4.0, as guest-components v0.14 and later speak it.

const (
	trusteeVersion = "0.4.0"
	trusteeCookie  = "kbs-session-id"

	// A workload's DiskKey is the resource ccrun/disk-key/WORKLOAD_ID, that of
	// a rotation under way ccrun/disk-key.staged/WORKLOAD_ID.
	diskKeyRepo, diskKeyType, stagedKeyType = "ccrun", "disk-key", "disk-key.staged"
)

// trusteeTEEs are the names that Evidence may come under, the kind of TEE that
// stands behind each, and the shapes it may have. CoCo's own "sample" Evidence
// is signed by nobody and measures nothing, so that it could mean any
// workload: under that name a simulated SNP report is taken, by a server that
// trusts the simulation.
var trusteeTEEs = map[string]struct {
	tee    kbs.TEE
	shapes []string
}{
	"snp":         {kbs.SNP, []string{"coco snp"}},
	"tdx":         {kbs.TDX, []string{"coco tdx"}},
	"az-snp-vtpm": {kbs.SNP, []string{"az-snp-vtpm"}},
	"az-tdx-vtpm": {kbs.TDX, []string{"az-tdx-vtpm"}},
	"sample":      {kbs.Sample, []string{"coco snp"}},
}

func (s *Server) trusteeAuth(w http.ResponseWriter, r *http.Request, body []byte) error {
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
	if *req.Version != trusteeVersion {
		return refusal.NewKind("AttestationError", kbs.CodeUnauthorized,
			"RCAR handshake Auth failed: KBS Client Protocol Version Mismatch: expect =%s while the request is %s", trusteeVersion, answer.Short(*req.Version))
	}
	t, ok := trusteeTEEs[*req.TEE]
	if !ok {
		return refusal.New(kbs.CodeBadRequest, "unknown tee %q: expected snp, tdx, az-snp-vtpm, az-tdx-vtpm or sample", answer.Short(*req.TEE))
	}
	if s.Verifiers[t.tee] == nil {
		return refusal.NewKind("AttestationError", kbs.CodeUnauthorized, "this server takes no evidence of tee %q", *req.TEE)
	}
	sess, bearer, err := s.sessions.Open(session.Trustee, kbs.TEE(*req.TEE), "")
	if err != nil {
		return err
	}
	s.Log.Debug("session opened", "session", sess.ID.String(), "dialect", session.Trustee, "tee", *req.TEE, "peer", answer.Peer(r))
	setTrusteeCookie(w, r, bearer)
	return answer.WriteJSON(w, http.StatusOK, struct {
		Nonce string `json:"nonce"`
		Extra string `json:"extra-params"`
	}{Nonce: base64.StdEncoding.EncodeToString(sess.Nonce[:])})
}

// setTrusteeCookie: no expiry, because it would be compared with the host's
// clock; the session ends here.
func setTrusteeCookie(w http.ResponseWriter, r *http.Request, bearer string) {
	http.SetCookie(w, &http.Cookie{Name: trusteeCookie, Value: bearer, Path: "/kbs/v0", HttpOnly: true, Secure: r.TLS != nil})
}

// trusteeAttestation is the body of attest. Init-data is not read: what counts
// of it is in HOST_DATA or MRCONFIGID, which the registration names.
type trusteeAttestation struct {
	Runtime struct {
		Nonce string          `json:"nonce"`
		Key   json.RawMessage `json:"tee-pubkey"`
	} `json:"runtime-data"`
	Evidence struct {
		Primary    json.RawMessage `json:"primary_evidence"`
		Additional string          `json:"additional_evidence"`
	} `json:"tee-evidence"`
}

func (s *Server) trusteeAttest(w http.ResponseWriter, r *http.Request, body []byte) error {
	bearer, ok := answer.OneCookie(r, trusteeCookie)
	if !ok {
		return refusal.NewKind("AttestationError", kbs.CodeUnauthorized, "RCAR handshake Attest failed: no cookie %s", trusteeCookie)
	}
	sess, err := s.sessions.Parse(session.Trustee, bearer)
	if err != nil {
		return refusal.NewKind("AttestationError", kbs.CodeSessionExpired, "RCAR handshake Attest failed: %v", err)
	}
	var req trusteeAttestation
	if err := answer.ReadForeign(body, &req); err != nil {
		return err
	}
	if len(req.Runtime.Key) == 0 || len(req.Evidence.Primary) == 0 {
		return refusal.New(kbs.CodeBadRequest, "body: expected runtime-data with tee-pubkey, and tee-evidence with primary_evidence")
	}
	f, err := trusteeRequest(sess, req)
	if err != nil {
		return err
	}
	if err := s.engine.Attest(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, f); err != nil {
		return err
	}
	token, err := s.sessions.IssueToken(sess.ID, s.Clock(), s.SessionLife)
	if err != nil {
		return err
	}
	setTrusteeCookie(w, r, string(bearer))
	return answer.WriteJSON(w, http.StatusOK, map[string]string{"token": token})
}

func trusteeRequest(sess *session.Session, req trusteeAttestation) (release.Request, error) {
	t := trusteeTEEs[string(sess.TEE)]
	a := release.Request{Accepts: []kbs.RegistrationType{kbs.TypeNative, kbs.TypeTrustee}, Denial: foreignDenial(sess)}
	a.Checks.AddNonce([]byte(base64.StdEncoding.EncodeToString(sess.Nonce[:])), []byte(req.Runtime.Nonce))
	jwk, public, err := recipient.ParseJWK(req.Runtime.Key)
	a.SetKey(public, err, recipient.JWKsAccepted, "one of them")
	if a.ReportData, err = trusteeReportData(jwk, req.Runtime.Nonce, req.Evidence.Additional); err != nil {
		return a, err
	}
	parsed, err := verifier.ParseEvidence(req.Evidence.Primary)
	if err == nil && slices.Contains(t.shapes, parsed.Shape) {
		parsed.Evidence.TEE = t.tee // "sample" comes in the shape of snp
	}
	a.SetEvidence(sess, parsed, err, t.shapes)
	return a, nil
}

// resourceSegment is what CoCo allows in a resource's path.
var resourceSegment = regexp.MustCompile(`^[A-Za-z0-9_-]+[A-Za-z0-9_.-]*$`)

// trusteeResource releases the DiskKey of the session's own workload, or a
// resource whose policy names that workload. Who asks for others is told the
// same whether they exist or not.
func (s *Server) trusteeResource(w http.ResponseWriter, r *http.Request) error {
	parts := strings.Split(r.PathValue("path"), "/")
	if len(parts) != 3 || slices.ContainsFunc(parts, func(p string) bool { return len(p) > 128 || !resourceSegment.MatchString(p) }) {
		return refusal.NewKind("InvalidRequestPath", kbs.CodeNotFound, "request path is invalid: expected resource/REPO/TYPE/TAG")
	}
	sess, err := s.trusteeSession(r)
	if err != nil {
		return err
	}
	var b []byte
	switch {
	case parts[0] == diskKeyRepo && parts[1] == diskKeyType:
		b, err = s.engine.DiskKey(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, parts[2])
	case parts[0] == diskKeyRepo && parts[1] == stagedKeyType:
		b, err = s.engine.StagedDiskKey(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, parts[2])
	default:
		b, err = s.engine.Resource(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, strings.Join(parts, "/"))
	}
	if err != nil {
		return err
	}
	return answer.WriteWhole(w, "application/json", b)
}

// trusteeSession is that of the cookie, or else of the token.
func (s *Server) trusteeSession(r *http.Request) (*session.Session, error) {
	var sess *session.Session
	var err error
	if len(r.CookiesNamed(trusteeCookie)) > 0 {
		bearer, _ := answer.OneCookie(r, trusteeCookie)
		sess, err = s.sessions.Parse(session.Trustee, bearer)
	} else {
		token := answer.Bearer(r)
		if token.Len() == 0 {
			return nil, refusal.NewKind("TokenNotFound", kbs.CodeUnauthorized, "Attestation Token not found")
		}
		sess, err = s.sessions.ParseToken(token.Reveal())
	}
	if err != nil {
		return nil, refusal.NewKind("TokenVerifierError", kbs.CodeSessionExpired, "%v", err)
	}
	return sess, nil
}

// trusteeReportData is what a CoCo client binds: SHA-384 over the RFC 8785
// form of the runtime data with the devices' evidence, then zeros.
func trusteeReportData(k recipient.JWK, nonce, additional string) (kbs.ReportData, error) {
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
