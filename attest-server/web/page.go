package web

import (
	"bytes"
	"context"
	"crypto/cipher"
	"embed"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// Store is what the page shows. Errors are those of package store.
type Store interface {
	Authenticate(ctx context.Context, token secret.Bytes) (store.Token, error)
	// UseSession marks a name until a time, SessionGrant is store.ErrNotFound
	// for what is not marked, PurgeSessions forgets marks of before a time.
	UseSession(ctx context.Context, id string, until time.Time) error
	SessionGrant(ctx context.Context, id string) ([]byte, error)
	PurgeSessions(ctx context.Context, expired time.Time, limit int) (granted, marks int, err error)
	Workload(ctx context.Context, id string) (store.Workload, error)
	Workloads(ctx context.Context, tenant, after string, limit int) (kbs.WorkloadList, error)
	Session(ctx context.Context, number string) (kbs.SessionRecord, error)
	Sessions(ctx context.Context, q store.SessionQuery, limit int) ([]kbs.SessionRecord, error)
	Fleet(ctx context.Context, q store.FleetQuery, limit int) ([]store.Sighting, error)
	Given(ctx context.Context, tenant, workload string, limit int) ([]store.Given, error)
	Missing(ctx context.Context, tenants []string, a kbs.Approval) ([]string, error)
	Denials(ctx context.Context, since time.Time) ([]store.DenialCount, error)
	AuditPage(ctx context.Context, tenant string, after int64, limit int) (kbs.AuditPage, error)
	AuditHead(ctx context.Context) (kbs.AuditHead, error)
}

// Expiry is something that stops being valid.
type Expiry struct {
	Kind, Name string
	Expires    time.Time
}

// Options is what a page is made of. Everything without a stated default is
// needed.
type Options struct {
	Store Store
	// CookieKey seals the login cookie: 32 bytes. Servers that share it share
	// logins.
	CookieKey secret.Bytes
	Rand      io.Reader
	Clock     func() time.Time
	Log       *slog.Logger
	// Expiries is what to warn of. nil: nothing.
	Expiries func() []Expiry
	// Witnesses is what the audit log's witnesses say. nil: there are none.
	Witnesses func() Witnesses
	// Notice stands on every page, e.g. that this is a simulation. May be empty.
	Notice string
	// LoginLife is when a login ends. Zero: 8 h.
	LoginLife time.Duration
}

//go:embed templates static
var files embed.FS

// Page serves / and everything under /ui/. It is safe for concurrent use.
type Page struct {
	Options
	aead  cipher.AEAD
	pages map[string]*template.Template
	mux   http.Handler
}

// policy lets the browser load our style sheet and icon, send our forms, and
// nothing else.
const policy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// ServeHTTP implements http.Handler.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range map[string]string{
		"Content-Security-Policy":      policy,
		"Strict-Transport-Security":    "max-age=31536000", // the cookie never goes in clear
		"X-Frame-Options":              "DENY",
		"X-Content-Type-Options":       "nosniff",
		"Referrer-Policy":              "no-referrer",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Permissions-Policy":           "camera=(), geolocation=(), microphone=()",
		"Cache-Control":                "no-store",
	} {
		w.Header().Set(name, value)
	}
	p.mux.ServeHTTP(w, r)
}

func static(w http.ResponseWriter, name, kind string) {
	b, err := files.ReadFile("static/" + name)
	if err != nil {
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "public, max-age=300")
	_, _ = w.Write(b) // the peer may be gone
}

// view is what frame.html needs.
type view struct {
	Title  string
	Here   string // path of the navigation's current entry
	Who    string // logged in; empty: nobody
	Tenant string // whose token; empty: the server's operator, who sees all
	Notice string
	Now    time.Time
	Data   any
}

// show renders a page whole before the first byte goes out.
func (p *Page) show(w http.ResponseWriter, r *http.Request, status int, name string, v view) {
	v.Notice, v.Now = p.Notice, p.Clock().UTC()
	var b bytes.Buffer
	if err := p.pages[name].Execute(&b, v); err != nil {
		p.Log.Error("rendering page", "page", name, "error", err)
		http.Error(w, "this page cannot be shown: the server's log says more", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(b.Bytes()) // the peer may be gone
	}
}

func when(t any) string {
	switch t := t.(type) {
	case time.Time:
		if !t.IsZero() {
			return t.UTC().Format("2006-01-02 15:04:05")
		}
	case *time.Time:
		if t != nil {
			return when(*t)
		}
	}
	return "never"
}

func short(s string) string {
	if len(s) > 16 {
		return s[:16] + "…"
	}
	return s
}
