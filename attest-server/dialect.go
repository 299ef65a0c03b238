package attestserver

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

func (s *Server) speaks(d session.Dialect) bool { return slices.Contains(s.Dialects, d) }

// speaksFor says whether a guest of that type could reach its key here.
func (s *Server) speaksFor(t kbs.RegistrationType) bool {
	switch t {
	case kbs.TypeNative:
		return s.speaks(session.Native) || s.speaks(session.Trustee)
	case kbs.TypeTrustee:
		return s.speaks(session.Trustee)
	case kbs.TypeLegacy:
		return s.speaks(session.Legacy)
	}
	return false
}

const (
	maxForeignAuth = 4 << 10
	maxForeignBody = 1 << 20 // Evidence and that of devices
	maxForeignMore = 1 << 20 // beside a TD's Evidence: key, devices, init-data
)

// foreignHandler gets the body read and bounded.
type foreignHandler func(w http.ResponseWriter, r *http.Request, body []byte) error

func (s *Server) foreignRoutes(mux *answer.Router) {
	mux.HandleFunc("POST /kbs/v0/auth", s.byBody(func(*http.Request) int64 { return maxForeignAuth }, isLegacyAuth, s.trusteeAuth, s.legacyAuth))
	mux.HandleFunc("POST /kbs/v0/attest", s.byBody(s.maxAttest, isLegacyAttest, s.trusteeAttest, s.legacyAttest))
	if s.speaks(session.Trustee) {
		mux.HandleFunc("GET /kbs/v0/resource/{path...}", s.answers.Respond(answer.ErrorInformation, s.trusteeResource))
		s.trusteeAdminRoutes(mux)
	}
	if s.speaks(session.Legacy) {
		mux.HandleFunc("GET /kbs/v0/key/{id}", s.answers.Respond(answer.Text, s.legacyKey))
		mux.HandleFunc("POST /kbs/v0/register_workload", s.answers.Respond(answer.Text, s.legacyRegister))
	}
	mux.HandleFunc("/kbs/v0/", s.answers.Respond(s.foreignErrors(), func(_ http.ResponseWriter, r *http.Request) error {
		return &refusal.Error{Code: kbs.CodeNotFound, Kind: "PluginNotFound", Detail: "no such path, method or plugin"}
	}))
}

// foreignErrors is the form of an error under /kbs/v0 that is in no dialect.
func (s *Server) foreignErrors() answer.Form {
	switch {
	case s.speaks(session.Trustee):
		return answer.ErrorInformation
	case s.speaks(session.Legacy):
		return answer.Text
	}
	return answer.Problem
}

// byBody hands a request to the dialect it is in.
func (s *Server) byBody(limit func(*http.Request) int64, isLegacy func([]byte) bool, trustee, legacy foreignHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := answer.ReadBody(w, r, limit(r))
		h, write := trustee, answer.ErrorInformation
		if !s.speaks(session.Trustee) || s.speaks(session.Legacy) && err == nil && isLegacy(body) {
			h, write = legacy, answer.Text
		}
		s.answers.Respond(write, func(w http.ResponseWriter, r *http.Request) error {
			if err != nil {
				return err
			}
			return h(w, r, body)
		})(w, r)
	}
}

// maxAttest bounds the body of an attest. Only a TD's may hold an event log,
// of a MiB before base64; its session must be open, so that a stranger cannot
// have that much read.
func (s *Server) maxAttest(r *http.Request) int64 {
	if bearer, ok := answer.OneCookie(r, trusteeCookie); ok && s.speaks(session.Trustee) {
		sess, err := s.sessions.Parse(session.Trustee, bearer)
		if err == nil && trusteeTEEs[string(sess.TEE)].tee == kbs.TDX {
			return verifier.MaxEvidenceSize + maxForeignMore
		}
	}
	return maxForeignBody
}

// isLegacyAuth: version 0.0.0, and parameters that are JSON within a string.
func isLegacyAuth(body []byte) bool {
	var p struct {
		Version string          `json:"version"`
		Extra   json.RawMessage `json:"extra-params"`
	}
	return json.Unmarshal(body, &p) == nil && p.Version == legacyVersion && len(p.Extra) > 2 && p.Extra[0] == '"'
}

// isLegacyAttest: the key on the top level, where CoCo has runtime-data.
func isLegacyAttest(body []byte) bool {
	var p struct {
		Key     json.RawMessage `json:"tee-pubkey"`
		Runtime json.RawMessage `json:"runtime-data"`
	}
	return json.Unmarshal(body, &p) == nil && len(p.Key) > 0 && len(p.Runtime) == 0
}

// foreignDenial tells a guest's owner where to look: the dialects have no
// field for the session.
func foreignDenial(sess *session.Session) string {
	return "attestation denied: ccrun explain " + sess.ID.String()
}
