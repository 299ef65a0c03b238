// Package legacy is the legacy dialect: virtee/reference-kbs as the C client in
// the init of libkrunfw before 5 speaks it. That client looks at no status,
// takes the first piece of a body for all of it and copies it into fixed
// buffers, so every answer here is short, whole, and for a refusal not empty.
package legacy

import (
	"crypto/rsa"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/ccrun/ccrun/attest-server/admin"
	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/release"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/verifier/evidence"
)

const (
	version = "0.0.0"
	cookie  = "session_id"
)

// API answers guests of the dialect, and their registrars. All fields are
// needed.
type API struct {
	Sessions  *session.Sessions
	Engine    *release.Engine
	Gate      *admin.Gate
	Turns     *admin.Turns
	Workloads *admin.Workloads
	Log       *slog.Logger
}

// Auth opens a session.
func (a *API) Auth(w http.ResponseWriter, r *http.Request, body []byte) error {
	var req struct {
		Version string `json:"version"`
		TEE     string `json:"tee"`
		Extra   string `json:"extra-params"`
	}
	if err := answer.ReadForeign(body, &req); err != nil {
		return err
	}
	var params struct {
		WorkloadID string `json:"workload_id"`
	}
	switch {
	case req.Version != version:
		return refusal.New(kbs.CodeBadRequest, "version %q, expected %s", req.Version, version)
	case req.TEE != string(kbs.SNP):
		return refusal.New(kbs.CodeBadRequest, "unsupported tee %q, expected snp", req.TEE)
	}
	if err := answer.ReadForeign([]byte(req.Extra), &params); err != nil {
		return err
	}
	if !kbs.ValidWorkloadID(params.WorkloadID) {
		return refusal.New(kbs.CodeBadRequest, "workload_id: expected up to 128 letters, digits, '.', '_', '-'")
	}
	sess, bearer, err := a.Sessions.OpenShort(params.WorkloadID)
	if err != nil {
		return err
	}
	a.Log.Debug("session opened", "session", sess.ID.String(), "dialect", session.Legacy, "workload", params.WorkloadID, "peer", answer.Peer(r))
	// The path is / because the client's URL may begin with two slashes.
	http.SetCookie(w, &http.Cookie{
		Name: cookie, Value: bearer, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
	})
	// The client looks for the text "nonce": nothing like it may come before.
	return answer.WriteWhole(w, "application/json", []byte(`{"nonce":"`+hex.EncodeToString(sess.Nonce[:])+`","extra-params":""}`))
}

func (a *API) session(r *http.Request) (*session.Session, error) {
	bearer, ok := answer.OneCookie(r, cookie)
	if !ok {
		return nil, refusal.New(kbs.CodeUnauthorized, "missing cookie, or two")
	}
	sess, err := a.Sessions.ParseShort(bearer)
	if err != nil {
		return nil, refusal.New(kbs.CodeSessionExpired, "invalid cookie: %v", err)
	}
	return sess, nil
}

// InSession refuses a request to attest in no open session.
func (a *API) InSession(r *http.Request) error {
	sess, err := a.session(r)
	if err == nil && a.Sessions.Fresh(sess) != nil {
		err = refusal.New(kbs.CodeSessionExpired, "invalid cookie: %v", session.ErrExpired)
	}
	return err
}

// HasCookie says whether a request's client is of this dialect and thinks that
// it has a session.
func (a *API) HasCookie(r *http.Request) bool { return len(r.CookiesNamed(cookie)) > 0 }

type attestation struct {
	Key struct {
		Alg      string `json:"alg"`
		Modulus  string `json:"k-mod"`
		Exponent string `json:"k-exp"`
	} `json:"tee-pubkey"`
	Evidence string `json:"tee-evidence"` // JSON again
}

// Attest answers a grant with an empty body, which is how the client knows it.
func (a *API) Attest(_ http.ResponseWriter, r *http.Request, body []byte) error {
	sess, err := a.session(r)
	if err != nil {
		return err
	}
	var req attestation
	if err := answer.ReadForeign(body, &req); err != nil {
		return err
	}
	nonce := hex.EncodeToString(sess.Nonce[:])
	q := release.Request{
		ReportData: reportData(nonce, req.Key.Modulus, req.Key.Exponent),
		Accepts:    []kbs.RegistrationType{kbs.TypeLegacy}, Denial: release.DenialNaming(sess),
	}
	// The client sends no nonce: only report_data shows which it had.
	q.Checks.AddNonce([]byte(nonce), []byte(nonce))
	var public recipient.Recipient
	sent, err := publicKey(req)
	if err == nil {
		public = recipient.Legacy{Public: sent}
	}
	q.SetKey(public, err, "RSA of 2048 to 4096 bits", "such a key")
	parsed, err := parseEvidence(req.Evidence)
	q.SetEvidence(sess, parsed, err, []string{"raw snp"})
	return a.Engine.Attest(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, q)
}

// reportData hashes the texts as they were sent. Their lengths are not in it,
// but that of the nonce is fixed, and the key is read from the same texts that
// are hashed.
func reportData(nonce, modulus, exponent string) kbs.ReportData {
	return sha512.Sum512([]byte(nonce + modulus + exponent))
}

func publicKey(req attestation) (*rsa.PublicKey, error) {
	n, err := base64.StdEncoding.Strict().DecodeString(req.Key.Modulus)
	e, err2 := base64.StdEncoding.Strict().DecodeString(req.Key.Exponent)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	if req.Key.Alg != "RSA" {
		return nil, fmt.Errorf("alg %q", req.Key.Alg)
	}
	return recipient.ParseRSA(n, e)
}

// parseEvidence reads the report alone: the generation is in its CPUID
// fields, and the client's certificate chain is always empty.
func parseEvidence(text string) (*evidence.Parsed, error) {
	var e struct {
		Report string `json:"report"`
	}
	if err := kbs.UnmarshalOpen([]byte(text), &e); err != nil {
		return nil, err
	}
	report, err := hex.DecodeString(e.Report)
	if err != nil {
		return nil, err
	}
	return evidence.Parse(report)
}

// Key releases the session's own workload's passphrase, and no other's:
// reference-kbs gave any attested session any key.
func (a *API) Key(w http.ResponseWriter, r *http.Request) error {
	sess, err := a.session(r)
	if err != nil {
		return err
	}
	b, err := a.Engine.DiskKey(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, r.PathValue("id"))
	if err != nil {
		return err
	}
	return answer.WriteWhole(w, "application/json", b)
}

// IsAuth: version 0.0.0, and parameters that are JSON within a string.
func IsAuth(body []byte) bool {
	var p struct {
		Version string          `json:"version"`
		Extra   json.RawMessage `json:"extra-params"`
	}
	return json.Unmarshal(body, &p) == nil && p.Version == version && len(p.Extra) > 2 && p.Extra[0] == '"'
}

// IsAttest: the key on the top level, where CoCo has runtime-data.
func IsAttest(body []byte) bool {
	var p struct {
		Key     json.RawMessage `json:"tee-pubkey"`
		Runtime json.RawMessage `json:"runtime-data"`
	}
	return json.Unmarshal(body, &p) == nil && len(p.Key) > 0 && len(p.Runtime) == 0
}
