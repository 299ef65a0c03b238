package command

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"time"

	attestserver "github.com/ccrun/ccrun/attest-server"
	"github.com/ccrun/ccrun/attest-server/web"
	"github.com/ccrun/ccrun/secret"
)

// cookieInfo separates the key of login cookies from others that come from
// the MasterKey. Servers with one MasterKey take one another's logins.
const cookieInfo = "ccrun web cookie v1"

// page is the web page, or nil if it is switched off.
func (d *server) page(master secret.Bytes, notice string) (http.Handler, error) {
	if d.cfg.WebPage != nil && !*d.cfg.WebPage {
		return nil, nil
	}
	k, err := hkdf.Key(sha256.New, master.Reveal(), nil, cookieInfo, 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the cookie key: %w", err)
	}
	cookieKey := secret.New(k)
	defer cookieKey.Wipe()
	p, err := web.New(web.Options{
		Store: d.store, CookieKey: cookieKey, Rand: rand.Reader, Clock: time.Now, Log: d.log, Notice: notice,
		Expiries: func() []web.Expiry {
			var all []web.Expiry
			for _, e := range d.expiries() {
				all = append(all, web.Expiry(e))
			}
			return all
		},
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

var _ = attestserver.Expiry(web.Expiry{}) // the two are one type on two sides
