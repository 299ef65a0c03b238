package attestserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
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
	foreignPrefix   = "/kbs/v0/"
	maxForeignAuth  = 4 << 10
	maxForeignBody  = 1 << 20 // Evidence and that of devices
	maxForeignMore  = 1 << 20 // beside a TD's Evidence: key, devices, init-data
	maxForeignError = 100     // characters of detail: the C client has 200 bytes for all
)

// foreignHandler gets the body read and bounded.
type foreignHandler func(w http.ResponseWriter, r *http.Request, body []byte) error

func (s *Server) foreignRoutes(mux *router) {
	mux.HandleFunc("POST /kbs/v0/auth", s.byBody(func(*http.Request) int64 { return maxForeignAuth }, isLegacyAuth, s.trusteeAuth, s.legacyAuth))
	mux.HandleFunc("POST /kbs/v0/attest", s.byBody(s.maxAttest, isLegacyAttest, s.trusteeAttest, s.legacyAttest))
	if s.speaks(session.Trustee) {
		mux.HandleFunc("GET /kbs/v0/resource/{path...}", s.respond(writeErrorInformation, s.trusteeResource))
		s.trusteeAdminRoutes(mux)
	}
	if s.speaks(session.Legacy) {
		mux.HandleFunc("GET /kbs/v0/key/{id}", s.respond(writeText, s.legacyKey))
		mux.HandleFunc("POST /kbs/v0/register_workload", s.respond(writeText, s.legacyRegister))
	}
	mux.HandleFunc("/kbs/v0/", s.respond(s.foreignErrors(), func(_ http.ResponseWriter, r *http.Request) error {
		return &refusal.Error{Code: kbs.CodeNotFound, Kind: "PluginNotFound", Detail: "no such path, method or plugin"}
	}))
}

// foreignErrors is the form of an error under /kbs/v0 that is in no dialect.
func (s *Server) foreignErrors() func(http.ResponseWriter, *refusal.Error) {
	switch {
	case s.speaks(session.Trustee):
		return writeErrorInformation
	case s.speaks(session.Legacy):
		return writeText
	}
	return writeProblem
}

// byBody hands a request to the dialect it is in.
func (s *Server) byBody(limit func(*http.Request) int64, isLegacy func([]byte) bool, trustee, legacy foreignHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := readBody(w, r, limit(r))
		h, write := trustee, writeErrorInformation
		if !s.speaks(session.Trustee) || s.speaks(session.Legacy) && err == nil && isLegacy(body) {
			h, write = legacy, writeText
		}
		s.respond(write, func(w http.ResponseWriter, r *http.Request) error {
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
	if bearer, ok := oneCookie(r, trusteeCookie); ok && s.speaks(session.Trustee) {
		sess, err := s.sessions.Parse(session.Trustee, bearer)
		if err == nil && trusteeTEEs[string(sess.TEE)].tee == kbs.TDX {
			return verifier.MaxEvidenceSize + maxForeignMore
		}
	}
	return maxForeignBody
}

func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, refusal.New(kbs.CodeTooLarge, "body of more than %d bytes", limit)
	case err != nil:
		return nil, refusal.New(kbs.CodeBadRequest, "reading body: %v", err)
	}
	return b, nil
}

// readForeign decodes a body of another project's protocol.
func readForeign(body []byte, v any) error {
	if err := kbs.UnmarshalOpen(body, v); err != nil {
		return refusal.New(kbs.CodeBadRequest, "body: %v", err)
	}
	return nil
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

// oneCookie is the value of the one cookie of that name. The C client sends
// the same twice; two different ones are nobody's.
func oneCookie(r *http.Request, name string) ([]byte, bool) {
	all := r.CookiesNamed(name)
	if len(all) == 0 {
		return nil, false
	}
	for _, c := range all[1:] {
		if c.Value != all[0].Value {
			return nil, false
		}
	}
	return []byte(all[0].Value), true
}

// writeWhole answers 200 in one write with its length, which the C client
// needs: it takes the first piece for the whole.
func writeWhole(w http.ResponseWriter, contentType string, b []byte) error {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b) // the peer may be gone
	return nil
}

// oneSlash takes away the second slash that the C client sends when its URL
// ends with one; it follows no redirect.
func oneSlash(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/"+foreignPrefix); ok {
			u := *r.URL
			u.Path, u.RawPath = foreignPrefix+rest, ""
			clean := *r
			clean.URL = &u
			r = &clean
		}
		next.ServeHTTP(w, r)
	})
}

// short is text for a foreign peer: printable, nothing that JSON would escape,
// and short enough for the C client's buffer.
func short(text string) string {
	clean := strings.Map(func(c rune) rune {
		switch {
		case c == '"':
			return '\''
		case c < ' ' || c > '~' || strings.ContainsRune(`\<>&`, c):
			return '?'
		}
		return c
	}, text)
	return clean[:min(len(clean), maxForeignError)]
}

// foreignDenial tells a guest's owner where to look: the dialects have no
// field for the session.
func foreignDenial(sess *session.Session) string {
	return "attestation denied: ccrun explain " + sess.ID.String()
}

// addForeignKey takes the guest's key, nil with an error for one that is not
// accepted.
func (a *attestRequest) addForeignKey(public recipient.Recipient, err error, accepted, got string) {
	if err != nil {
		public, got = nil, err.Error()
	}
	a.recipient = public
	a.checks.add("tee_key", public != nil, accepted, got, "the client is of a kind or configuration this server does not know")
}

// addForeignEvidence takes Evidence in one of the shapes that fit the
// session's TEE.
func (a *attestRequest) addForeignEvidence(sess *session.Session, p *verifier.Parsed, err error, shapes []string) {
	var refused *verifier.Error
	switch {
	case errors.As(err, &refused):
		a.checks.take(refused.Result(sess.TEE).Rules)
	case err != nil || p == nil:
		a.checks.add("evidence_format", false, strings.Join(shapes, " or "), "unreadable", "the client is not one this server knows")
	default:
		a.checks.add("session_tee", slices.Contains(shapes, p.Shape), strings.Join(shapes, " or "), p.Shape, "the guest announced another TEE than it has")
		a.verify = p.Verify
	}
}
