// Package web is the page for auditors: what is registered, what runs where, who
// attested, what was denied and why, who approved what, what expires, how far the
// audit log goes and who has seen it. It
// changes nothing, loads nothing from elsewhere and needs no JavaScript.
package web

import (
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"time"

	"github.com/ccrun/ccrun/attest-server/store"
)

// New checks o and makes a Page.
func New(o Options) (*Page, error) {
	if o.Store == nil || o.Rand == nil || o.Clock == nil || o.Log == nil {
		return nil, errors.New("web page without store, randomness, clock or log")
	}
	if o.LoginLife <= 0 {
		o.LoginLife = 8 * time.Hour
	}
	p := &Page{Options: o, pages: map[string]*template.Template{}}
	var err error
	if p.aead, err = newCookieAEAD(o.CookieKey); err != nil {
		return nil, err
	}
	for _, name := range []string{"login", "overview", "fleet", "workloads", "workload", "sessions", "session", "denials", "approvals", "expiry", "audit", "error"} {
		t := template.New("frame.html").Funcs(template.FuncMap{"when": when, "short": short, "left": p.left})
		if p.pages[name], err = t.ParseFS(files, "templates/frame.html", "templates/parts.html", "templates/"+name+".html"); err != nil {
			return nil, fmt.Errorf("reading page %s: %w", name, err)
		}
	}
	p.mux = p.routes()
	return p, nil
}

func (p *Page) routes() http.Handler {
	mux := http.NewServeMux()
	for path, kind := range map[string]string{"style.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"} {
		mux.HandleFunc("GET /ui/"+path, func(w http.ResponseWriter, _ *http.Request) { static(w, path, kind) })
	}
	mux.HandleFunc("GET /ui/login", p.showLogin)
	mux.HandleFunc("POST /ui/login", p.login)
	mux.HandleFunc("POST /ui/logout", p.logout)
	for pattern, h := range map[string]pageHandler{
		"GET /{$}": p.overview, "GET /ui/workloads": p.workloads, "GET /ui/workloads/{id}": p.workload,
		"GET /ui/sessions": p.sessions, "GET /ui/sessions/{number}": p.session, "GET /ui/denials": p.denials,
		"GET /ui/fleet": p.fleet, "GET /ui/approvals": p.approvals,
		"GET /ui/expiry": operators(p.expiry), "GET /ui/audit": operators(p.audit),
	} {
		mux.HandleFunc(pattern, p.loggedIn(h))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		p.fail(w, r, fmt.Errorf("page %s: %w", r.URL.Path, store.ErrNotFound))
	})
	return http.NewCrossOriginProtection().Handler(mux)
}
