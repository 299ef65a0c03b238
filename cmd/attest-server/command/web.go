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

// webPage is the web page of o, with the certificates that expiries lists.
func webPage(master secret.Bytes, o web.Options, expiries func() []attestserver.Expiry) (http.Handler, error) {
	k, err := hkdf.Key(sha256.New, master.Reveal(), nil, cookieInfo, 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the cookie key: %w", err)
	}
	o.CookieKey = secret.New(k)
	defer o.CookieKey.Wipe()
	o.Rand, o.Clock = rand.Reader, time.Now
	o.Expiries = func() []web.Expiry {
		var all []web.Expiry
		for _, e := range expiries() {
			all = append(all, web.Expiry(e))
		}
		return all
	}
	return web.New(o)
}

var _ = attestserver.Expiry(web.Expiry{}) // the two are one type on two sides
