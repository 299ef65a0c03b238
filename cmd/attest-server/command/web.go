package command

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/web"
	"github.com/ccrun/ccrun/attest-server/witness"
	"github.com/ccrun/ccrun/secret"
)

// cookieInfo separates the key of login cookies from others that come from
// the MasterKey. Servers with one MasterKey take one another's logins.
const cookieInfo = "ccrun web cookie v1"

// webPage is the web page of o, which lacks only what is made here.
func webPage(master secret.Bytes, o web.Options) (http.Handler, error) {
	k, err := hkdf.Key(sha256.New, master.Reveal(), nil, cookieInfo, 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the cookie key: %w", err)
	}
	o.CookieKey = secret.New(k)
	defer o.CookieKey.Wipe()
	o.Rand, o.Clock = rand.Reader, time.Now
	return web.New(o)
}

// shownWitnesses is what the page shows of witnesses.
func shownWitnesses(all []witness.Said, refusal error) web.Witnesses {
	w := web.Witnesses{Refusal: shown(refusal)}
	for _, s := range all {
		w.All = append(w.All, web.Witness{Name: s.Name, Optional: s.Optional, Signs: s.Signs, Asked: s.Asked, Entries: s.Size, Problem: shown(s.Err)})
	}
	return w
}

// shown is an error as the page has it: no witness fills it.
func shown(err error) string {
	const most = 500
	if err == nil {
		return ""
	}
	s := strings.ToValidUTF8(err.Error(), "?")
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
