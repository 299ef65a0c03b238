package answer

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
)

// ForeignPrefix is what the paths of other projects' dialects begin with.
const ForeignPrefix = "/kbs/v0/"

// maxForeignError is characters of detail: the C client has 200 bytes for all.
const maxForeignError = 100

const errorPrefix = "https://github.com/confidential-containers/kbs/errors/"

// WriteWhole answers 200 in one write with its length, which the C client
// needs: it takes the first piece for the whole.
func WriteWhole(w http.ResponseWriter, contentType string, b []byte) error {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b) // the peer may be gone
	return nil
}

// OneSlash takes away the second slash that the C client sends when its URL
// ends with one; it follows no redirect.
func OneSlash(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/"+ForeignPrefix); ok {
			u := *r.URL
			u.Path, u.RawPath = ForeignPrefix+rest, ""
			clean := *r
			clean.URL = &u
			r = &clean
		}
		next.ServeHTTP(w, r)
	})
}

// Short is text for a foreign peer: printable, nothing that JSON would escape,
// and short enough for the C client's buffer.
func Short(text string) string {
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

// ErrorInformation is CoCo's form of an error. Its client begins a new
// handshake at 401, gives up at 404, and takes all else for trouble.
func ErrorInformation(w http.ResponseWriter, e *refusal.Error) {
	kind, status := e.Kind, http.StatusUnauthorized
	for _, t := range []struct {
		code, kind string
		status     int
	}{
		{kbs.CodeBadRequest, "SerdeError", status},
		{kbs.CodeTooLarge, "SerdeError", http.StatusRequestEntityTooLarge},
		{kbs.CodeUnauthorized, "TokenNotFound", status},
		{kbs.CodeSessionExpired, "TokenVerifierError", status},
		{kbs.CodeNotAttested, "TokenNotFound", status},
		{kbs.CodeAttestationDenied, "AttestationError", status},
		{kbs.CodeForbidden, "PolicyDeny", http.StatusForbidden},
		{kbs.CodeAlreadyReleased, "PolicyDeny", http.StatusConflict},
		{kbs.CodeNotFound, "InvalidRequestPath", http.StatusNotFound},
		{kbs.CodeRateLimited, "PluginInternalError", http.StatusTooManyRequests},
		{kbs.CodeUnavailable, "PluginInternalError", http.StatusServiceUnavailable},
		{kbs.CodeMoved, "PluginInternalError", http.StatusServiceUnavailable},
		{kbs.CodeInternal, "PluginInternalError", http.StatusInternalServerError},
	} {
		if t.code == e.Code {
			status = t.status
			if kind == "" {
				kind = t.kind
			}
		}
	}
	detail := e.Detail
	if kind == "SerdeError" { // tells of the sender's bytes
		detail = Short(detail)
	}
	if kind == "AttestationError" {
		detail = "Attestation error: " + detail
	}
	b, err := json.Marshal(struct {
		Type   string `json:"type"`
		Detail string `json:"detail"`
	}{errorPrefix + kind, detail})
	if err != nil { // strings
		b = nil
	}
	if e.RetryAfter > 0 || e.Code == kbs.CodeUnavailable || e.Code == kbs.CodeRateLimited {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter(e.RetryAfter)))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the peer may be gone
}

// Text is a refusal for the C client: never empty, below 200 bytes.
func Text(w http.ResponseWriter, e *refusal.Error) {
	text := Short(e.Detail)
	if text == "" {
		text = e.Code
	}
	if e.Code == kbs.CodeUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="attest-server"`)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", fmt.Sprint(len(text)))
	w.WriteHeader(statusOf(e.Code))
	_, _ = io.WriteString(w, text) // the peer may be gone
}

// NoRedirects answers 404 where ServeMux would redirect to a cleaned path:
// our clients follow no redirects, and others would turn POST into GET.
func NoRedirects(next http.Handler, foreign Form) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := r.URL.Path
		if r.Method == http.MethodConnect || p == "" || p[0] != '/' || (p != "/" && path.Clean(p) != p) {
			write := Form(Problem)
			if strings.HasPrefix(p, "/kbs/v0/") {
				write = foreign // whose clients read no other form of an error
			}
			write(w, &refusal.Error{Code: kbs.CodeNotFound, Detail: "no such path"})
			return
		}
		next.ServeHTTP(w, r)
	})
}
