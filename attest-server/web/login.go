package web

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// The login cookie is the token itself and the login's end, sealed: the
// server keeps nothing but which logins were ended before their time, a token
// revoked ends its logins at once, and a stolen cookie is good for this page
// alone, not for the API.

const (
	// The prefix has browsers refuse the cookie unless it is Secure, for this
	// host alone and for every path.
	cookieName   = "__Host-attest-server"
	cookieLabel  = "ccrun login cookie v1"
	maxToken     = 256
	maxLoginBody = 4 << 10
)

func newCookieAEAD(k secret.Bytes) (cipher.AEAD, error) {
	if k.Len() != 32 {
		return nil, fmt.Errorf("cookie key of %d bytes, expected 32", k.Len())
	}
	b, err := aes.NewCipher(k.Reveal())
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

func (p *Page) seal(token secret.Bytes, until time.Time) (string, error) {
	nonce := make([]byte, p.aead.NonceSize())
	if _, err := io.ReadFull(p.Rand, nonce); err != nil {
		return "", fmt.Errorf("sealing cookie: %w", err)
	}
	plain := binary.BigEndian.AppendUint64(nil, uint64(until.UnixMilli()))
	plain = append(plain, token.Reveal()...)
	defer clear(plain)
	return base64.RawURLEncoding.EncodeToString(p.aead.Seal(nonce, nonce, plain, []byte(cookieLabel))), nil
}

var errNoLogin = errors.New("not logged in")

// login is what a cookie stands for.
type login struct {
	store.Token
	until time.Time
	mark  string // names it where it is marked as ended
}

// whoIs is the request's login, or errNoLogin.
func (p *Page) whoIs(r *http.Request) (l login, err error) {
	cookies := r.CookiesNamed(cookieName)
	if len(cookies) != 1 || len(cookies[0].Value) > 1024 {
		return l, errNoLogin
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(cookies[0].Value)
	if err != nil || len(sealed) < p.aead.NonceSize() {
		return l, errNoLogin
	}
	n := p.aead.NonceSize()
	plain, err := p.aead.Open(nil, sealed[:n], sealed[n:], []byte(cookieLabel))
	if err != nil || len(plain) < 8 {
		return l, errNoLogin
	}
	token := secret.New(plain[8:])
	defer token.Wipe()
	l.until, l.mark = time.UnixMilli(int64(binary.BigEndian.Uint64(plain))), "login "+hex.EncodeToString(sealed[:n])
	if !p.Clock().Before(l.until) {
		return l, errNoLogin
	}
	switch _, err = p.Store.SessionGrant(r.Context(), l.mark); {
	case err == nil:
		return l, errNoLogin
	case !errors.Is(err, store.ErrNotFound):
		return l, err
	}
	l.Token, err = p.Store.Authenticate(r.Context(), token)
	if errors.Is(err, store.ErrBadToken) {
		return l, errNoLogin
	}
	return l, err
}

type pageHandler func(w http.ResponseWriter, r *http.Request, v view) error

// loggedIn shows h's page to whoever has a valid token of any role, for all
// of them may read.
func (p *Page) loggedIn(h pageHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		l, err := p.whoIs(r)
		if err == nil {
			err = h(w, r, view{Who: named(l.Token), Tenant: l.Tenant})
		}
		switch {
		case errors.Is(err, errNoLogin):
			http.Redirect(w, r, "/ui/login", http.StatusSeeOther)
		case err != nil:
			p.fail(w, r, err)
		}
	}
}

func named(t store.Token) string {
	if t.Tenant != "" {
		return t.Tenant + ", " + string(t.Role) + " " + t.ID
	}
	return string(t.Role) + " " + t.ID
}

// operators keeps a page that names every tenant's things from tenants.
func operators(h pageHandler) pageHandler {
	return func(w http.ResponseWriter, r *http.Request, v view) error {
		if v.Tenant != "" {
			return fmt.Errorf("page %s: %w", r.URL.Path, store.ErrNotFound)
		}
		return h(w, r, v)
	}
}

// fail shows an error page; only the log says what is not the reader's.
func (p *Page) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, text := http.StatusInternalServerError, "The server could not read its store. Its log says more."
	switch {
	case errors.Is(err, store.ErrNotFound):
		status, text = http.StatusNotFound, "There is nothing here. It may have been removed, or forgotten as too old."
	case errors.Is(err, store.ErrTampered):
		text = "The store was changed behind the server's back. Run “attest-server audit verify”, and restore a backup."
	case errors.Is(err, context.Canceled):
		return
	}
	if status >= 500 {
		p.Log.Error("showing page", "path", r.URL.Path, "error", err)
	}
	v := view{Title: http.StatusText(status), Data: text}
	if l, err := p.whoIs(r); err == nil {
		v.Who, v.Tenant = named(l.Token), l.Tenant
	}
	p.show(w, r, status, "error", v)
}

func (p *Page) showLogin(w http.ResponseWriter, r *http.Request) {
	p.show(w, r, http.StatusOK, "login", view{Title: "Log in", Data: ""})
}

func (p *Page) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxLoginBody)
	text := r.PostFormValue("token")
	if len(text) > maxToken {
		text = ""
	}
	token := secret.New([]byte(text))
	defer token.Wipe()
	t, err := p.Store.Authenticate(r.Context(), token)
	if errors.Is(err, store.ErrBadToken) {
		p.Log.Warn("login with a bad token", "peer", peer(r))
		p.show(w, r, http.StatusUnauthorized, "login", view{Title: "Log in", Data: "This token is unknown, expired or revoked."})
		return
	}
	if err != nil {
		p.fail(w, r, err)
		return
	}
	until := p.Clock().Add(p.LoginLife)
	if t.ExpiresAt != nil && t.ExpiresAt.Before(until) {
		until = *t.ExpiresAt
	}
	value, err := p.seal(token, until)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	p.Log.Info("login to the web page", "token", t.ID, "role", t.Role, "peer", peer(r))
	setCookie(w, value, int(until.Sub(p.Clock()).Seconds()))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// logout ends the login for whoever has its cookie, on all servers.
func (p *Page) logout(w http.ResponseWriter, r *http.Request) {
	l, err := p.whoIs(r)
	if err == nil {
		err = p.Store.UseSession(r.Context(), l.mark, l.until)
	}
	if err == nil {
		_, _, err = p.Store.PurgeSessions(r.Context(), p.Clock(), 1) // logins that are over
	}
	if err != nil && !errors.Is(err, errNoLogin) && !errors.Is(err, store.ErrUsed) {
		p.fail(w, r, err)
		return
	}
	setCookie(w, "", -1)
	http.Redirect(w, r, "/ui/login", http.StatusSeeOther)
}

func setCookie(w http.ResponseWriter, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: value, Path: "/", MaxAge: maxAge,
		Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
}

func peer(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
