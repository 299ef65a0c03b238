package answer

import (
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
)

// Text lets only requests through whose path and query are text. No name of
// ours is anything else, and PostgreSQL would fail on it where SQLite finds
// nothing.
func (a Responder) Text(h http.Handler) http.Handler {
	bad := a.Handle(func(http.ResponseWriter, *http.Request) error {
		return refusal.New(kbs.CodeBadRequest, "path or query is not UTF-8 text, or holds a NUL")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, err := url.QueryUnescape(r.URL.RawQuery)
		if !isText(r.URL.Path) || err == nil && !isText(query) {
			bad(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// LastChunked ends an HTTP/1.1 connection with the answer to a request that came
// in chunks. Such a request may have had a Content-Length as well, which Go
// drops: then whoever stands in between may take what follows for another
// request than we do (RFC 9112, section 6.1).
func LastChunked(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 && len(r.TransferEncoding) > 0 {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}
